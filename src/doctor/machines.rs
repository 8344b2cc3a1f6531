//! What keeps local machines from this one: the mode they run in, and, where they are isolated, a trial from inside of them.
//!
//! Connections are opened from where a machine's root would; nothing is concluded from the rules' text.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use futures::{StreamExt, stream};
use node_linux::cgroup::Cgroups;
use tokio::time::Instant;

use super::Check;
use super::isolation::address_of;
use super::wall::{self, Tried, Way};
use crate::instance::{Instance, Record};
use crate::platform::machines::{self, Mode};
use crate::ready;
use embedded_host::site::Addresses;

const ID: &str = "local-machines";
/// Machines tried at a time, each by a thread.
const AT_ONCE: usize = 8;
/// For all machines and all listeners: what there was no time for is told.
const LIMIT: Duration = Duration::from_secs(30);
/// Where each machine's kubelet listens.
const KUBELET: u16 = 10250;
const DNS: u16 = 53;
/// `TCP_LISTEN` in `/proc/net/tcp` (proc_net(5)).
const LISTENS: &str = "0A";
/// What `/proc/net/udp` says of a socket that hears everybody: `TCP_CLOSE`.
const HEARS: &str = "07";

/// Says the mode; from every isolated machine it tries every listener of this one, and the other machines.
pub async fn probe(instance: &Instance, record: &Record) -> Check {
    match ready::read(instance).map(|ready| ready.local_machines) {
        Ok(Mode::Isolated) => tried(instance, record).await,
        Ok(Mode::Trusted) => Check::warn(
            ID,
            Mode::Trusted.described(),
            "good for trying out; for others' workloads take machines of their own: pilothouse up --local-machines off",
        ),
        Ok(Mode::Off) | Err(_) => Check::pass(ID, Mode::Off.described()),
    }
}

/// An isolated machine that runs.
struct Machine {
    network: File,
    address: Ipv4Addr,
}

/// What was found out by trying.
#[derive(Debug, Clone, Default)]
struct Found {
    machines: usize,
    /// Of them, those from which the gateway answers: where nothing does, nothing is proven.
    seeing: usize,
    wanted: usize,
    tried: usize,
    /// UDP ports, and those of them that answer a question at all.
    udp: usize,
    answering: usize,
    reached: Vec<String>,
}

async fn tried(instance: &Instance, record: &Record) -> Check {
    let machines = machines(instance, record).await;
    let deadline = Instant::now() + LIMIT;
    let mut found = Found { machines: machines.len(), ..Found::default() };
    if machines.is_empty() {
        return verdict(&found);
    }
    let mut ways = forbidden(record, &mut found, deadline).await;
    ways.extend(machines.iter().map(|machine| Way::Tcp(SocketAddrV4::new(machine.address, KUBELET))));
    let gateway = match machines::dialed(record) {
        SocketAddr::V4(gateway) => Some(Way::Tcp(gateway)),
        SocketAddr::V6(_) => None,
    };
    let tries = machines.into_iter().map(|machine| {
        let ways = ways.iter().copied().filter(|way| *way.to().ip() != machine.address).collect();
        from(machine, gateway, ways, deadline)
    });
    let all: Vec<_> = stream::iter(tries).buffer_unordered(AT_ONCE).collect().await;
    all.iter().for_each(|one| found.add(one));
    verdict(&found)
}

/// What came of one machine.
struct Outcome {
    address: Ipv4Addr,
    wanted: usize,
    sees: bool,
    tried: Tried,
}

async fn from(machine: Machine, gateway: Option<Way>, ways: Vec<Way>, deadline: Instant) -> Outcome {
    let wanted = ways.len();
    let all = gateway.into_iter().chain(ways).collect();
    // A machine that ended meanwhile counts as not tried.
    let mut tried = wall::from_inside(machine.network, all, deadline).await.unwrap_or_default();
    let sees = gateway.is_some_and(|gateway| tried.open.contains(&gateway));
    tried.open.retain(|way| Some(*way) != gateway);
    tried.count = tried.count.saturating_sub(usize::from(gateway.is_some()));
    Outcome { address: machine.address, wanted, sees, tried }
}

