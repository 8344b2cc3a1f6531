//! Others' firewalls on the platform's machine (Docker, ufw, firewalld, an administrator's own), which may drop what goes between control
//! planes, local machines and the gateway. An accept in a table of ours does not override a drop in theirs (nft(8)), so they are named.

use anyhow::Result;
use ipnet::Ipv4Net;
use node_linux::firewall::{Closed, Hook, chains, ends_closed, remedy};
use node_linux::tool::run;

use super::Check;

const ID: &str = "firewall";

/// Whether a foreign chain for what passes through this machine, or is for the machine itself, drops what no rule accepts and its table says
/// nothing of `range`, the instance's own addresses.
pub async fn check(range: Ipv4Net) -> Check {
    match closed_to(&["nft"], range).await {
        Ok(closed) => judge(&closed, range),
        // That nft is missing is another check's to say.
        Err(error) => {
            Check::warn(ID, format!("cannot be looked at: {error:#}"), "look whether `nft list ruleset` works")
        }
    }
}

fn judge(closed: &[(Hook, Closed)], range: Ipv4Net) -> Check {
    if closed.is_empty() {
        return Check::pass(ID, format!("nobody else's drops what {range} sends"));
    }
    let names: Vec<String> = closed.iter().map(|(_, chain)| chain.to_string()).collect();
    let remedies: Vec<String> =
        closed.iter().map(|(hook, chain)| remedy(chain, *hook, &range.to_string(), "")).collect();
    let observed = format!("{} may drop what {range}, this instance's addresses, sends", names.join(" and "));
    Check::warn(ID, observed, format!("let it pass: {}", remedies.join("; ")))
}

/// The foreign chains that are closed and whose tables do not name `range`. `nft` is the command for it, which may enter a namespace first.
async fn closed_to(nft: &[&str], range: Ipv4Net) -> Result<Vec<(Hook, Closed)>> {
    let list = async |what: &[&str]| run(&[nft, what].concat()).await;
    let all = list(&["-j", "list", "chains"]).await?;
    let mut found = Vec::new();
    for hook in [Hook::Input, Hook::Forward] {
        let (mut closed, open) = chains(&all, hook);
        for chain in open {
            let rules = list(&["-j", "list", "chain", &chain.family, &chain.table, &chain.chain]).await?;
            closed.extend(ends_closed(&rules).then_some(chain));
        }
        for chain in closed {
            let table = list(&["list", "table", &chain.family, &chain.table]).await?;
            if !table.contains(&range.to_string()) {
                found.push((hook, chain));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network namespace of its own, for as long as the process lives.
    struct Namespace(std::process::Child);

    impl Namespace {
        fn new() -> Self {
            Self(std::process::Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap())
        }

        async fn closed(&self) -> Vec<String> {
            let found = closed_to(&["nsenter", &self.net(), "nft"], "100.64.0.0/16".parse().unwrap()).await.unwrap();
            found.iter().map(|(hook, chain)| format!("{hook:?} {chain}")).collect()
        }

        fn net(&self) -> String {
            format!("--net=/proc/{}/ns/net", self.0.id())
        }

        /// Once the child has left this process's namespace.
        async fn entered(&self) {
            let of = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).unwrap();
            while of(&self.0.id().to_string()) == of("self") {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }

        async fn nft(&self, command: &str) {
            run(&["nsenter", &self.net(), "nft", command]).await.unwrap();
        }
    }

    impl Drop for Namespace {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn a_foreign_firewall_is_named_until_it_lets_the_instance_pass() {
        let namespace = Namespace::new();
        namespace.entered().await;
        assert!(namespace.closed().await.is_empty());
        namespace.nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }").await;
        namespace.nft("table inet own { chain in { type filter hook input priority 0; counter drop; }; }").await;
        namespace.nft("table ip pilothouse_x { chain in { type filter hook input priority 0; policy drop; }; }").await;
        let closed = ["Input chain in of table inet own", "Forward chain FORWARD of table ip filter"];
        assert_eq!(namespace.closed().await, closed);
        namespace.nft("insert rule ip filter FORWARD ip saddr 100.64.0.0/16 accept").await;
        namespace.nft("insert rule inet own in ip saddr 100.64.0.0/16 accept").await;
        assert!(namespace.closed().await.is_empty(), "the remedy counts");
    }

    #[test]
    fn the_remedy_names_the_addresses() {
        let closed = Closed { family: "inet".into(), table: "own".into(), chain: "in".into() };
        let check = judge(&[(Hook::Input, closed)], "100.64.0.0/16".parse().unwrap());
        assert_eq!(check.status, node_linux::Verdict::Warn);
        assert_eq!(check.remediation, "let it pass: nft insert rule inet own in ip saddr 100.64.0.0/16 accept");
    }
}
