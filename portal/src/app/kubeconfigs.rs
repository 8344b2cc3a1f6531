//! Kubeconfigs: issue, list, revoke.
//!
//! The row comes first, then the signature, which the [`crate::Issuer`] makes. The file works once the provisioner has
//! bound it to its role inside the cluster, so issuing waits a little for that.

use super::tokens::{check_name, lifetime};
use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::config::IssueError;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{IssueKubeconfig, IssuedKubeconfig, Kubeconfig, List};
use migrations::{Change, ChangeKind, Cluster, KubeconfigKind, NewKubeconfig, Role};
use std::time::Duration;
use tenant_controlplane::id::KubeconfigId;
use tenant_controlplane::status::{AccessRole, ClusterState};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

const DAY: u64 = 24 * 60 * 60;
const DEFAULT_LIFETIME: u64 = 30 * DAY;
const LONGEST_LIFETIME: u64 = 365 * DAY;
/// How long issuing waits for the cluster to honour the file.
const LONGEST_BINDING: Duration = Duration::from_secs(10);

/// The kubeconfigs issued for a cluster, revoked ones too; never the files.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn list(state: &AppState, actor: &Actor, cluster: &str, paging: &Paging) -> Result<List<Kubeconfig>, Error> {
    let cluster = find::cluster(state, actor, cluster, Action::Read).await?;
    let rows = state.store().kubeconfigs().list(cluster.organization, cluster.id).await?;
    Ok(paging.cut(rows, |row| (row.id.uuid(), row.name.as_str()), view::kubeconfig))
}

/// Issues a kubeconfig. Role `view` may be had by everybody who sees the cluster, more by editors.
///
/// # Errors
/// [`Error::ClusterNotReady`] before the cluster first runs; [`Error::Deleting`], [`Error::Invalid`],
/// [`Error::Forbidden`], [`Error::NotFound`].
pub async fn issue(
    state: &AppState,
    actor: &Actor,
    cluster: &str,
    input: IssueKubeconfig,
) -> Result<IssuedKubeconfig, Error> {
    let cluster = find::living_cluster(state, actor, cluster, Action::Read).await?;
    let new = checked(actor, &cluster, input)?;
    ready(&cluster)?;
    let mut changes = state.changes();
    let row = state.store().kubeconfigs().insert(new).await?;
    if state.store().is_rehearsal() {
        return Ok(IssuedKubeconfig { issued: view::kubeconfig(row), kubeconfig: String::new() });
    }
    let file = match state.config().issuer.kubeconfig(cluster.id, &row).await {
        Ok(file) => file,
        Err(error) => return Err(withdrawn(state, actor, &row, not_signed(error, &cluster)).await),
    };
    let row = timeout(LONGEST_BINDING, honoured(state, &row, &mut changes)).await.unwrap_or(Ok(row))?;
    Ok(IssuedKubeconfig { issued: view::kubeconfig(row), kubeconfig: file })
}

/// Revokes a kubeconfig: its role binding is deleted, so that the file opens nothing any more.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn revoke(state: &AppState, actor: &Actor, id: &str) -> Result<(), Error> {
    let id: KubeconfigId = find::id(id, "kubeconfig")?;
    let kubeconfigs = state.store().kubeconfigs();
    for organization in actor.organizations() {
        if kubeconfigs.get(organization, id).await.is_ok() {
            policy::authorise(actor, organization, Action::Write)?;
            return Ok(kubeconfigs.revoke(organization, id, actor.by()).await.map(|_| ())?);
        }
    }
    Err(Error::NotFound { what: "kubeconfig" })
}

fn checked(actor: &Actor, cluster: &Cluster, input: IssueKubeconfig) -> Result<NewKubeconfig, Error> {
    if let Some(kind) = input.kind.as_deref().filter(|kind| *kind != "file") {
        let detail = format!("`{kind}` is not a kind of kubeconfig: choose file");
        return Err(Error::field("/kind", "UNKNOWN_VALUE", detail));
    }
    let role = role(actor, cluster, input.role.as_deref())?;
    let name = input.name.unwrap_or_else(|| actor.user.display_name.chars().take(64).collect());
    check_name(&name)?;
    let seconds = lifetime(input.expires_in_seconds, DEFAULT_LIFETIME, LONGEST_LIFETIME)?;
    let expires_at = OffsetDateTime::now_utc() + seconds;
    Ok(NewKubeconfig {
        cluster: cluster.id,
        organization: cluster.organization,
        name,
        role,
        expires_at,
        kind: KubeconfigKind::File,
        actor: actor.by(),
    })
}

fn role(actor: &Actor, cluster: &Cluster, wanted: Option<&str>) -> Result<AccessRole, Error> {
    let held = actor.role(cluster.organization).unwrap_or(Role::Viewer);
    let writes = policy::allows(held, Action::Write);
    let Some(word) = wanted else { return Ok(if writes { AccessRole::Admin } else { AccessRole::View }) };
    let role: AccessRole = word.parse().map_err(|_| {
        let detail = format!("`{word}` is not a role in a cluster: choose view, edit or admin");
        Error::field("/role", "UNKNOWN_VALUE", detail)
    })?;
    if role != AccessRole::View {
        policy::authorise(actor, cluster.organization, Action::Write)?;
    }
    Ok(role)
}

/// A kubeconfig is handed out only for a cluster that has answered from outside.
fn ready(cluster: &Cluster) -> Result<(), Error> {
    match cluster.state {
        ClusterState::Running | ClusterState::Degraded => Ok(()),
        _ => Err(not_ready(cluster)),
    }
}

fn not_ready(cluster: &Cluster) -> Error {
    let operation = cluster.operation.map(|operation| operation.to_string());
    Error::ClusterNotReady { state_message: cluster.state_message.clone(), operation }
}

fn not_signed(error: IssueError, cluster: &Cluster) -> Error {
    match error {
        IssueError::NotReady => not_ready(cluster),
        error => Error::internal(error),
    }
}

/// Waits until the provisioner has bound the file to its role inside the cluster.
async fn honoured(
    state: &AppState,
    issued: &migrations::Kubeconfig,
    changes: &mut broadcast::Receiver<Change>,
) -> Result<migrations::Kubeconfig, Error> {
    loop {
        let row = state.store().kubeconfigs().get(issued.organization, issued.id).await?;
        if row.bound || !heard_of(issued.id, changes).await {
            return Ok(row);
        }
    }
}

/// Waits for a change of that kubeconfig, whatever else changes meanwhile; `false` when no more will come.
async fn heard_of(kubeconfig: KubeconfigId, changes: &mut broadcast::Receiver<Change>) -> bool {
    loop {
        match changes.recv().await {
            Ok(change) if change.kind == ChangeKind::Resync || change.id == kubeconfig.uuid() => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

/// A row whose file was never made is revoked again; the first error is the one told.
async fn withdrawn(state: &AppState, actor: &Actor, row: &migrations::Kubeconfig, error: Error) -> Error {
    if let Err(second) = state.store().kubeconfigs().revoke(row.organization, row.id, actor.by()).await {
        tracing::warn!(kubeconfig = %row.id, error = %second, "an unsigned kubeconfig stays listed");
    }
    error
}
