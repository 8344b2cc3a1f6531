//! What a CONNECT asks for: a node by name, or an address of the cluster. Pure.
//!
//! Names are node names and nothing else: the API server resolves services to addresses itself. Addresses that can only
//! mean the dialing machine itself or its neighbourhood are refused here already; which of the rest belong to the
//! cluster, the agent knows and checks.

use std::{fmt, net::Ipv4Addr};

use crate::tunnel::refusal::Refusal;

/// Who is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A node, lower-case.
    Node(String),
    /// A pod or a service.
    Address(Ipv4Addr),
}

/// `host:port` of a CONNECT; `Display` gives it back, normalized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host.
    pub(crate) host: Host,
    /// The port, not 0.
    pub(crate) port: u16,
}

impl Target {
    /// Reads an authority as RFC 9110 section 9.3.6 has it.
    pub(crate) fn parse(authority: &str) -> Result<Self, Refusal> {
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| malformed(authority))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| malformed(authority))?;
        Ok(Self { host: Host::parse(host)?, port })
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains([':', '[', ']']) {
            return Err(Refusal::new(403, format!("{text} is not reachable: IPv6 is not served")));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return if is_local(address) { Err(outside(text)) } else { Ok(Self::Address(address)) };
        }
        if is_node_name(text) { Ok(Self::Node(text.to_ascii_lowercase())) } else { Err(outside(text)) }
    }
}

fn malformed(authority: &str) -> Refusal {
    Refusal::new(400, format!("cannot read {authority:?}: CONNECT needs host:port"))
}

fn outside(host: &str) -> Refusal {
    Refusal::new(403, format!("{host} is neither a node nor a pod or service address of this cluster"))
}

fn is_local(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.octets()[0] == 0
        || address.is_link_local()
        || address.is_multicast()
        || address.octets()[0] >= 240
}

/// A DNS label (RFC 1123): at most 63 letters, digits and inner hyphens, at least one of them not a digit.
fn is_node_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.parse::<u64>().is_err()
        && !text.eq_ignore_ascii_case("localhost")
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Node(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => write!(f, "{address}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(authority: &str) -> u16 {
        Target::parse(authority).unwrap_err().status
    }

    #[test]
    fn nodes_and_addresses() {
        let node = Target::parse("Web-1:10250").unwrap();
        assert_eq!(node, Target { host: Host::Node("web-1".into()), port: 10250 });
        assert_eq!(node.to_string(), "web-1:10250");
        let pod = Target::parse("10.244.3.7:8080").unwrap();
        assert_eq!(pod.host, Host::Address(Ipv4Addr::new(10, 244, 3, 7)));
        assert_eq!(pod.to_string(), "10.244.3.7:8080");
    }

    #[test]
    fn what_cannot_be_read() {
        for authority in ["", "web-1", "web-1:", "web-1:0", "web-1:65536", "web-1:-1", "web-1:http"] {
            assert_eq!(status(authority), 400, "{authority}");
        }
    }

    #[test]
    fn what_is_outside() {
        for host in [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "::1",
            "example.com",
            "localhost",
            "LOCALHOST.",
            "-a",
            "a-",
            "a_b",
            "",
            "2130706433",
            "web-1/x",
            "web-1 x",
        ] {
            assert_eq!(status(&format!("{host}:443")), 403, "{host}");
        }
        assert_eq!(status(&format!("{}:443", "a".repeat(64))), 403);
    }
}
