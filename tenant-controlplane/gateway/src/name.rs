//! From a server name to a destination. Pure.

/// Length of a cluster's label: a UUID in Crockford base32.
const LABEL: usize = 26;

/// Where a visitor wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The tenant API server of the cluster with this label, TLS untouched.
    Api(String),
    /// Enrolment of machines that have no certificate yet.
    Enrolment,
    /// Joined agents of the cluster.
    Link(String),
    /// The egress selector of the cluster's API server.
    Egress(String),
    /// People.
    Portal,
    /// A name of the shape `<x>.api|link|egress.<domain>` that cannot be a cluster's, or `<x>.node.<domain>`: nodes go through their link.
    Nowhere,
}

/// The destination of a server name (RFC 6066 section 3); `domain` is lower-case without outer dots.
pub(crate) fn target(server_name: Option<&str>, domain: &str) -> Target {
    let name = server_name.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let Some(inside) = name.strip_suffix(domain).and_then(|front| front.strip_suffix('.')) else {
        return Target::Portal;
    };
    match inside.rsplit_once('.') {
        None if inside == "link" => Target::Enrolment,
        None => Target::Portal,
        Some((label, kind)) => of_cluster(label, kind),
    }
}

fn of_cluster(label: &str, kind: &str) -> Target {
    let to: fn(String) -> Target = match kind {
        "api" => Target::Api,
        "link" => Target::Link,
        "egress" => Target::Egress,
        "node" => return Target::Nowhere,
        _ => return Target::Portal,
    };
    if is_label(label) { to(label.to_owned()) } else { Target::Nowhere }
}

fn is_label(text: &str) -> bool {
    text.len() == LABEL && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "pilothouse.internal";
    const A: &str = "01k9zq0000000000000000000a";

    fn of(name: &str) -> Target {
        target(Some(name), DOMAIN)
    }

    #[test]
    fn cluster_names() {
        assert_eq!(of(&format!("{A}.api.{DOMAIN}")), Target::Api(A.into()));
        assert_eq!(of(&format!("{A}.node.{DOMAIN}")), Target::Nowhere);
        assert_eq!(of(&format!("{A}.link.{DOMAIN}")), Target::Link(A.into()));
        assert_eq!(of(&format!("{A}.egress.{DOMAIN}")), Target::Egress(A.into()));
    }

    #[test]
    fn case_and_trailing_dot_do_not_matter() {
        let shouted = format!("{A}.API.{DOMAIN}.").to_ascii_uppercase();
        assert_eq!(of(&shouted), Target::Api(A.into()));
        assert_eq!(of("LINK.Pilothouse.Internal"), Target::Enrolment);
    }

    #[test]
    fn everything_else_is_the_portal() {
        assert_eq!(target(None, DOMAIN), Target::Portal);
        for name in ["", "example.com", DOMAIN, "portal.pilothouse.internal", "linkpilothouse.internal", "127.0.0.1"] {
            assert_eq!(of(name), Target::Portal, "{name}");
        }
        assert_eq!(of(&format!("{A}.other.{DOMAIN}")), Target::Portal);
        assert_eq!(of(&format!("{A}.api.example.com")), Target::Portal);
        assert_eq!(of(&format!("{A}.api.evil{DOMAIN}")), Target::Portal);
    }

    #[test]
    fn a_name_that_cannot_be_a_cluster_goes_nowhere() {
        for label in
            ["x", "", "01k9zq0000000000000000000", "a.01k9zq0000000000000000000a", "01k9zq-000000000000000000a"]
        {
            assert_eq!(of(&format!("{label}.api.{DOMAIN}")), Target::Nowhere, "{label}");
            assert_eq!(of(&format!("{label}.link.{DOMAIN}")), Target::Nowhere, "{label}");
        }
    }
}
