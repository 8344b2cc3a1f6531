//! Reads this machine's apt sources (sources.list(5): the one-line style and deb822), so that the node image comes
//! from the same mirror as the machine's own packages.

use std::fs;
use std::path::Path;

/// One-line entries of this machine that offer the suite, its updates or its security fixes. Empty if there are none;
/// `mmdebstrap` then takes Debian's own.
pub(super) fn of_machine(suite: &str) -> Vec<String> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => lines.extend(deb822(&text, suite)),
            Some("list") => lines.extend(one_line(&text, suite)),
            _ => {}
        }
    }
    // Only with the suite itself; its updates alone make no system.
    if lines.iter().any(|line| line.split(' ').any(|word| word == suite)) { lines } else { Vec::new() }
}

fn offers(name: &str, suite: &str) -> bool {
    matches!(name.strip_prefix(suite), Some("" | "-updates" | "-security"))
}

fn one_line(text: &str, suite: &str) -> Vec<String> {
    let entries = text.lines().map(str::trim).filter(|line| line.starts_with("deb "));
    let wanted = entries.filter(|line| {
        let after = line.split_once(']').map_or_else(|| line.trim_start_matches("deb "), |(_, rest)| rest);
        after.split_whitespace().nth(1).is_some_and(|name| offers(name, suite))
    });
    wanted.map(str::to_owned).collect()
}

fn deb822(text: &str, suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let clean: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in clean.split(|line| line.trim().is_empty()) {
        let field = |name: &str| field(stanza, name);
        if field("Enabled").is_some_and(|value| value == "no") || !field("Types").unwrap_or_default().contains("deb") {
            continue;
        }
        // A key written into the file itself cannot be said in one line; apt's trusted keys then decide.
        let key = field("Signed-By").filter(|value| value.starts_with('/'));
        let options = key.map_or_else(String::new, |key| format!("[signed-by={key}] "));
        let components = field("Components").unwrap_or_default();
        for uri in field("URIs").unwrap_or_default().split_whitespace() {
            let suites = field("Suites").unwrap_or_default();
            let wanted = suites.split_whitespace().filter(|name| offers(name, suite));
            lines.extend(wanted.map(|name| format!("deb {options}{uri} {name} {components}")));
        }
    }
    lines
}

/// The value of a field, continued lines joined by spaces.
fn field(stanza: &[&str], name: &str) -> Option<String> {
    let is = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
    let at = stanza.iter().position(is)?;
    let first = stanza[at].split_once(':').map(|(_, value)| value.trim()).unwrap_or_default();
    let more = stanza[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t'])).map(|line| line.trim());
    Some(std::iter::once(first).chain(more).collect::<Vec<_>>().join(" ").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: http://other.example\nSuites: nodistro\nComponents: main\n\n\
        Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n";

    #[test]
    fn deb822_stanzas_become_lines() {
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        let expected = [
            format!("deb {key} http://mirror.example/debian bookworm main"),
            format!("deb {key} http://mirror.example/debian bookworm-updates main"),
        ];
        assert_eq!(deb822(MODERN, "bookworm"), expected);
    }

    #[test]
    fn lines_of_other_suites_and_vendors_are_left_out() {
        let text = "deb http://a.example/debian bookworm main\ndeb-src http://a.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k] http://b.example/sec bookworm-security main\n# deb http://c.example bookworm main\n\
            deb https://d.example/apt cloud-bookworm main\n";
        let lines = one_line(text, "bookworm");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("deb [arch=amd64"));
    }
}
