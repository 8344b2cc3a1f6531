//! The server names (TLS SNI, RFC 6066 section 3) by which the gateway tells where a connection goes: built and parsed here alone.
//!
//! Below the installation's domain: `<label>.api` for people's kubectl, `link` and `<label>.link` for agents without and with a
//! certificate, `<label>.egress` for API servers, `<id>.gateway` for other gateways. A cluster's *label* is the 26 characters of its id.

/// Length of a cluster's label: a UUID in Crockford base32.
const LABEL: usize = 26;
/// Length of a gateway's id: a UUID in hexadecimal, without hyphens.
const GATEWAY_ID: usize = 32;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// The API server of the cluster with this label, TLS untouched.
    Api(String),
    /// Enrollment of machines that have no certificate yet.
    Enrollment,
    /// Joined agents of the cluster.
    Link(String),
    /// The egress selector of the cluster's API server.
    Egress(String),
    /// The gateway process with this id, by which other gateways ask for it.
    Gateway(String),
    /// People: every name that is none of ours.
    Portal,
    /// A name of the shape `<x>.api|link|egress|gateway.<domain>` that cannot be a cluster's or a gateway's, or `<x>.node.<domain>`: nodes use their link.
    Unknown,
}

impl ServerName {
    /// Reads a server name; `domain` is lower-case without outer dots.
    pub fn parse(server_name: Option<&str>, domain: &str) -> Self {
        let name = server_name.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let Some(inside) = name.strip_suffix(domain).and_then(|front| front.strip_suffix('.')) else {
            return Self::Portal;
        };
        match inside.rsplit_once('.') {
            None if inside == "link" => Self::Enrollment,
            None => Self::Portal,
            Some((label, kind)) => Self::below(label, kind),
        }
    }

    fn below(label: &str, kind: &str) -> Self {
        let (name, is_valid): (fn(String) -> Self, _) = match kind {
            "api" => (Self::Api, is_label(label)),
            "link" => (Self::Link, is_label(label)),
            "egress" => (Self::Egress, is_label(label)),
            "gateway" => (Self::Gateway, is_gateway_id(label)),
            "node" => return Self::Unknown,
            _ => return Self::Portal,
        };
        if is_valid { name(label.to_owned()) } else { Self::Unknown }
    }
}

fn is_gateway_id(text: &str) -> bool {
    text.len() == GATEWAY_ID && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_label(text: &str) -> bool {
    text.len() == LABEL && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// What people's kubectl asks for; passed through untouched to the cluster's API server.
pub fn api(label: &str, domain: &str) -> String {
    format!("{label}.api.{domain}")
}

/// What a joined agent asks for; the gateway ends TLS and demands a certificate of that cluster's link CA.
pub fn link(label: &str, domain: &str) -> String {
    format!("{label}.link.{domain}")
}

/// What a cluster's API server asks for when it wants to reach a node or a pod.
pub fn egress(label: &str, domain: &str) -> String {
    format!("{label}.egress.{domain}")
}

/// What another gateway asks for that has a request for a node linked to this one.
pub fn gateway(id: &str, domain: &str) -> String {
    format!("{id}.gateway.{domain}")
}

/// What an agent without a certificate asks for.
pub fn enrollment(domain: &str) -> String {
    format!("link.{domain}")
}

/// What the gateway's own certificate must be good for besides the portal's names.
pub fn served_by_gateway(domain: &str) -> [String; 4] {
    [enrollment(domain), link("*", domain), egress("*", domain), gateway("*", domain)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "pilothouse.internal";
    const A: &str = "01k9zq0000000000000000000a";

    fn parse(name: &str) -> ServerName {
        ServerName::parse(Some(name), DOMAIN)
    }

    #[test]
    fn what_is_built_is_parsed() {
        assert_eq!(parse(&api(A, DOMAIN)), ServerName::Api(A.into()));
        assert_eq!(parse(&link(A, DOMAIN)), ServerName::Link(A.into()));
        assert_eq!(parse(&egress(A, DOMAIN)), ServerName::Egress(A.into()));
        assert_eq!(parse(&enrollment(DOMAIN)), ServerName::Enrollment);
        let id = "0198c0ffee0000000000000000000001";
        assert_eq!(parse(&gateway(id, DOMAIN)), ServerName::Gateway(id.into()));
        assert_eq!(parse(&gateway(A, DOMAIN)), ServerName::Unknown);
        assert_eq!(parse(&link(id, DOMAIN)), ServerName::Unknown);
        assert_eq!(parse(&format!("{A}.node.{DOMAIN}")), ServerName::Unknown);
    }

    #[test]
    fn case_and_trailing_dot_do_not_matter() {
        let shouted = format!("{A}.API.{DOMAIN}.").to_ascii_uppercase();
        assert_eq!(parse(&shouted), ServerName::Api(A.into()));
        assert_eq!(parse("LINK.Pilothouse.Internal"), ServerName::Enrollment);
    }

    #[test]
    fn everything_else_is_the_portal() {
        assert_eq!(ServerName::parse(None, DOMAIN), ServerName::Portal);
        for name in ["", "example.com", DOMAIN, "portal.pilothouse.internal", "linkpilothouse.internal", "127.0.0.1"] {
            assert_eq!(parse(name), ServerName::Portal, "{name}");
        }
        assert_eq!(parse(&format!("{A}.other.{DOMAIN}")), ServerName::Portal);
        assert_eq!(parse(&format!("{A}.api.example.com")), ServerName::Portal);
        assert_eq!(parse(&format!("{A}.api.evil{DOMAIN}")), ServerName::Portal);
    }

    #[test]
    fn a_name_that_cannot_be_a_cluster_is_unknown() {
        for label in
            ["x", "", "01k9zq0000000000000000000", "a.01k9zq0000000000000000000a", "01k9zq-000000000000000000a"]
        {
            assert_eq!(parse(&api(label, DOMAIN)), ServerName::Unknown, "{label}");
            assert_eq!(parse(&link(label, DOMAIN)), ServerName::Unknown, "{label}");
        }
    }
}
