//! Kubeconfigs: issue, list, revoke.
//!
//! The row comes first, then the signature, which the [`crate::Issuer`] makes. A file is handed out once the provisioner has
//! seen that the cluster accepts it, and is told to be revoked once it has seen that the cluster refuses it.

use super::tokens::{check_name, lifetime};
use super::{find, local_machines, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::config::{Capabilities, IssueError};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{IssueKubeconfig, IssuedKubeconfig, Kubeconfig, List};
use migrations::{Change, ChangeKind, Cluster, KubeconfigKind, NewKubeconfig};
use std::time::Duration;
use tenant_controlplane::id::KubeconfigId;
use tenant_controlplane::status::{AccessRole, ClusterState, KubeconfigEndpoint};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

const DAY: u64 = 24 * 60 * 60;
const DEFAULT_LIFETIME: u64 = 30 * DAY;
const LONGEST_LIFETIME: u64 = 365 * DAY;
/// Letters of a default name's suffix: base 32 without those that look alike.
const SUFFIX: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// How long issuing waits for the cluster to accept the file: a young one fills its roles for some seconds.
const LONGEST_ACCEPTANCE: Duration = Duration::from_secs(20);

/// The kubeconfigs issued for a cluster, revoked ones too; never the files.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn list(state: &AppState, actor: &Actor, cluster: &str, paging: &Paging) -> Result<List<Kubeconfig>, Error> {
    let cluster = find::cluster(state, actor, cluster, Action::ReadKubeconfig).await?;
    let rows = state.store().kubeconfigs().list(cluster.organization, cluster.id).await?;
    Ok(paging.cut(rows, |row| (row.id.uuid(), row.name.as_str()), view::kubeconfig))
}

/// Issues a kubeconfig. Role `view` may be had by everybody who sees the cluster, more by editors.
///
/// # Errors
/// [`Error::ClusterNotReady`] before the cluster first runs; [`Error::NotAccepted`] when it does not take the file up;
/// [`Error::Conflict`] when it has as many as it may; [`Error::Deleting`], [`Error::Invalid`], [`Error::Forbidden`],
/// [`Error::LocalMachinesRestricted`], [`Error::NotFound`].
pub async fn issue(
    state: &AppState,
    actor: &Actor,
    cluster: &str,
    input: IssueKubeconfig,
) -> Result<IssuedKubeconfig, Error> {
    let cluster = find::living_cluster(state, actor, cluster, Action::IssueViewKubeconfig).await?;
    let endpoint = endpoint(state.config().capabilities, input.endpoint.as_deref())?;
    let view_only = local_machines::confines(state, actor, &cluster).await?;
    let new = checked(actor, &cluster, input, view_only)?;
    ready(&cluster)?;
    let mut changes = state.changes();
    let recipient = local_machines::recipient(state, actor, cluster.organization);
    let row = state.store().kubeconfigs().insert_for(new, recipient).await?;
    if state.store().is_dry_run() {
        return Ok(IssuedKubeconfig { issued: view::kubeconfig(row), kubeconfig: String::new() });
    }
    let file = match state.config().issuer.kubeconfig(&row, endpoint).await {
        Ok(file) => file,
        Err(error) => return Err(withdrawn(state, actor, &row, not_signed(error, &cluster)).await),
    };
    let accepted = seen(state, &row, &mut changes, |row| row.bound || row.revoked_at.is_some());
    match timeout(LONGEST_ACCEPTANCE, accepted).await {
        Ok(Ok(row)) if row.bound => Ok(IssuedKubeconfig { issued: view::kubeconfig(row), kubeconfig: file }),
        Ok(Err(error)) => Err(withdrawn(state, actor, &row, error).await),
        Ok(Ok(_)) | Err(_) => Err(withdrawn(state, actor, &row, not_accepted(state, &cluster).await).await),
    }
}

/// Revokes a kubeconfig, and waits for at most `timeout_after` until the cluster is seen to refuse it: it is `revoked` then, and `revoking`
/// before.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn revoke(state: &AppState, actor: &Actor, id: &str, timeout_after: Duration) -> Result<Kubeconfig, Error> {
    let id: KubeconfigId = find::id(id, "kubeconfig")?;
    let kubeconfigs = state.store().kubeconfigs();
    for organization in actor.organizations() {
        if kubeconfigs.get(organization, id).await.is_ok() {
            policy::authorize(actor, Action::RevokeKubeconfig, organization)?;
            let mut changes = state.changes();
            kubeconfigs.revoke(organization, id, actor.by()).await?;
            let row = kubeconfigs.get(organization, id).await?;
            let refused = seen(state, &row, &mut changes, |row| row.refused_at.is_some());
            let timeout_after = if state.store().is_dry_run() { Duration::ZERO } else { timeout_after };
            return Ok(view::kubeconfig(timeout(timeout_after, refused).await.unwrap_or(Ok(row))?));
        }
    }
    Err(Error::NotFound { what: "kubeconfig" })
}

