//! The named steps of an operation, as people watch them: written only when something changed, and an error stays readable through retries.

use std::collections::HashMap;
use std::time::Duration;

use migrations::{StepState, StepUpdate, Store, StoreError};
use tenant_controlplane::id::OperationId;
use tenant_controlplane::plan::StepInfo;
use tenant_controlplane::status::Problem;
use tenant_controlplane::text::printable;
use time::OffsetDateTime;

/// The steps of one open operation; without one, all calls do nothing.
pub struct Steps<'a> {
    store: &'a Store,
    operation: Option<OperationId>,
    titles: &'static [StepInfo],
    written: HashMap<String, (StepState, String)>,
    /// When each was first begun.
    begun: HashMap<String, OffsetDateTime>,
}

impl<'a> Steps<'a> {
    /// Opens the operation `kind` on `target`, if one is open, and lays out its steps.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        store: &'a Store,
        target: &str,
        kinds: &[&str],
        titles: &'static [StepInfo],
    ) -> Result<Self, StoreError> {
        let open = store.operations().current_for(target).await?.filter(|open| kinds.contains(&open.kind.as_str()));
        let Some(open) = open else {
            return Ok(Self { store, operation: None, titles, written: HashMap::new(), begun: HashMap::new() });
        };
        if open.steps.len() < titles.len() {
            let titles: Vec<_> = titles.iter().map(|step| (step.key, step.title)).collect();
            store.operations().plan(open.id, &titles).await?;
        }
        let begun = open.steps.iter().filter_map(|step| Some((step.key.clone(), step.started_at?))).collect();
        let written = open.steps.into_iter().map(|step| (step.key, (step.state, step.message))).collect();
        Ok(Self { store, operation: Some(open.id), titles, written, begun })
    }

    /// Whether there is an open operation.
    pub const fn is_open(&self) -> bool {
        self.operation.is_some()
    }

    /// The step is being worked on; what went wrong before stays readable unless there is something newer to say. A step that was done
    /// stays done: an operation only goes forward.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn running(&mut self, key: &str, message: &str) -> Result<(), StoreError> {
        let message = match self.written.get(key) {
            Some((StepState::Done, _)) => return Ok(()),
            Some((StepState::Failed | StepState::Running, old)) if message.is_empty() => old.clone(),
            _ => message.to_owned(),
        };
        self.write(key, StepState::Running, message).await
    }

    /// The step is being worked on, and this is all there is to say of it now: the look was good, so what went wrong before is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stands(&mut self, key: &str, message: &str) -> Result<(), StoreError> {
        match self.written.get(key) {
            Some((StepState::Done, _)) => Ok(()),
            _ => self.write(key, StepState::Running, message.to_owned()).await,
        }
    }

    /// How long ago the step was begun; none for one that was not, or that nobody watches.
    pub fn age(&self, key: &str) -> Option<Duration> {
        let age = OffsetDateTime::now_utc() - *self.begun.get(key)?;
        Some(age.try_into().unwrap_or_default())
    }

    /// The step is done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn done(&mut self, key: &str) -> Result<(), StoreError> {
        self.write(key, StepState::Done, String::new()).await
    }

    /// The first step that is not done failed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn failed(&mut self, message: &str) -> Result<(), StoreError> {
        let open = |key: &str| !matches!(self.written.get(key), Some((StepState::Done, _)));
        match self.titles.iter().find(|step| open(step.key)) {
            Some(step) => self.write(step.key, StepState::Failed, message.to_owned()).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, key: &str, state: StepState, message: String) -> Result<(), StoreError> {
        let Some(operation) = self.operation else { return Ok(()) };
        let new = (state, printable(&message));
        if self.written.get(key) == Some(&new) {
            return Ok(());
        }
        let title = self.titles.iter().find(|step| step.key == key).map_or(key, |step| step.title);
        let update = StepUpdate { key, title, state, message: &new.1 };
        self.store.operations().step(operation, update).await?;
        self.written.insert(key.to_owned(), new);
        self.begun.entry(key.to_owned()).or_insert_with(OffsetDateTime::now_utc);
        Ok(())
    }

    /// Everything is done: closes the operation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish(&mut self) -> Result<(), StoreError> {
        for step in self.titles {
            self.done(step.key).await?;
        }
        self.close(migrations::Outcome::Succeeded).await
    }

    /// It cannot be done: closes the operation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_up(&mut self, problem: &Problem) -> Result<(), StoreError> {
        self.failed(&problem.detail).await?;
        self.close(migrations::Outcome::Failed(problem.clone())).await
    }

    async fn close(&mut self, outcome: migrations::Outcome) -> Result<(), StoreError> {
        match self.operation.take() {
            Some(operation) => self.store.operations().finish(operation, outcome).await,
            None => Ok(()),
        }
    }
}
