//! Operations: what takes a while, in named steps that people can watch.

use std::time::Duration;

use sea_orm::sea_query::IntoCondition;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{OperationId, OrganizationId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use uuid::Uuid;

use super::Store;
use super::intent::Intent;
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::operation;
use crate::error::StoreError;
use crate::rows::operation::{Operation, OperationState, Outcome, Step, StepState, StepUpdate};
use crate::rows::{self, Page};

/// Changes may be missed: a waiter polls this often in any case.
const LOOK: Duration = Duration::from_secs(3);

/// Operations; see [`Store::operations`].
#[derive(Clone, Copy)]
pub struct Operations<'a>(pub(super) &'a Store);

impl Operations<'_> {
    /// One operation of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn get(self, organization: OrganizationId, id: OperationId) -> Result<Operation, StoreError> {
        let query = operation::Entity::find_by_id(id.uuid());
        let query = query.filter(operation::Column::Organization.eq(organization.uuid()));
        rows::one("operation", query.one(self.0.db()).await?)
    }

    /// What was done to a row of an organization, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(
        self,
        organization: OrganizationId,
        target: &str,
        page: Page,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut query = operation::Entity::find().filter(operation::Column::Target.eq(target));
        query = query.filter(operation::Column::Organization.eq(organization.uuid()));
        if let Some(after) = page.after {
            query = query.filter(operation::Column::Id.lt(after));
        }
        rows::all(query.order_by_desc(operation::Column::Id).limit(page.limit).all(self.0.db()).await?)
    }

    /// The operation as it is when it has finished or the time is up.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn wait(
        self,
        organization: OrganizationId,
        id: OperationId,
        limit: Duration,
    ) -> Result<Operation, StoreError> {
        self.wait_until(organization, id, limit, Operation::is_finished).await
    }

    /// The operation as it is when its version is another than the one seen, or the time is up; for whoever shows steps as they go.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn wait_change(
        self,
        organization: OrganizationId,
        id: OperationId,
        seen: i64,
        limit: Duration,
    ) -> Result<Operation, StoreError> {
        self.wait_until(organization, id, limit, |now| now.version != seen).await
    }

    async fn wait_until(
        self,
        organization: OrganizationId,
        id: OperationId,
        limit: Duration,
        enough: impl Fn(&Operation) -> bool,
    ) -> Result<Operation, StoreError> {
        let end = Instant::now() + limit;
        // Listening begins before looking, so that nothing falls between.
        let mut changes = self.0.changes();
        loop {
            let operation = self.get(organization, id).await?;
            let left = end.saturating_duration_since(Instant::now());
            if enough(&operation) || left.is_zero() {
                return Ok(operation);
            }
            let _woken = tokio::time::timeout(left.min(LOOK), wait_for_change(&mut changes, id.uuid())).await;
        }
    }

    /// One operation, of whatever organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn load(self, id: OperationId) -> Result<Operation, StoreError> {
        rows::one("operation", operation::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }

    /// The newest operation on a row that has not finished.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn current_for(self, target: &str) -> Result<Option<Operation>, StoreError> {
        let query = operation::Entity::find().filter(operation::Column::Target.eq(target));
        let query = query.filter(operation::Column::FinishedAt.is_null()).order_by_desc(operation::Column::Id);
        rows::maybe(query.one(self.0.db()).await?)
    }

    /// Shows all steps (key and title) as waiting, in this order. Steps that are there already stay as they are; a finished operation
    /// stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn plan(self, id: OperationId, steps: &[(&str, &str)]) -> Result<(), StoreError> {
        self.change(id, |operation| {
            for (key, title) in steps {
                step_of(&mut operation.steps, key, title);
            }
        })
        .await
    }

    /// An update of one step. The first start stays; a failure stays readable while the step begins again; a finished operation stays as it
    /// is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn step(self, id: OperationId, update: StepUpdate<'_>) -> Result<(), StoreError> {
        self.change(id, |operation| {
            let step = step_of(&mut operation.steps, update.key, update.title);
            apply(step, &update);
            if update.state != StepState::Waiting {
                operation.state = OperationState::Running;
            }
        })
        .await
    }

    /// Ends an operation. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn finish(self, id: OperationId, outcome: Outcome) -> Result<(), StoreError> {
        self.change(id, |operation| end(operation, &outcome)).await
    }

    /// Changes an unfinished operation under its lock; when nothing is different nothing is written and nobody woken.
    async fn change(self, id: OperationId, edit: impl FnOnce(&mut Operation) + Send) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let row = tx.lock::<operation::Entity>(id.uuid()).await?;
        let before: Operation = rows::one("operation", row)?;
        let mut after = before.clone();
        edit(&mut after);
        if before.is_finished() || before == after {
            return Ok(());
        }
        write(&mut tx, after).await?;
        tx.commit().await
    }
}

