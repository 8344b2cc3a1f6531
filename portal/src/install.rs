//! What a joining machine fetches: the install script, the agent and its checksum; and the probes.
//!
//! The script pins the platform's CA and the agent's checksum, so the one pasted line trusts nothing else.

pub(crate) mod downloads;

use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use node_protocol::{header, path, program};
use tenant_controlplane::node::{self, InstallInput};

/// Routes for machines and probes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route(path::INSTALL_SCRIPT, get(script))
        .route(path::AGENT, get(agent))
        .route(path::AGENT_CHECKSUM, get(checksum))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
}

async fn script(State(state): State<AppState>) -> Response {
    let config = state.config();
    let script = node::install_script(&InstallInput {
        portal_url: &config.public_url,
        server: &config.gateway_address,
        domain: &config.domain,
        agent_sha256: &config.agent.sha256,
        machine: &config.agent.machine,
    });
    ([(CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], script).into_response()
}

/// Sends the binary; `x-checksum-sha256` and the etag carry its checksum. Anybody may have it, so it is bounded, see [`downloads`].
async fn agent(State(state): State<AppState>, from: Connection) -> Result<Response, Error> {
    let permit = state.downloads().begin(from.address)?;
    let binary = state.agent().await.map_err(Error::internal)?;
    let sha256 = &state.config().agent.sha256;
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, binary.len().to_string()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (ETAG, format!("\"{sha256}\"")),
    ];
    let checksum = [(header::CHECKSUM, sha256.clone())];
    Ok((headers, checksum, downloads::body(binary, permit)).into_response())
}

/// In the form `sha256sum --check` reads.
async fn checksum(State(state): State<AppState>) -> String {
    format!("{}  {}\n", state.config().agent.sha256, program::AGENT)
}

/// Ready means: the database answers.
async fn ready(State(state): State<AppState>) -> Result<&'static str, Error> {
    state.ready().await?;
    Ok("ok\n")
}