impl Found {
    fn add(&mut self, one: &Outcome) {
        self.seeing += usize::from(one.sees);
        self.wanted += one.wanted;
        self.tried += one.tried.count;
        let described = |way: &Way| match way {
            Way::Tcp(to) => format!("{} → {to}", one.address),
            Way::Udp(to) => format!("{} → {to} (UDP)", one.address),
        };
        self.reached.extend(one.tried.open.iter().map(described));
    }
}

fn verdict(found: &Found) -> Check {
    let Found { machines, seeing, wanted, tried, udp, answering, .. } = found;
    if *machines == 0 {
        return Check::pass(ID, "isolated; none runs now: nothing to try");
    }
    let counted = format!("{tried} of {wanted} forbidden connections from {seeing} of {machines} machines");
    if !found.reached.is_empty() {
        return Check::fail(
            ID,
            format!("isolated, but machines reach what they must not: {} ({counted} tried)", found.reached.join(", ")),
            "see whether something replaced the nftables table pilothouse_NAME; pilothouse down and up set it again",
        );
    }
    if seeing < machines {
        return Check::warn(
            ID,
            format!(
                "isolated, but proven for {seeing} of {machines} machines: from the others not even the gateway answers"
            ),
            "ask again when their nodes are ready",
        );
    }
    if tried < wanted {
        return Check::warn(
            ID,
            format!("isolated, and {counted} all failed; for the rest {} s were not enough", LIMIT.as_secs()),
            "ask again when this machine is less busy",
        );
    }
    let heard = match udp {
        0 => "no UDP port is listened on here".to_owned(),
        _ => format!("{answering} of {udp} UDP ports answer here, so their silence there counts"),
    };
    Check::pass(ID, format!("isolated: {counted} all failed; {heard}"))
}

/// Every running machine, by a process of it that is in the machine's own network.
async fn machines(instance: &Instance, record: &Record) -> Vec<Machine> {
    let range = Addresses::of(record.slot).machines();
    let (mut networks, mut found) = (BTreeSet::new(), Vec::new());
    for pid in Cgroups::detect().processes(&format!("{}/machines", instance.cgroup())) {
        let path = format!("/proc/{pid}/ns/net");
        let (Ok(id), Ok(network)) = (fs::read_link(&path), File::open(&path)) else { continue };
        if !networks.insert(id) {
            continue;
        }
        if let Some(address) = address_of(pid).await.filter(|address| range.contains(address)) {
            found.push(Machine { network, address });
        }
    }
    found
}

/// Every listener of this machine that machines must not reach. Of those by UDP the ones that answer here: where a listener says
/// nothing to anybody, silence proves nothing.
async fn forbidden(record: &Record, found: &mut Found, deadline: Instant) -> Vec<Way> {
    let (addresses, resolvers) = (own_addresses(), cloud_local::resolver_addresses());
    let open =
        |to: &SocketAddrV4| to.port() == record.advertise.port() || (to.port() == DNS && resolvers.contains(to.ip()));
    let (tcp, udp) = (ports("tcp", LISTENS), ports("udp", HEARS));
    let asked = listeners(&addresses, &udp).into_iter().filter(|to| !open(to)).map(Way::Udp).collect();
    let answering = wall::from_here(asked, deadline).await.open;
    found.udp = udp.len();
    found.answering = answering.iter().map(|way| way.to().port()).collect::<BTreeSet<_>>().len();
    let tcp = listeners(&addresses, &tcp).into_iter().filter(|to| !open(to)).map(Way::Tcp);
    tcp.chain(answering).collect()
}

/// Each port at each address.
fn listeners(addresses: &[Ipv4Addr], ports: &BTreeSet<u16>) -> Vec<SocketAddrV4> {
    ports.iter().flat_map(|port| addresses.iter().map(|address| SocketAddrV4::new(*address, *port))).collect()
}

fn own_addresses() -> Vec<Ipv4Addr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let own: BTreeSet<Ipv4Addr> = all.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip())).collect();
    own.into_iter().filter(|address| !address.is_loopback()).collect()
}

