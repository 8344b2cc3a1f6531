//! Errors of the command line: what, why and what to do next.
//!
//! Every error ends in an exit code a script can rely on: 0 ok, 1 failure, 2 usage, 3 not found, 4 not allowed, 5 conflict,
//! 6 time ran out while waiting, 7 a preflight check failed.

use std::fmt;
use std::process::ExitCode;

use api_types::Problem;

use crate::terminal::one_line;

/// The fixed meaning of the process' exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed that no other code names.
    Failure = 1,
    /// The command was wrong, or the server refused a value in it.
    Usage = 2,
    /// The named thing does not exist, or may not be seen.
    NotFound = 3,
    /// No token, a wrong one, or one without the right to do this.
    Auth = 4,
    /// The name is taken, or something else is under way.
    Conflict = 5,
    /// Waiting took longer than allowed; the work goes on.
    Timeout = 6,
    /// A machine did not pass its checks.
    Preflight = 7,
    /// Ctrl-C while waiting (128 + SIGINT, as shells expect).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// One failure: what happened, whose text says why, and the next step.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command cannot be carried out as it was given.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to type instead.
        next: String,
    },
    /// There is no token to ask with.
    #[error("not signed in to {server}")]
    NoToken {
        /// Base address that would be asked.
        server: String,
    },
    /// The portal could not be reached, or what came back was not HTTP.
    #[error("cannot reach {server}")]
    Unreachable {
        /// Base address that was tried.
        server: String,
        /// What to look at.
        next: String,
        /// Whether the same call would end the same way.
        lasting: bool,
        /// The transport's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The portal said no, by `application/problem+json`.
    #[error("{}", problem_text(.0))]
    Refused(Box<Problem>),
    /// The portal answered with something that is not its API.
    #[error("{server} answered {status}, but is not a Pilothouse portal")]
    UnexpectedServer {
        /// Base address that was asked.
        server: String,
        /// HTTP status of the answer.
        status: u16,
    },
    /// No object carries this name or id.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// The sort of thing: `cluster`, `node pool`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Where to look.
        next: String,
    },
    /// Several objects carry this name.
    #[error("multiple matches for {name}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The ids it could mean.
        ids: Vec<String>,
    },
    /// The operation ended without success.
    #[error("{what}")]
    OperationFailed {
        /// Which operation, and how it ended.
        what: String,
        /// The problem the server recorded.
        problem: Option<Box<Problem>>,
    },
    /// Waiting was given up; the operation goes on.
    #[error("{reason} while waiting; operation {operation} is still running")]
    StoppedWaiting {
        /// Operation id.
        operation: String,
        /// Why waiting ended.
        reason: Stopped,
    },
    /// Ctrl-C before the answer came.
    #[error("interrupted before the portal answered")]
    Interrupted {
        /// How to see what became of it.
        next: String,
    },
    /// What was issued could not be written.
    #[error("cannot write {path}")]
    NotSaved {
        /// The file.
        path: String,
        /// What became of what was issued.
        next: String,
        /// Why.
        source: std::io::Error,
    },
    /// A local file could not be read or written.
    #[error("cannot {verb} {path}")]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Standard output went away or an answer could not be shown.
    #[error("cannot write to standard output")]
    Print {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why waiting ended before the operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The time given with `--wait=…` or `--timeout` ran out.
    Time,
    /// Ctrl-C.
    Interrupt,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stopped::Time => "timed out",
            Stopped::Interrupt => "interrupted",
        })
    }
}

