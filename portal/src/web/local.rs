//! What pages say about local machines.

use crate::app;
use crate::auth::Actor;
use crate::config::LocalMachines;
use crate::error::Error;
use crate::state::AppState;

/// What local machines mean for whoever has them, as this installation runs them; `None` where there are none.
pub fn local_words(mode: LocalMachines) -> Option<&'static str> {
    match mode {
        LocalMachines::Off => None,
        LocalMachines::Trusted => Some(
            "Local machines share the kernel of the platform host and are not an isolation boundary: in their cluster only admins and owners \
             get kubeconfigs with more than the view role.",
        ),
        LocalMachines::Isolated => Some(
            "Each local machine runs in its own user namespace and can reach only the gateway on the platform host.",
        ),
    }
}

/// The same for somebody who chooses; `None` also where they may not have any.
///
/// # Errors
/// Errors of the store.
pub async fn local_hint(state: &AppState, actor: &Actor, organization: &str) -> Result<Option<&'static str>, Error> {
    Ok(local_words(app::local_machines::offered(state, actor, organization).await?))
}
