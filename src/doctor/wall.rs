//! Tries to get out of a network, from inside of it: many ways at a time, until a deadline.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// From one network at a time; each way holds one descriptor.
const AT_ONCE: usize = 64;
/// Packets that are dropped answer with silence. Everything that is tried is on this machine.
const SILENCE: Duration = Duration::from_millis(500);
/// RFC 1035: the name servers of the root, please.
const DNS: [u8; 17] = [0x70, 0x68, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// RFC 5905: version 4, mode 3, asked by a client; all else may be zero.
const NTP: [u8; 48] = {
    let mut text = [0; 48];
    text[0] = 0x23;
    text
};
const NTP_PORT: u16 = 123;

/// One way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A connection.
    Tcp(SocketAddrV4),
    /// A question that a name server or a clock answers.
    Udp(SocketAddrV4),
}

impl Way {
    /// Whose it is.
    pub fn to(self) -> SocketAddrV4 {
        match self {
            Way::Tcp(to) | Way::Udp(to) => to,
        }
    }
}

/// What came of trying.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// How many ways were tried: there was time, and the attempt left this process.
    pub count: usize,
    /// Those that led somewhere.
    pub open: Vec<Way>,
}

/// Tries all ways from another network (network_namespaces(7)).
pub async fn from_inside(network: File, ways: Vec<Way>, deadline: Instant) -> io::Result<Tried> {
    let (told, heard) = oneshot::channel();
    // A thread of its own: the network is a thread's, and this one must not be given other work afterwards.
    thread::Builder::new().name("wall".to_owned()).spawn(move || {
        let work = || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            Ok(Builder::new_current_thread().enable_all().build()?.block_on(from_here(ways, deadline)))
        };
        // Nobody listens any more: then nobody wants to know.
        let _ = told.send(work());
    })?;
    heard.await.unwrap_or_else(|_| Err(io::Error::other("the thread that tried ended")))
}

/// Tries all ways from this process's own network.
pub async fn from_here(ways: Vec<Way>, deadline: Instant) -> Tried {
    let tries = stream::iter(ways)
        .map(|way| async move { if Instant::now() < deadline { Some((way, is_open(way).await?)) } else { None } });
    let mut tried = Tried::default();
    let mut tries = tries.buffer_unordered(AT_ONCE);
    while let Some(one) = tries.next().await {
        let Some((way, open)) = one else { continue };
        tried.count += 1;
        tried.open.extend(open.then_some(way));
    }
    tried
}

/// None where the attempt never left this process, for want of descriptors or memory: it says nothing of the wall.
async fn is_open(way: Way) -> Option<bool> {
    let opened = match way {
        Way::Tcp(to) => timeout(SILENCE, TcpStream::connect(to)).await.map(|stream| stream.map(drop)),
        Way::Udp(to) => timeout(SILENCE, ask(to)).await,
    };
    match opened {
        Ok(Ok(())) => Some(true),
        Err(_) => Some(false),
        Ok(Err(error)) => is_an_answer(&error).then_some(false),
    }
}

/// Whether an error comes from the way and not from this process.
fn is_an_answer(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut,
    };
    let of_way = [ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut];
    of_way.contains(&error.kind())
}

/// Any answer counts.
async fn ask(to: SocketAddrV4) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(to).await?;
    socket.send(if to.port() == NTP_PORT { &NTP } else { &DNS }).await?;
    socket.recv(&mut [0; 1]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket as StdUdpSocket};
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn what_never_left_this_process_says_nothing_of_the_wall() {
        let of = |number: i32| is_an_answer(&io::Error::from_raw_os_error(number));
        let [refused, unreachable, no_files, no_address] = [111, 113, 24, 99];
        assert!(of(refused) && of(unreachable) && !of(no_files) && !of(no_address));
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn of(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    /// Answers everything that is asked, or nothing.
    fn udp(answers: bool) -> SocketAddrV4 {
        let socket = StdUdpSocket::bind(of(0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut text = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut text) {
                assert!(text[..length] == DNS);
                if answers {
                    socket.send_to(b"answer", from).unwrap();
                }
            }
        });
        of(port)
    }

    #[tokio::test]
    async fn every_way_is_tried_and_an_answer_is_told_from_silence() {
        let listener = TcpListener::bind(of(0)).unwrap();
        let closed = TcpListener::bind(of(0)).unwrap().local_addr().unwrap().port();
        let (answers, silent) = (udp(true), udp(false));
        let open = Way::Tcp(of(listener.local_addr().unwrap().port()));
        // More than are tried at a time, the open ones last.
        let mut ways = vec![Way::Tcp(of(closed)); 3 * AT_ONCE];
        ways.extend([Way::Udp(silent), Way::Udp(of(closed)), open, Way::Udp(answers)]);
        let mut tried = from_here(ways.clone(), soon()).await;
        tried.open.sort_by_key(|way| matches!(way, Way::Udp(_)));
        assert_eq!(tried, Tried { count: ways.len(), open: vec![open, Way::Udp(answers)] });
        assert_eq!(from_here(ways, Instant::now()).await, Tried::default(), "too late");
    }

    struct Elsewhere(Child);

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn ways_are_tried_from_the_network_that_was_given() {
        let listener = TcpListener::bind(of(0)).unwrap();
        let ways = vec![Way::Tcp(of(listener.local_addr().unwrap().port())), Way::Udp(udp(true))];
        let own = || File::open("/proc/thread-self/ns/net").unwrap();
        if !nix::unistd::geteuid().is_root() || setns(own(), CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        assert_eq!(from_inside(own(), ways.clone(), soon()).await.unwrap().open.len(), 2);
        // A network in which only a loopback is, and that is up.
        let script = "ip link set lo up && echo up && exec sleep 60";
        let mut child = Command::new("unshare");
        child.args(["--net", "sh", "-c", script]).stdout(std::process::Stdio::piped());
        let mut elsewhere = Elsewhere(child.spawn().unwrap());
        let mut line = [0; 3];
        io::Read::read_exact(elsewhere.0.stdout.as_mut().unwrap(), &mut line).unwrap();
        let network = File::open(format!("/proc/{}/ns/net", elsewhere.0.id())).unwrap();
        let tried = from_inside(network, ways, soon()).await.unwrap();
        assert_eq!(tried, Tried { count: 2, open: Vec::new() });
        assert_eq!(from_inside(own(), vec![Way::Udp(udp(true))], soon()).await.unwrap().open.len(), 1, "here still");
    }
}