/// Shorthand used throughout the crate.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// A mistake in the command, with the way out of it.
    pub fn usage(what: impl Into<String>, next: impl Into<String>) -> Self {
        CliError::Usage { what: what.into(), next: next.into() }
    }

    /// The exit status that belongs to this failure.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Usage { .. } | CliError::Ambiguous { .. } => Exit::Usage,
            CliError::NotFound { .. } => Exit::NotFound,
            CliError::NoToken { .. } => Exit::Auth,
            CliError::StoppedWaiting { reason: Stopped::Time, .. } => Exit::Timeout,
            CliError::StoppedWaiting { reason: Stopped::Interrupt, .. } | CliError::Interrupted { .. } => {
                Exit::Interrupted
            }
            CliError::Refused(problem) => problem_exit(problem),
            CliError::OperationFailed { problem: Some(problem), .. } if problem.code == "NODE_PREFLIGHT_FAILED" => {
                Exit::Preflight
            }
            _ => Exit::Failure,
        }
    }

    /// True where trying again a moment later may well work: the network, or a server that says so.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            CliError::Unreachable { .. } => true,
            CliError::UnexpectedServer { status, .. } => *status >= 500,
            CliError::Refused(problem) => problem.status >= 500 || problem.status == 429,
            _ => false,
        }
    }

    /// True where the same call, sent again in a moment, is likely to be answered: the portal or its database is being started,
    /// a limit is reached, or the first attempt is still under way.
    pub(crate) fn passes(&self) -> bool {
        let away = |status: u16| matches!(status, 429 | 502..=504);
        match self {
            CliError::Unreachable { lasting, .. } => !lasting,
            CliError::UnexpectedServer { status, .. } => away(*status),
            CliError::Refused(problem) => away(problem.status) || problem.code == "IDEMPOTENCY_IN_PROGRESS",
            _ => false,
        }
    }

    fn why(&self) -> Option<String> {
        match self {
            CliError::Unreachable { source, .. } | CliError::Print { source } => Some(chain(source.as_ref())),
            CliError::File { source, .. } | CliError::NotSaved { source, .. } => Some(source.to_string()),
            CliError::OperationFailed { problem: Some(problem), .. } => Some(problem_text(problem)),
            CliError::Refused(problem) => problem_reason(problem),
            CliError::Ambiguous { ids, .. } => Some(format!("candidates: {}", ids.join(" or "))),
            _ => None,
        }
    }

    fn next(&self) -> Option<String> {
        match self {
            CliError::Usage { next, .. }
            | CliError::Unreachable { next, .. }
            | CliError::NotFound { next, .. }
            | CliError::Interrupted { next }
            | CliError::NotSaved { next, .. } => Some(next.clone()),
            CliError::Refused(problem) => remediation(problem),
            CliError::OperationFailed { problem, .. } => problem.as_deref().and_then(remediation),
            CliError::Ambiguous { .. } => Some("Use one of these IDs instead of the name.".into()),
            CliError::StoppedWaiting { operation, .. } => {
                Some(format!("To keep waiting: pilothouse operation wait {operation}"))
            }
            CliError::NoToken { .. } => Some(
                "Run `pilothouse login`, set PILOTHOUSE_TOKEN, or pass --token-file FILE; on the platform host, run \
                 `eval \"$(pilothouse admin env)\"`."
                    .into(),
            ),
            CliError::UnexpectedServer { .. } => Some("Check the URL in --server or PILOTHOUSE_SERVER.".into()),
            CliError::File { .. } | CliError::Print { .. } => None,
        }
    }

    fn reference(&self) -> Option<String> {
        let problem = match self {
            CliError::Refused(problem) => problem,
            CliError::OperationFailed { problem: Some(problem), .. } => problem,
            _ => return None,
        };
        Some(match problem.request_id.as_str() {
            "" => problem.code.clone(),
            id => format!("{}, request {id}", problem.code),
        })
    }
}

/// Shows an error the way people read it: what, why, next step, reference; one per line.
pub struct Report<'a>(pub &'a CliError);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", one_line(&self.0.to_string()))?;
        for (label, text) in [("why", self.0.why()), ("next", self.0.next()), ("code", self.0.reference())] {
            if let Some(text) = text {
                writeln!(f, "  {label:<5} {}", one_line(&text))?;
            }
        }
        Ok(())
    }
}

/// The codes whose text and remediation speak of the REST API.
const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
const VALIDATION_FAILED: &str = "VALIDATION_FAILED";

