//! The catalog of problems a resource can have: each code with its title, who must act, and the next step.
//!
//! A problem is made of a [`ProblemCode`]; there is no other way, so no problem is without its entry. Rows of other releases may hold
//! codes that are not ours: they are read and written as they are.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Class;

/// What a code means wherever it appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemEntry {
    /// Stable, UPPER_SNAKE.
    pub code: &'static str,
    /// Short text for people.
    pub title: &'static str,
    /// Who must act, unless more is known of the occurrence.
    pub class: Class,
    /// The next step, unless more is known of the occurrence.
    pub remediation: &'static str,
}

macro_rules! catalog {
    ($($variant:ident $code:literal $class:ident $title:literal, $remediation:literal;)+) => {
        /// The code of a problem. Once stored or served it keeps its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemCode {
            $(#[doc = $title] $variant,)+
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What it means.
            pub const fn entry(self) -> ProblemEntry {
                match self {
                    $(Self::$variant => ProblemEntry {
                        code: $code,
                        title: $title,
                        class: Class::$class,
                        remediation: $remediation,
                    },)+
                }
            }
        }
    };
}

catalog! {
    HostRefused "HOST_REFUSED" Platform "Host cluster rejected a request",
        "Retrying automatically. If it persists, check the host's API server.";
    HostUnreachable "HOST_UNREACHABLE" Platform "Host cluster unreachable",
        "Retrying automatically. If it persists, check the host's API server.";
    HostTooLong "HOST_TOO_LONG" Platform "Host cluster's response too large",
        "Retrying automatically. If it persists, check the host's API server.";
    HostDefect "HOST_DEFECT" Platform "Request to the host cluster failed",
        "Retrying automatically. If it persists, check the host's API server.";
    ClusterRefused "CLUSTER_REFUSED" User "Cluster rejected a request",
        "The cluster rejects the request. Cluster admin: check its admission webhooks and policies: kubectl get \
         validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies. Retrying automatically.";
    ClusterUnreachable "CLUSTER_UNREACHABLE" Platform "Cluster unreachable",
        "No action needed; Pilothouse is recovering it. If it persists, platform operator: check the host's pods.";
    ClusterTooLong "CLUSTER_TOO_LONG" User "Cluster's response too large",
        "Cluster admin: check for aggregated API servers: kubectl get apiservices. Retrying automatically.";
    ClusterDefect "CLUSTER_DEFECT" Platform "Request to the cluster failed",
        "Retrying automatically. If it persists, check the cluster's API server.";
    ControlPlanePods "CONTROL_PLANE_PODS" Platform "Control plane pods not running",
        "Retrying automatically. Platform operator: check the host's pods.";
    DatastoreFull "DATASTORE_FULL" User "etcd is full",
        "Delete unused objects. Platform operator: then restart the pod etcd-0, which defragments etcd, and clear the alarm with \
         `etcdctl alarm disarm`.";
    VersionMissing "VERSION_MISSING" Platform "Kubernetes version not available",
        "Platform operator: build the version with `pilothouse bundle build`, then run `pilothouse up` again.";
    Certificates "CERTIFICATES" Platform "Certificate issuance failed",
        "This is a bug: report it with the platform's log.";
    DeletionWaits "DELETION_WAITS" Platform "Cluster deletion is taking long",
        "Check its nodes, or the pods of its namespace on the host cluster. To stop waiting: pilothouse cluster delete CLUSTER --force.";
    NodeAgent "NODE_AGENT" User "Node agent reports a failure",
        "Run `pilothouse-node status` on the machine: it names each failed check with its remedy.";
    Machine "MACHINE" Provider "Machine could not be managed",
        "Retrying automatically. If it persists, check the provider of the pool's machines.";
    MachineFailed "MACHINE_FAILED" Provider "Machine failed",
        "Delete the node; its pool then creates a new one.";
    MachineLost "MACHINE_LOST" Provider "Machine lost",
        "Delete the node; its pool then creates a new one.";
    ProviderMissing "PROVIDER_MISSING" Platform "Machine provider not configured",
        "Delete the pool, or ask the platform operator to enable the provider.";
    RemovalWaits "REMOVAL_WAITS" User "Node removal is taking long",
        "Check the machine and the Node object. To stop waiting: pilothouse node remove NODE --cluster CLUSTER --force.";
    DatabaseUnavailable "DATABASE_UNAVAILABLE" Platform "Database unavailable",
        "Retrying automatically. If it persists, platform operator: check the database.";
    Defect "DEFECT" Platform "Internal error in the provisioner",
        "This is a bug: report it with the platform's log.";
}