/// The local ports of a protocol's sockets in this state.
fn ports(protocol: &str, state: &str) -> BTreeSet<u16> {
    let texts = ["", "6"].map(|six| fs::read_to_string(format!("/proc/net/{protocol}{six}")).unwrap_or_default());
    texts.iter().flat_map(|text| text.lines().filter_map(|line| port_of(line, state))).collect()
}

/// The port of a line whose socket is in this state.
fn port_of(line: &str, wanted: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    let state = words.nth(1)?;
    (state == wanted).then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn listeners_are_read_off_the_kernels_table() {
        let line = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        assert_eq!(port_of(line, LISTENS), Some(22));
        assert_eq!(port_of(&line.replace(" 0A ", " 01 "), LISTENS), None);
        assert_eq!(port_of("  sl  local_address rem_address   st tx_queue rx_queue", LISTENS), None);
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(ports("tcp", LISTENS).contains(&tcp.local_addr().unwrap().port()));
        assert!(ports("udp", HEARS).contains(&udp.local_addr().unwrap().port()));
    }

    #[test]
    fn no_listener_is_left_out() {
        let addresses = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let all = listeners(&addresses, &(1..=200).collect());
        assert_eq!((all.len(), all.last()), (400, Some(&SocketAddrV4::new(addresses[1], 200))));
    }

    fn outcome(tried: usize, sees: bool, open: Vec<Way>) -> Outcome {
        Outcome { address: Ipv4Addr::LOCALHOST, wanted: 6, sees, tried: Tried { count: tried, open } }
    }

    fn judged(outcomes: &[Outcome]) -> Check {
        let mut found = Found { machines: outcomes.len(), udp: 3, answering: 1, ..Found::default() };
        outcomes.iter().for_each(|one| found.add(one));
        verdict(&found)
    }

    #[test]
    fn a_trial_says_how_much_of_how_much_was_tried() {
        assert_eq!(judged(&[]).status, Verdict::Pass);
        let whole = judged(&[outcome(6, true, vec![]), outcome(6, true, vec![])]);
        assert_eq!(whole.status, Verdict::Pass);
        let said =
            "isolated: 12 of 12 forbidden connections from 2 of 2 machines all failed; 1 of 3 UDP ports answer here";
        assert!(whole.observed.starts_with(said), "{}", whole.observed);
        let cut = judged(&[outcome(6, true, vec![]), outcome(1, true, vec![])]);
        assert_eq!(cut.status, Verdict::Warn);
        assert!(cut.observed.contains("7 of 12") && cut.observed.contains("30 s were not enough"), "{}", cut.observed);
    }

    #[test]
    fn a_trial_that_sees_nothing_proves_nothing() {
        let blind = judged(&[outcome(6, true, vec![]), outcome(6, false, vec![])]);
        assert_eq!(blind.status, Verdict::Warn);
        assert!(blind.observed.contains("proven for 1 of 2 machines"), "{}", blind.observed);
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 53);
        let open = judged(&[outcome(6, false, vec![]), outcome(6, true, vec![Way::Tcp(to), Way::Udp(to)])]);
        assert_eq!(open.status, Verdict::Fail);
        assert!(
            open.observed.contains("127.0.0.1 → 192.0.2.1:53, 127.0.0.1 → 192.0.2.1:53 (UDP)"),
            "{}",
            open.observed
        );
    }

    #[tokio::test]
    async fn what_comes_of_a_machine_leaves_the_gateway_out() {
        let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(at) = gateway.local_addr().unwrap() else { panic!() };
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let machine = Machine { network: File::open("/proc/self/ns/net").unwrap(), address: Ipv4Addr::LOCALHOST };
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ways = vec![Way::Tcp(SocketAddrV4::new(Ipv4Addr::LOCALHOST, closed))];
        let one = from(machine, Some(Way::Tcp(at)), ways, Instant::now() + LIMIT).await;
        assert_eq!((one.sees, one.wanted, one.tried), (true, 1, Tried { count: 1, open: vec![] }));
    }
}
