//! Node labels a person may choose: what kubelet would refuse is refused before the machine joins, because kubelet's answer to one it
//! may not set is to end, for ever.

/// Domains whose labels are the platform's or the cluster's, with everything below them.
const RESERVED: [&str; 3] = ["pilothouse.dev", "kubernetes.io", "k8s.io"];

/// Of those, domains whose labels a kubelet may set (with everything below them), and single labels (KEP-279, "kubelet" labels).
const ALLOWED_DOMAINS: [&str; 2] = ["node.kubernetes.io", "kubelet.kubernetes.io"];
const ALLOWED: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// The longest name or value of a label.
const NAME_MAX: usize = 63;
/// The longest domain of a label.
const DOMAIN_MAX: usize = 253;

/// Parses `key=value`.
///
/// # Errors
/// Why it can be no node's label, for people.
pub fn parse(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label looks like key=value")?;
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    if !is_name(name) {
        return Err(format!("{name:?} is no label's name: up to 63 letters, digits, dashes, dots, underscores"));
    }
    if !value.is_empty() && !is_name(value) {
        return Err(format!("{value:?} is no label's value: up to 63 letters, digits, dashes, dots, underscores"));
    }
    if let Some(domain) = domain {
        check_domain(domain, key)?;
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn check_domain(domain: &str, key: &str) -> Result<(), String> {
    let word = |word: &str| is_name(word) && !word.contains('_') && word.to_lowercase() == word;
    if domain.len() > DOMAIN_MAX || !domain.split('.').all(word) {
        return Err(format!("{domain:?} is no DNS name, as what stands before the slash of a label must be"));
    }
    let is_below = |above: &&str| *domain == **above || domain.ends_with(&format!(".{above}"));
    let allowed = ALLOWED.contains(&key) || ALLOWED_DOMAINS.iter().any(is_below);
    match RESERVED.iter().find(|above| is_below(above)) {
        Some(above) if !allowed => {
            Err(format!("labels of {above} are not a node's own to choose; set it with kubectl once the node is ready"))
        }
        _ => Ok(()),
    }
}

/// Letters and digits at both ends; dashes, dots and underscores between them (Kubernetes' qualified names and label values).
fn is_name(text: &str) -> bool {
    let (first, last) = (text.chars().next(), text.chars().last());
    let inside = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    text.len() <= NAME_MAX
        && [first, last].iter().all(|end| end.is_some_and(|letter| letter.is_ascii_alphanumeric()))
        && text.chars().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_kubelet_takes_pass() {
        for text in [
            "disk=ssd",
            "a=",
            "example.com/rack=r1",
            "topology.kubernetes.io/zone=z1",
            "node.kubernetes.io/instance-type=big",
            "x.node.kubernetes.io/a=b",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
        assert_eq!(parse("a=b").unwrap(), ("a".to_owned(), "b".to_owned()));
    }

    #[test]
    fn labels_that_would_end_kubelet_or_are_ours_are_refused() {
        for text in [
            "disk",
            "=x",
            "a b=c",
            "-a=b",
            "a=b c",
            "a=-",
            "node-role.kubernetes.io/worker=",
            "kubernetes.io/hostname=other",
            "node-restriction.kubernetes.io/a=b",
            "x.k8s.io/a=b",
            "pilothouse.dev/pool=other",
            "Example.com/a=b",
            "/a=b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let long = format!("{}=x", "a".repeat(64));
        assert!(parse(&long).unwrap_err().contains("63"));
        assert!(parse("node-role.kubernetes.io/worker=").unwrap_err().contains("kubectl"));
    }
}