impl ProblemCode {
    /// The code as databases and APIs write it.
    pub const fn as_str(self) -> &'static str {
        self.entry().code
    }

    /// The code written so; `None` for one that this release does not have.
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == code)
    }
}

/// The code of a stored problem: one of this release's, or another release's as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCode(Written);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Known(ProblemCode),
    Unknown(String),
}

impl StoredCode {
    /// The code as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Written::Known(code) => code.as_str(),
            Written::Unknown(code) => code,
        }
    }

    /// What it means; `None` for another release's.
    pub const fn entry(&self) -> Option<ProblemEntry> {
        match &self.0 {
            Written::Known(code) => Some(code.entry()),
            Written::Unknown(_) => None,
        }
    }

    /// A title for people: the catalog's, or for another release's code its own words, `HOST_UNREACHABLE` as "Host unreachable".
    pub fn title(&self) -> String {
        if let Some(entry) = self.entry() {
            return entry.title.to_owned();
        }
        let words = self.as_str().to_lowercase().replace('_', " ");
        let mut letters = words.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }
}

impl From<ProblemCode> for StoredCode {
    fn from(code: ProblemCode) -> Self {
        Self(Written::Known(code))
    }
}

impl PartialEq<ProblemCode> for StoredCode {
    fn eq(&self, other: &ProblemCode) -> bool {
        self.0 == Written::Known(*other)
    }
}

impl fmt::Display for StoredCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for StoredCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for StoredCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Ok(Self(ProblemCode::find(&code).map_or(Written::Unknown(code), Written::Known)))
    }
}

/// What is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word for programs, such as `HOST_UNREACHABLE`.
    pub code: StoredCode,
    /// Whose doing it is.
    pub class: Class,
    /// What happened, for people; never a secret.
    pub detail: String,
    /// The next step.
    pub remediation: String,
}

impl Problem {
    /// A problem with the catalog's class and next step.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let ProblemEntry { class, remediation, .. } = code.entry();
        Self { code: code.into(), class, detail: detail.into(), remediation: remediation.to_owned() }
    }

    /// The same, where another than usually must act.
    #[must_use]
    pub const fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The same, where more is known of what helps.
    #[must_use]
    pub fn with_remediation(mut self, remediation: impl Into<String>) -> Self {
        self.remediation = remediation.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_written_once_and_has_text() {
        let codes: HashSet<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), ProblemCode::ALL.len());
        for code in ProblemCode::ALL {
            let entry = code.entry();
            assert!(entry.code.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_'), "{}", entry.code);
            assert!(!entry.title.is_empty() && !entry.title.ends_with('.'), "{}: {}", entry.code, entry.title);
            assert!(entry.remediation.ends_with('.'), "{}: {}", entry.code, entry.remediation);
            assert_eq!(ProblemCode::find(entry.code), Some(*code));
        }
    }

    #[test]
    fn a_problem_is_stored_as_it_was_and_read_again() {
        let problem = Problem::new(ProblemCode::MachineLost, "gone").with_class(Class::Platform);
        let text = serde_json::to_string(&problem).unwrap();
        let stored = r#"{"code":"MACHINE_LOST","class":"platform","detail":"gone","remediation":"Delete the node; its pool then creates a new one."}"#;
        assert_eq!(text, stored);
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }

    #[test]
    fn a_code_of_another_release_is_kept_and_shown_in_its_own_words() {
        let stored = r#"{"code":"HOST_ON_FIRE","class":"platform","detail":"hot","remediation":"Water."}"#;
        let problem: Problem = serde_json::from_str(stored).unwrap();
        assert_eq!((problem.code.as_str(), problem.code.title().as_str()), ("HOST_ON_FIRE", "Host on fire"));
        assert_eq!((problem.code.entry(), serde_json::to_string(&problem).unwrap().as_str()), (None, stored));
        assert!(problem.code != ProblemCode::HostRefused);
    }
}