fn problem_text(problem: &Problem) -> String {
    match problem.code.as_str() {
        UNAUTHENTICATED => "the portal does not accept the API token".to_owned(),
        // Its detail is that of the first field, and all of them are the reason.
        VALIDATION_FAILED if !problem.errors.is_empty() => problem.title.clone(),
        _ if problem.detail.is_empty() => problem.title.clone(),
        _ => problem.detail.clone(),
    }
}

fn problem_reason(problem: &Problem) -> Option<String> {
    if problem.code == UNAUTHENTICATED {
        return Some("It is wrong, has expired or was revoked.".to_owned());
    }
    let text = problem_text(problem);
    let fields = problem.errors.iter().filter(|field| field.detail != text);
    let reasons: Vec<String> = fields.map(|field| format!("{}: {}", option(&field.pointer), field.detail)).collect();
    Some(reasons.join("; ")).filter(|text| !text.is_empty())
}

/// A field as the command line calls it: `/expires_in_seconds` is `expires-in`. What is inside of a list keeps its JSON pointer.
fn option(pointer: &str) -> String {
    let name = pointer.trim_start_matches(['/', '?']);
    if name.contains('/') { name.to_owned() } else { name.trim_end_matches("_seconds").replace('_', "-") }
}

fn remediation(problem: &Problem) -> Option<String> {
    let text = match problem.code.as_str() {
        UNAUTHENTICATED => {
            "Run `pilothouse login`, or set PILOTHOUSE_TOKEN, which is used before the saved token. On the platform host, \
             `eval \"$(pilothouse admin env)\"` sets a new one."
        }
        VALIDATION_FAILED => "Correct the values; --help after the same command describes them.",
        _ => &problem.remediation,
    };
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn problem_exit(problem: &Problem) -> Exit {
    match problem.status {
        400 | 405 | 406 | 413 | 415 | 422 => Exit::Usage,
        401 | 403 => Exit::Auth,
        404 => Exit::NotFound,
        409 | 412 | 423 => Exit::Conflict,
        _ => Exit::Failure,
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn report(problem: &Value) -> String {
        let common = json!({"type": "t", "title": "Validation failed", "status": 422, "class": "user", "retryable": false,
            "remediation": "Correct the fields listed in `errors`.", "request_id": "req_7"});
        let mut all = common.as_object().unwrap().clone();
        all.extend(problem.as_object().unwrap().clone());
        let problem = serde_json::from_value(Value::Object(all)).unwrap();
        Report(&CliError::Refused(Box::new(problem))).to_string()
    }

    #[test]
    fn fields_are_named_once_and_as_options() {
        let field = |pointer, detail| json!({"pointer": pointer, "code": "X", "detail": detail});
        let errors = [field("/pod_cidr", "8.8.0.0/16 is public"), field("/expires_in_seconds", "5 is too short")];
        let text = report(&json!({"code": "VALIDATION_FAILED", "detail": "8.8.0.0/16 is public", "errors": errors}));
        let reason = "error: Validation failed\n  why   pod-cidr: 8.8.0.0/16 is public; expires-in: 5 is too short\n";
        assert!(text.starts_with(reason) && text.contains("--help") && !text.contains("`errors`"), "{text}");

        let taken = [field("/name", "A cluster called demo exists.")];
        let text = report(&json!({"code": "NAME_TAKEN", "detail": "A cluster called demo exists.", "errors": taken}));
        assert_eq!(text.matches("called demo").count(), 1, "{text}");
    }

    #[test]
    fn a_token_that_is_refused_gets_the_command_lines_advice() {
        let rest = json!({"code": "UNAUTHENTICATED", "detail": "Authentication is required.", "status": 401,
            "remediation": "Send `Authorization: Bearer`"});
        let text = report(&rest);
        for part in ["API token", "has expired", "pilothouse login", "PILOTHOUSE_TOKEN", "admin env"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("Bearer"), "{text}");
    }
}