/// Returns when this operation may have changed.
async fn wait_for_change(changes: &mut Receiver<Change>, id: Uuid) {
    loop {
        match changes.recv().await {
            Ok(change) if change.id == id || change.kind == ChangeKind::Resync => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            // The store was closed; the next look says so.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The step with this key; a new one goes to the end, waiting.
fn step_of<'a>(steps: &'a mut Vec<Step>, key: &str, title: &str) -> &'a mut Step {
    let place = steps.iter().position(|step| step.key == key).unwrap_or(steps.len());
    if place == steps.len() {
        let (key, title) = (key.to_owned(), title.to_owned());
        let state = StepState::Waiting;
        steps.push(Step { key, title, state, attempt: 0, started_at: None, finished_at: None, message: String::new() });
    }
    &mut steps[place]
}

/// An attempt begins when a step runs that did not run before; a failure reported twice in a row is two attempts.
fn apply(step: &mut Step, update: &StepUpdate<'_>) {
    let again = step.state == StepState::Failed;
    let begins = match update.state {
        StepState::Waiting => false,
        StepState::Running | StepState::Done => step.attempt == 0 || again,
        StepState::Failed => step.attempt == 0 || (again && step.message != update.message),
    };
    let ended = matches!(update.state, StepState::Done | StepState::Failed);
    if begins {
        step.attempt += 1;
        step.started_at = step.started_at.or_else(|| Some(codec::now()));
    }
    if begins || step.state != update.state {
        step.finished_at = ended.then(codec::now);
    }
    let goes_on = step.state == StepState::Running && update.state == StepState::Running;
    if update.state == StepState::Done || goes_on || !update.message.is_empty() {
        step.message = update.message.to_owned();
    }
    (step.title, step.state) = (update.title.to_owned(), update.state);
}

fn end(operation: &mut Operation, outcome: &Outcome) {
    let (state, running) = match outcome {
        Outcome::Succeeded => (OperationState::Succeeded, StepState::Done),
        Outcome::Failed(_) => (OperationState::Failed, StepState::Failed),
        Outcome::Cancelled => (OperationState::Cancelled, StepState::Failed),
    };
    for step in operation.steps.iter_mut().filter(|step| step.state == StepState::Running) {
        (step.state, step.finished_at) = (running, Some(codec::now()));
    }
    operation.state = state;
    operation.finished_at = Some(codec::now());
    if let Outcome::Failed(problem) = outcome {
        operation.problem = Some(problem.clone());
    }
}

async fn write(tx: &mut Tx, operation: Operation) -> Result<(), StoreError> {
    let model = operation::Model {
        id: operation.id.uuid(),
        organization: operation.organization.uuid(),
        cluster: operation.cluster.map(|cluster| cluster.uuid()),
        kind: operation.kind,
        target: operation.target,
        state: operation.state.to_string(),
        steps: codec::json("operation steps", &operation.steps)?,
        problem: codec::maybe_json("operation problem", operation.problem.as_ref())?,
        actor: operation.actor,
        version: operation.version + 1,
        created_at: codec::millis(operation.created_at),
        finished_at: operation.finished_at.map(codec::millis),
    };
    tx.publish(change_of(&model));
    tx.save(model).await
}

fn change_of(row: &operation::Model) -> Change {
    Change::of(ChangeKind::Operation, row.id).within(row.organization, row.cluster)
}

/// Opens an operation for an intent, within its transaction.
pub(super) async fn open(tx: &mut Tx, intent: &Intent<'_>) -> Result<Uuid, StoreError> {
    let row = operation::Model {
        id: Uuid::now_v7(),
        organization: intent.organization,
        cluster: intent.cluster,
        kind: intent.action.to_owned(),
        target: intent.target.to_owned(),
        state: OperationState::Pending.to_string(),
        steps: "[]".to_owned(),
        problem: None,
        actor: intent.actor.to_string(),
        version: 1,
        created_at: codec::millis(codec::now()),
        finished_at: None,
    };
    let id = row.id;
    tx.publish(change_of(&row));
    tx.add(row).await?;
    Ok(id)
}

/// Ends the open operations among `which`. Deletions have come true when the row is `gone` and go on otherwise; everything else was
/// overtaken.
pub(super) async fn supersede(tx: &mut Tx, which: impl IntoCondition, gone: bool) -> Result<(), StoreError> {
    let query = operation::Entity::find().filter(which).filter(operation::Column::FinishedAt.is_null());
    for row in query.order_by_asc(operation::Column::Id).lock_exclusive().all(tx).await? {
        let mut operation = Operation::try_from(row)?;
        let deletes = operation.kind.ends_with(".delete");
        if deletes && !gone {
            continue;
        }
        end(&mut operation, if deletes { &Outcome::Succeeded } else { &Outcome::Cancelled });
        write(tx, operation).await?;
    }
    Ok(())
}
