//! resolv.conf(5) as pods can use it: a pod has a network of its own, so a server on the machine's loopback is none for it, and CoreDNS
//! ends where a file names no server and asks itself for ever where it names its own loopback.

use std::net::IpAddr;

use crate::check::Check;

fn servers(text: &str) -> impl Iterator<Item = (&str, Option<IpAddr>)> {
    let lines = text.lines().filter(|line| line.split_whitespace().next() == Some("nameserver"));
    lines.map(|line| {
        // An IPv6 address may carry its interface: `fe80::1%eth0`.
        let word = line.split_whitespace().nth(1).unwrap_or_default();
        (line, word.split('%').next().unwrap_or_default().parse().ok())
    })
}

/// True when every name server is on loopback, and there is one.
pub fn is_local(text: &str) -> bool {
    let mut all = servers(text).map(|(_, address)| address.is_some_and(|address| address.is_loopback())).peekable();
    all.peek().is_some() && all.all(|local| local)
}

/// True when a pod can ask every server it names, and there is one.
pub fn is_usable(text: &str) -> bool {
    let mut all = servers(text).map(|(_, address)| address.is_some_and(|address| !address.is_loopback())).peekable();
    all.peek().is_some() && all.all(|usable| usable)
}

/// The text without the servers that a pod cannot ask; `fallback` where none is left. Search domains and options stay.
pub fn for_pods(text: &str, fallback: IpAddr) -> String {
    let usable = |line: &str| match servers(line).next() {
        Some((_, address)) => address.is_some_and(|address| !address.is_loopback()),
        None => true,
    };
    let mut lines: Vec<String> = text.lines().filter(|line| usable(line)).map(str::to_owned).collect();
    if servers(&lines.join("\n")).next().is_none() {
        lines.push(format!("nameserver {fallback}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Whether pods will resolve names outside of their cluster.
pub fn check(id: &'static str, text: &str) -> Check {
    let remedy =
        "name one in /etc/resolv.conf that is not on loopback; until then pods resolve names of their cluster only";
    match (is_usable(text), servers(text).next()) {
        (true, _) => Check::pass(id, "reachable for pods"),
        (false, None) => Check::warn(id, "no name server in /etc/resolv.conf", remedy),
        (false, Some(_)) if is_local(text) => Check::warn(id, "on loopback only", remedy),
        (false, Some(_)) => Check::pass(id, "some on loopback, which pods are not told of"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_resolver_on_loopback_is_seen() {
        assert!(is_local("nameserver 127.0.0.53\noptions edns0\n") && is_local("nameserver ::1"));
        assert!(!is_local("# nameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver 127.0.0.1\n"));
        assert!(!is_local("") && !is_usable(""), "none at all is another matter");
        assert!(is_usable("nameserver\t192.0.2.53") && is_usable("nameserver fe80::1%eth0"));
    }

    #[test]
    fn pods_are_told_of_servers_they_can_ask_and_of_one_at_least() {
        let fallback = "198.18.0.1".parse().unwrap();
        let mixed = "search example.org\nnameserver 127.0.0.1\nnameserver 192.0.2.53\noptions ndots:2\n";
        assert_eq!(for_pods(mixed, fallback), "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n");
        assert_eq!(for_pods("nameserver 127.0.0.53\nsearch a\n", fallback), "search a\nnameserver 198.18.0.1\n");
        assert_eq!(for_pods("", fallback), "nameserver 198.18.0.1\n");
        assert!(is_usable(&for_pods("nameserver nonsense", fallback)));
    }

    #[test]
    fn what_pods_cannot_resolve_is_said() {
        assert_eq!(check("resolver", "").status, Verdict::Warn);
        assert_eq!(check("resolver", "nameserver 127.0.0.53").status, Verdict::Warn);
        assert_eq!(check("resolver", "nameserver 192.0.2.53").status, Verdict::Pass);
        assert!(check("resolver", "search a\n").remediation.contains("/etc/resolv.conf"));
    }
}