fn checked(actor: &Actor, cluster: &Cluster, input: IssueKubeconfig, view_only: bool) -> Result<NewKubeconfig, Error> {
    if let Some(kind) = input.kind.as_deref().filter(|kind| *kind != "file") {
        let detail = format!("`{kind}` is not a kind of kubeconfig: choose file");
        return Err(Error::field("/kind", "UNKNOWN_VALUE", detail));
    }
    let role = role(actor, cluster, input.role.as_deref(), view_only)?;
    let name = input.name.unwrap_or_else(|| default_name(cluster, role));
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

/// What it opens, and a suffix by which it is told apart and revoked by name: `demo-admin-x7k2p`.
fn default_name(cluster: &Cluster, role: AccessRole) -> String {
    let suffix: String =
        rand::random::<[u8; 5]>().map(|byte| char::from(SUFFIX[usize::from(byte % 32)])).iter().collect();
    format!("{}-{role}-{suffix}", cluster.name)
}

/// The role asked for, or the most the caller gets; whether local machines forbid a wanted one, the store says.
fn role(actor: &Actor, cluster: &Cluster, wanted: Option<&str>, view_only: bool) -> Result<AccessRole, Error> {
    let Some(word) = wanted else {
        let most = !view_only && policy::may(actor, Action::IssueKubeconfig, cluster).is_ok();
        return Ok(if most { AccessRole::Admin } else { AccessRole::View });
    };
    let role: AccessRole = word.parse().map_err(|_| {
        let detail = format!("`{word}` is not a role in a cluster: choose view, edit or admin");
        Error::field("/role", "UNKNOWN_VALUE", detail)
    })?;
    if role != AccessRole::View {
        policy::authorize(actor, Action::IssueKubeconfig, cluster)?;
    }
    Ok(role)
}

/// How a file addresses the API server: as asked for, or by name where the operator has chosen a domain, which every client understands.
fn endpoint(capabilities: Capabilities, wanted: Option<&str>) -> Result<KubeconfigEndpoint, Error> {
    let default = if capabilities.dns { KubeconfigEndpoint::Dns } else { KubeconfigEndpoint::Sni };
    let Some(word) = wanted else { return Ok(default) };
    let endpoint = word.parse().map_err(|_| {
        let detail = format!("`{word}` is not an endpoint type: choose sni, dns or port");
        Error::field("/endpoint", "UNKNOWN_VALUE", detail)
    })?;
    let lacks = |detail: &str| Err(Error::field("/endpoint", "NOT_AVAILABLE", detail));
    match endpoint {
        KubeconfigEndpoint::Dns if !capabilities.dns => {
            lacks("this installation has no DNS domain (operator: `pilothouse up --domain`): choose sni")
        }
        KubeconfigEndpoint::Port if !capabilities.ports => lacks(
            "this installation gives clusters no ports of their own: its operator allows some with `pilothouse up --cluster-ports`; \
             choose sni",
        ),
        endpoint => Ok(endpoint),
    }
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
        IssueError::NoPort(detail) => Error::Conflict { detail },
        error => Error::internal(error),
    }
}

/// Why a file is not handed out, as the cluster says it.
async fn not_accepted(state: &AppState, cluster: &Cluster) -> Error {
    let now = state.store().clusters().get(cluster.organization, cluster.id).await.ok();
    let problem = now.and_then(|now| now.problem).map(|problem| problem.detail);
    Error::NotAccepted { reason: problem.unwrap_or_else(|| "its API servers do not trust it yet".to_owned()) }
}

/// Waits until the provisioner has seen what is waited for.
async fn seen(
    state: &AppState,
    row: &migrations::Kubeconfig,
    changes: &mut broadcast::Receiver<Change>,
    is_over: impl Fn(&migrations::Kubeconfig) -> bool + Send,
) -> Result<migrations::Kubeconfig, Error> {
    loop {
        let row = state.store().kubeconfigs().get(row.organization, row.id).await?;
        if is_over(&row) || !heard_of(row.id, changes).await {
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

/// A row whose file is not handed out is revoked again; the first error is the one told.
async fn withdrawn(state: &AppState, actor: &Actor, row: &migrations::Kubeconfig, error: Error) -> Error {
    if let Err(second) = state.store().kubeconfigs().revoke(row.organization, row.id, actor.by()).await {
        tracing::warn!(kubeconfig = %row.id, error = %second, "a kubeconfig that was not issued remains listed");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_by_name_where_there_are_names() {
        let with = |dns| Capabilities { dns, ..Capabilities::default() };
        let chosen = |dns, wanted| endpoint(with(dns), wanted).ok();
        assert_eq!(chosen(false, None), Some(KubeconfigEndpoint::Sni));
        assert_eq!(chosen(true, None), Some(KubeconfigEndpoint::Dns));
        assert_eq!(chosen(true, Some("sni")), Some(KubeconfigEndpoint::Sni));
        assert_eq!([chosen(false, Some("dns")), chosen(true, Some("port")), chosen(true, Some("ip"))], [None; 3]);
    }
}
