//! One suite for every provider: run it against the real thing with a few requests, and it names the first rule that is broken.
//!
//! The machines it makes are destroyed again, also when a rule was broken.

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::{Machine, MachineRequest, MachineState, Provider, ProviderError, Removal};

/// What the suite is run on.
pub struct Subject<'a> {
    /// The provider.
    pub provider: &'a dyn Provider,
    /// Makes a request for an id that is a DNS label; the suite uses a few different ones.
    pub request: &'a (dyn Fn(&str) -> MachineRequest + Send + Sync),
    /// How long a machine may take to run, stop or go.
    pub patience: Duration,
}

/// The rule that was broken.
#[derive(Debug, Error)]
pub enum Violation {
    /// A call failed that must not.
    #[error("{rule}: the call failed")]
    Call {
        /// The rule.
        rule: &'static str,
        /// The provider's error.
        source: ProviderError,
    },
    /// The call succeeded and what it left is wrong.
    #[error("{rule}: {observed}")]
    Rule {
        /// The rule.
        rule: &'static str,
        /// What was seen instead.
        observed: String,
    },
}

type Verdict = Result<(), Violation>;

const FIRST: &str = "contract-one";
const SECOND: &str = "contract-two";

/// Runs every rule in order.
///
/// # Errors
/// The first [`Violation`].
pub async fn run(subject: &Subject<'_>) -> Verdict {
    let verdict = rules(subject).await;
    for id in [FIRST, SECOND] {
        // After a broken rule the machines may be there still; that they go is checked by the rules themselves.
        let _ = gone(subject, id).await;
    }
    verdict
}

async fn rules(subject: &Subject<'_>) -> Verdict {
    unknown_ids(subject).await?;
    ensure_twice_is_one_machine(subject).await?;
    stop_and_start_keep_it(subject).await?;
    two_are_two(subject).await?;
    removal_is_final_and_repeatable(subject).await
}

fn broken(rule: &'static str, observed: impl std::fmt::Debug) -> Violation {
    Violation::Rule { rule, observed: format!("{observed:?}") }
}

trait Under<T> {
    fn under(self, rule: &'static str) -> Result<T, Violation>;
}

impl<T> Under<T> for Result<T, ProviderError> {
    fn under(self, rule: &'static str) -> Result<T, Violation> {
        self.map_err(|source| Violation::Call { rule, source })
    }
}

async fn unknown_ids(subject: &Subject<'_>) -> Verdict {
    let found = subject.provider.get("contract-unknown").await.under("get of an unknown id answers none")?;
    if found.is_some() {
        return Err(broken("get of an unknown id answers none", found));
    }
    let removal = subject.provider.remove("contract-unknown").await.under("remove of an unknown id is gone")?;
    if removal == Removal::Gone { Ok(()) } else { Err(broken("remove of an unknown id is gone", removal)) }
}

async fn count(subject: &Subject<'_>, id: &str) -> Result<usize, Violation> {
    let machines = subject.provider.list().await.under("list works")?;
    Ok(machines.iter().filter(|machine| machine.id == id).count())
}

async fn ensure_twice_is_one_machine(subject: &Subject<'_>) -> Verdict {
    const RULE: &str = "ensure twice is one machine";
    let request = (subject.request)(FIRST);
    let (one, two) =
        (subject.provider.ensure(&request).await.under(RULE)?, subject.provider.ensure(&request).await.under(RULE)?);
    if one.id != request.id || two.id != request.id || one.name != request.name {
        return Err(broken(RULE, (one, two)));
    }
    wait_for(subject, FIRST, |machine| machine.state == MachineState::Running).await?;
    match count(subject, FIRST).await? {
        1 => Ok(()),
        other => Err(broken(RULE, other)),
    }
}

async fn stop_and_start_keep_it(subject: &Subject<'_>) -> Verdict {
    const RULE: &str = "stop keeps the machine, start brings it back, both may be repeated";
    for _ in 0..2 {
        subject.provider.stop(FIRST).await.under(RULE)?;
    }
    wait_for(subject, FIRST, |machine| machine.state == MachineState::Stopped).await?;
    for _ in 0..2 {
        subject.provider.start(FIRST).await.under(RULE)?;
    }
    wait_for(subject, FIRST, |machine| machine.state == MachineState::Running).await
}

async fn two_are_two(subject: &Subject<'_>) -> Verdict {
    const RULE: &str = "two ids are two machines";
    subject.provider.ensure(&(subject.request)(SECOND)).await.under(RULE)?;
    wait_for(subject, SECOND, |machine| machine.state == MachineState::Running).await?;
    match (count(subject, FIRST).await?, count(subject, SECOND).await?) {
        (1, 1) => Ok(()),
        other => Err(broken(RULE, other)),
    }
}

async fn removal_is_final_and_repeatable(subject: &Subject<'_>) -> Verdict {
    const RULE: &str = "a removed machine is gone and nothing else is";
    gone(subject, FIRST).await?;
    let left = subject.provider.get(FIRST).await.under(RULE)?;
    if left.is_some() || count(subject, FIRST).await? != 0 || count(subject, SECOND).await? != 1 {
        return Err(broken(RULE, left));
    }
    gone(subject, FIRST).await?;
    gone(subject, SECOND).await
}

async fn gone(subject: &Subject<'_>, id: &str) -> Verdict {
    const RULE: &str = "remove ends in gone";
    let begun = Instant::now();
    while subject.provider.remove(id).await.under(RULE)? != Removal::Gone {
        if begun.elapsed() > subject.patience {
            return Err(broken(RULE, subject.patience));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn wait_for(subject: &Subject<'_>, id: &str, holds: impl Fn(&Machine) -> bool) -> Verdict {
    const RULE: &str = "a machine reaches the wanted state in time";
    let begun = Instant::now();
    loop {
        let machine = subject.provider.get(id).await.under(RULE)?;
        match machine {
            Some(machine) if holds(&machine) => return Ok(()),
            other if begun.elapsed() > subject.patience => return Err(broken(RULE, other)),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
