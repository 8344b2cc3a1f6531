//! Small things all pages share: icons, states as icon + word + color, times.

use std::fmt;

use askama::Template;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::assets;

/// An icon of `icons.svg`, hidden from screen readers: a word always stands beside it.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<svg class="i{% if spin %} spin{% endif %}" aria-hidden="true"><use href="{{ file }}#i-{{ name }}"/></svg>"#
)]
pub struct Icon {
    name: &'static str,
    spin: bool,
    file: String,
}

/// An icon by name.
pub fn icon(name: &'static str) -> Icon {
    Icon { name, spin: name == "work", file: assets::url("icons.svg") }
}

/// A state as people see it: color group, icon and word.
#[derive(Template, Clone, Debug, PartialEq, Eq)]
#[template(
    ext = "html",
    source = r#"<span class="status" data-state="{{ group }}">{{ crate::web::ui::icon(icon)|safe }}{{ word }}</span>"#
)]
pub struct Status {
    /// `ready`, `working`, `attention`, `failed`, `unknown` or `deleting`.
    pub group: &'static str,
    icon: &'static str,
    /// What stands beside the icon.
    pub word: String,
}

impl Status {
    pub fn new(group: &'static str, word: &str) -> Self {
        let icon = match group {
            "ready" => "ok",
            "working" => "work",
            "attention" => "warn",
            "failed" => "bad",
            "deleting" => "gone",
            _ => "unknown",
        };
        Status { group, icon, word: word.to_owned() }
    }

    /// The state of a cluster.
    pub fn cluster(state: &str) -> Self {
        match state {
            "pending" => Self::new("working", "Pending"),
            "provisioning" => Self::new("working", "Creating"),
            "running" => Self::new("ready", "Ready"),
            other => Self::shared(other),
        }
    }

    /// The state of a node pool.
    pub fn pool(state: &str) -> Self {
        match state {
            "pending" => Self::new("working", "Pending"),
            "scaling" => Self::new("working", "Scaling"),
            "ready" => Self::new("ready", "Ready"),
            other => Self::shared(other),
        }
    }

    /// The state of a node.
    pub fn node(state: &str) -> Self {
        match state {
            "pending" => Self::new("working", "Pending"),
            "creating" => Self::new("working", "Creating"),
            "joining" => Self::new("working", "Joining"),
            "ready" => Self::new("ready", "Ready"),
            "not_ready" => Self::new("attention", "Not ready"),
            "lost" => Self::new("failed", "Lost"),
            other => Self::shared(other),
        }
    }

    /// The state of a kubeconfig; a working one tells when it ends.
    pub fn kubeconfig(state: &str, ends: OffsetDateTime) -> Self {
        match state {
            "pending" => Self::new("attention", "Not accepted yet"),
            "active" | "expired" => Self::credential(Some(ends), false),
            "revoking" => Self::new("attention", "Revoking"),
            "revoked" => Self::credential(Some(ends), true),
            other => Self::shared(other),
        }
    }

    /// A credential that works, works for a few days more, or no longer works.
    pub fn credential(ends: Option<OffsetDateTime>, revoked: bool) -> Self {
        let left = ends.map(|ends| ends - OffsetDateTime::now_utc());
        match left {
            _ if revoked => Self::new("deleting", "Revoked"),
            Some(left) if !left.is_positive() => Self::new("deleting", "Expired"),
            Some(left) if left < time::Duration::DAY * 7 => {
                Self::new("attention", &format!("Expires in {}", span(left)))
            }
            _ => Self::new("ready", "Active"),
        }
    }

    /// How full a quota is.
    pub fn quota(used: u64, limit: u64) -> Self {
        match used {
            used if used >= limit => Self::new("failed", "Limit reached"),
            used if used.saturating_mul(10) >= limit.saturating_mul(9) => Self::new("attention", "Near limit"),
            _ => Self::new("ready", "Within limit"),
        }
    }

    fn shared(state: &str) -> Self {
        match state {
            "degraded" => Self::new("attention", "Needs attention"),
            "deleting" => Self::new("deleting", "Deleting"),
            "error" => Self::new("failed", "Failed"),
            // A state of tomorrow: its own word, and no color we do not know to be right.
            other => Self::new("unknown", &other.replace('_', " ")),
        }
    }

    /// The same as a pill, for headings.
    pub fn pill(&self) -> String {
        self.to_string().replacen("class=\"status\"", "class=\"status status-pill\"", 1)
    }

    /// Lower comes first: those that need a person, then those at work, then the rest.
    pub fn rank(&self) -> u8 {
        match self.group {
            "failed" => 0,
            "attention" => 1,
            "unknown" => 2,
            "working" => 3,
            "deleting" => 4,
            _ => 5,
        }
    }
}

/// A moment as `<time>`, told as the time since or until then.
pub struct Moment(OffsetDateTime);

/// How long ago something was.
pub fn ago(at: OffsetDateTime) -> Moment {
    Moment(at)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = self.0.format(&Rfc3339).unwrap_or_default();
        write!(f, "<time datetime=\"{stamp}\">{}</time>", span((OffsetDateTime::now_utc() - self.0).abs()))
    }
}

/// A length of time as one number with its unit.
pub fn span(length: time::Duration) -> String {
    let seconds = length.whole_seconds().max(0);
    let (amount, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        172_800..5_184_000 => (seconds / 86_400, "days"),
        _ => (seconds / 2_592_000, "months"),
    };
    format!("{amount} {unit}")
}

/// A day as people write it: `18 Feb 2027`.
pub fn day(at: OffsetDateTime) -> String {
    let month = at.month().to_string();
    format!("{} {} {}", at.day(), month.get(..3).unwrap_or_default(), at.year())
}

/// Milliseconds as a step shows them: `0.3 s`, `75 s`, `12 min`.
pub fn took(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        10_000..120_000 => format!("{} s", milliseconds / 1000),
        _ => format!("{} min", milliseconds / 60_000),
    }
}

/// `ControlPlaneAvailable` as `Control plane available`.
pub fn words(camel: &str) -> String {
    let mut text = String::new();
    for letter in camel.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
            text.extend(letter.to_lowercase());
        } else {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_tomorrow_are_shown_as_unknown_and_escaped() {
        let status = Status::cluster("<hibernating_deeply>");
        assert_eq!(status.group, "unknown");
        assert!(status.to_string().contains("&#60;hibernating deeply&#62;"), "{status}");
    }

    #[test]
    fn times_are_one_number_and_a_unit() {
        assert_eq!(span(time::Duration::seconds(75)), "75 s");
        assert_eq!(span(time::Duration::hours(3)), "3 h");
        assert_eq!(span(time::Duration::days(400)), "13 months");
        assert_eq!(took(4_650), "4.6 s");
        assert_eq!(words("ControlPlaneAvailable"), "Control plane available");
    }
}
