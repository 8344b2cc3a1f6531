//! The rule about local machines that share the kernel of the platform host ([`LocalMachines::Trusted`]).
//!
//! Root in such a machine is root on the platform's, and whoever may make a pod in its cluster can become root in it. So only the
//! installation's first organization has them, and in a cluster with some, also while they are being removed, only admins and owners get
//! more than `view`. A cluster where somebody else ever had more cannot get any. The store keeps the second half, in the transaction
//! that makes the row.

use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::config::LocalMachines;
use crate::error::Error;
use crate::state::AppState;
use migrations::{Cluster, PoolKind, Recipient};
use tenant_controlplane::id::OrganizationId;

/// Whether local machines of this installation share its kernel unguarded.
pub fn share_kernel(state: &AppState) -> bool {
    state.config().capabilities.local == LocalMachines::Trusted
}

/// What the caller may have in an organization (id as text): [`LocalMachines::Off`] where it is nothing.
///
/// # Errors
/// Errors of the store.
pub async fn offered(state: &AppState, actor: &Actor, organization: &str) -> Result<LocalMachines, Error> {
    let mode = state.config().capabilities.local;
    if mode == LocalMachines::Off || !actor.may(Action::CreateLocalNodePool, organization) {
        return Ok(LocalMachines::Off);
    }
    let Ok(organization) = organization.parse() else { return Ok(LocalMachines::Off) };
    let fits = mode == LocalMachines::Isolated || is_first(state, organization).await?;
    Ok(if fits { mode } else { LocalMachines::Off })
}

/// Refuses machines that share the kernel to every organization but the first.
///
/// # Errors
/// [`Error::LocalMachinesRestricted`].
pub(super) async fn permit(state: &AppState, organization: OrganizationId) -> Result<(), Error> {
    if is_first(state, organization).await? {
        return Ok(());
    }
    let detail = "local machines share the kernel of the platform host here, so only the installation's first organization \
                  may have them: join machines of your own";
    Err(Error::LocalMachinesRestricted { detail: detail.into() })
}

async fn is_first(state: &AppState, organization: OrganizationId) -> Result<bool, Error> {
    Ok(state.store().identity().first_organization().await? == Some(organization))
}

/// The caller as one who gets a kubeconfig.
pub(super) fn recipient(state: &AppState, actor: &Actor, organization: OrganizationId) -> Recipient {
    let admin = policy::may(actor, Action::IssueKubeconfigSharingKernel, organization).is_ok();
    Recipient { admin, shared_kernel: share_kernel(state) }
}

/// Whether the caller gets no more than `view` in a cluster, because of its local machines.
///
/// # Errors
/// Errors of the store.
pub(super) async fn confines(state: &AppState, actor: &Actor, cluster: &Cluster) -> Result<bool, Error> {
    let recipient = recipient(state, actor, cluster.organization);
    if recipient.admin || !recipient.shared_kernel {
        return Ok(false);
    }
    let pools = state.store().pools().of_cluster(cluster.id).await?;
    Ok(pools.iter().any(|pool| pool.kind == PoolKind::Local))
}

/// The same for a page, by the cluster's id.
///
/// # Errors
/// [`Error::NotFound`], errors of the store.
pub async fn confines_to_view(state: &AppState, actor: &Actor, cluster: &str) -> Result<bool, Error> {
    let cluster = super::find::cluster(state, actor, cluster, Action::IssueViewKubeconfig).await?;
    confines(state, actor, &cluster).await
}
