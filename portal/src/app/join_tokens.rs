//! Join tokens: what a machine shows once to become a node.

use super::tokens::lifetime;
use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{CreateJoinToken, CreatedJoinToken, JoinCommands, JoinToken, List};
use migrations::{Cluster, NewJoinToken, NodePool, PoolKind};
use secrecy::SecretString;
use tenant_controlplane::id::{JoinTokenId, NodePoolId};
use tenant_controlplane::node::{self, JoinMaterial};
use time::OffsetDateTime;

const DEFAULT_LIFETIME: u64 = 60 * 60;
const LONGEST_LIFETIME: u64 = 30 * 24 * 60 * 60;
const MOST_USES: u32 = 100;

/// The join tokens of a cluster; never their secrets.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn list(state: &AppState, actor: &Actor, cluster: &str, paging: &Paging) -> Result<List<JoinToken>, Error> {
    let cluster = find::cluster(state, actor, cluster, Action::ReadJoinToken).await?;
    let rows = state.store().join_tokens().list(cluster.organization, cluster.id).await?;
    Ok(paging.cut(rows, |row| (row.id.uuid(), ""), view::join_token))
}

/// Makes a join token and the commands that use it.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Deleting`], [`Error::Invalid`].
pub async fn create(
    state: &AppState,
    actor: &Actor,
    cluster: &str,
    input: CreateJoinToken,
) -> Result<CreatedJoinToken, Error> {
    let cluster = find::living_cluster(state, actor, cluster, Action::CreateJoinToken).await?;
    let expires_at =
        OffsetDateTime::now_utc() + lifetime(input.expires_in_seconds, DEFAULT_LIFETIME, LONGEST_LIFETIME)?;
    let max_uses = uses(input.max_uses)?;
    let pool = pool(state, &cluster, input.node_pool.as_deref()).await?;
    let new = NewJoinToken {
        organization: cluster.organization,
        cluster: cluster.id,
        pool,
        node: None,
        expires_at,
        max_uses,
        actor: actor.by(),
    };
    let (token, secret) = state.store().join_tokens().create(new).await?;
    let commands = commands(state, &secret);
    Ok(CreatedJoinToken { join_token: view::join_token(token), token: state.shown_once(&secret), commands })
}

/// Revokes a join token. Nodes that joined with it stay.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn revoke(state: &AppState, actor: &Actor, id: &str) -> Result<(), Error> {
    let id: JoinTokenId = find::id(id, "join token")?;
    let tokens = state.store().join_tokens();
    for organization in actor.organizations() {
        if tokens.get(organization, id).await.is_ok() {
            policy::authorize(actor, Action::RevokeJoinToken, organization)?;
            return Ok(tokens.revoke(organization, id, actor.by()).await.map(|_| ())?);
        }
    }
    Err(Error::NotFound { what: "join token" })
}

fn uses(wanted: Option<u32>) -> Result<u32, Error> {
    let uses = wanted.unwrap_or(1);
    if (1..=MOST_USES).contains(&uses) {
        return Ok(uses);
    }
    Err(Error::field("/max_uses", "OUT_OF_RANGE", format!("{uses} uses are out of range: choose 1 to {MOST_USES}")))
}

/// The pool a machine joins: the one named, else the only one for own machines, else (`None`) one the store makes.
async fn pool(state: &AppState, cluster: &Cluster, wanted: Option<&str>) -> Result<Option<NodePoolId>, Error> {
    let pools = state.store().pools().list(cluster.organization, cluster.id).await?;
    let living = pools.into_iter().filter(|pool| pool.deletion_requested_at.is_none());
    if let Some(wanted) = wanted {
        return named(living.collect(), wanted).map(Some);
    }
    let own: Vec<NodePool> = living.filter(|pool| pool.kind == PoolKind::Byo).collect();
    match own.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.id)),
        several => {
            let names: Vec<&str> = several.iter().map(|pool| pool.name.as_str()).collect();
            let detail = format!("the cluster has several byo pools: choose {}", names.join(" or "));
            Err(Error::field("/node_pool", "REQUIRED", detail))
        }
    }
}

fn named(pools: Vec<NodePool>, wanted: &str) -> Result<NodePoolId, Error> {
    let id = wanted.parse::<NodePoolId>().ok();
    let found = pools.into_iter().find(|pool| Some(pool.id) == id || pool.name.as_str() == wanted);
    match found {
        Some(pool) if pool.kind == PoolKind::Byo => Ok(pool.id),
        Some(_) => {
            let detail = format!("the platform creates the machines of `{wanted}`: choose a pool of kind byo");
            Err(Error::field("/node_pool", "WRONG_KIND", detail))
        }
        None => Err(Error::field("/node_pool", "NOT_FOUND", format!("the cluster has no pool `{wanted}`"))),
    }
}

fn commands(state: &AppState, secret: &SecretString) -> JoinCommands {
    if state.store().is_dry_run() {
        return JoinCommands { shell: String::new(), cloud_init: String::new() };
    }
    let config = state.config();
    let material = JoinMaterial {
        server: config.gateway_address.clone(),
        domain: config.domain.clone(),
        ca_pem: config.platform_ca_pem.clone(),
        signing_key: config.agent.signing_key.clone(),
        token: secret.clone(),
    };
    JoinCommands {
        shell: node::join_line(&material, &config.public_url),
        cloud_init: node::cloud_init(&material, &config.public_url),
    }
}
