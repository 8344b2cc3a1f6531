//! One question about a machine and its answer: the same shape in `doctor`, `up` and the agent's preflight.

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Works, but somebody should know.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    /// `pass`, `warn` or `fail`: the words of the JSON output and of the agent's reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, for scripts.
    pub id: &'static str,
    /// How it ended.
    pub status: Verdict,
    /// What was seen.
    pub observed: String,
    /// What to do; empty where nothing is to be done.
    pub remediation: String,
}

impl Check {
    /// A good answer.
    pub fn pass(id: &'static str, observed: impl Into<String>) -> Self {
        Self { id, status: Verdict::Pass, observed: observed.into(), remediation: String::new() }
    }

    /// An answer to know about.
    pub fn warn(id: &'static str, observed: impl Into<String>, remediation: impl Into<String>) -> Self {
        Self { id, status: Verdict::Warn, observed: observed.into(), remediation: remediation.into() }
    }

    /// A bad answer.
    pub fn fail(id: &'static str, observed: impl Into<String>, remediation: impl Into<String>) -> Self {
        Self { id, status: Verdict::Fail, observed: observed.into(), remediation: remediation.into() }
    }
}
