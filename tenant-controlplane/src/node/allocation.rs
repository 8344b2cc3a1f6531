//! What a new node of a cluster gets: a range of pod addresses, and a name that no other has.

use std::collections::HashSet;

use ipnet::Ipv4Net;

use crate::name::NodeName;

/// A node's pods get this many bits of network.
const NODE_PREFIX: u8 = 24;
/// Letters of the ending that makes a name unique.
pub const NAME_ENDING: usize = 5;

/// The lowest range of the cluster's pods that no node has; `taken` as text.
pub fn lowest_free_range(pod_cidr: Ipv4Net, taken: &HashSet<&str>) -> Option<String> {
    let mut ranges = pod_cidr.subnets(NODE_PREFIX).ok()?.map(|range| range.to_string());
    ranges.find(|range| !taken.contains(range.as_str()))
}

/// The requested name, else the host name, else `node`, as a label.
pub fn requested_name(requested: &str, hostname: &str) -> String {
    let names = [requested, hostname, "node"];
    let mut labels = names.iter().filter_map(|name| NodeName::from_hostname(name).ok());
    labels.next().map(|name| name.to_string()).unwrap_or_default()
}

/// A name that nobody has. A requested name that ends in `-` always gets an ending of its own, any other only when the name is taken;
/// `ending` makes one at random, of [`NAME_ENDING`] letters.
///
/// # Errors
/// What `ending` ends in.
pub fn free_name<E>(
    requested: &str,
    taken: &HashSet<&str>,
    mut ending: impl FnMut() -> Result<String, E>,
) -> Result<String, E> {
    if !requested.ends_with('-') && !taken.contains(requested) {
        return Ok(requested.to_owned());
    }
    let room = NodeName::MAX - NAME_ENDING - 1;
    let stem: String = requested.chars().take(room).collect();
    loop {
        let name = format!("{}-{}", stem.trim_end_matches('-'), ending()?);
        if !taken.contains(name.as_str()) {
            return Ok(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn free(requested: &str, taken: &[&str]) -> String {
        let mut endings = ["aaaaa", "bbbbb"].into_iter().cycle();
        let ending = || Ok::<_, Infallible>(endings.next().unwrap_or_default().to_owned());
        free_name(requested, &taken.iter().copied().collect(), ending).unwrap()
    }

    #[test]
    fn the_lowest_free_range_is_taken() {
        let range: Ipv4Net = "10.244.0.0/22".parse().unwrap();
        let free = |taken: &[&str]| lowest_free_range(range, &taken.iter().copied().collect());
        assert_eq!(free(&[]).unwrap(), "10.244.0.0/24");
        assert_eq!(free(&["10.244.0.0/24", "10.244.2.0/24"]).unwrap(), "10.244.1.0/24");
        assert_eq!(free(&["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]), None);
    }

    #[test]
    fn names_stay_labels_and_differ() {
        assert_eq!(free("db", &["web"]), "db");
        assert_eq!(free("web", &["web"]), "web-aaaaa");
        assert_eq!(free("web", &["web", "web-aaaaa"]), "web-bbbbb");
        let long = "a".repeat(63);
        assert!(NodeName::parse(&free(&long, &[&long])).is_ok());
        assert_eq!(free("pool-", &[]), "pool-aaaaa");
    }

    #[test]
    fn a_machine_that_asks_for_no_name_gets_its_host_names() {
        assert_eq!(requested_name("web-1", "host.example"), "web-1");
        assert_eq!(requested_name("", "db-7.example"), NodeName::from_hostname("db-7.example").unwrap().to_string());
        assert_eq!(requested_name("", ""), "node");
    }
}
