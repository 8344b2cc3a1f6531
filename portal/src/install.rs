//! What a joining machine fetches: the install script, the agent and its checksum; and the probes.
//!
//! The script pins the platform's CA and the agent's checksum, so the one pasted line trusts nothing else.

use crate::error::Error;
use crate::state::AppState;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tenant_controlplane::node::{self, InstallInput};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

/// Routes for machines and probes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/install/agent.sh", get(script))
        .route("/install/pilothouse-node", get(agent))
        .route("/install/pilothouse-node.sha256", get(checksum))
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

/// Streams the binary; `x-checksum-sha256` and the etag carry its checksum.
async fn agent(State(state): State<AppState>) -> Result<Response, Error> {
    let agent = &state.config().agent;
    let file = File::open(&agent.path).await.map_err(Error::internal)?;
    let length = file.metadata().await.map_err(Error::internal)?.len();
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (ETAG, format!("\"{}\"", agent.sha256)),
    ];
    let checksum = [("x-checksum-sha256", agent.sha256.clone())];
    Ok((headers, checksum, Body::from_stream(ReaderStream::with_capacity(file, 64 * 1024))).into_response())
}

/// In the form `sha256sum --check` reads.
async fn checksum(State(state): State<AppState>) -> String {
    format!("{}  pilothouse-node\n", state.config().agent.sha256)
}

/// Ready means: the database answers.
async fn ready(State(state): State<AppState>) -> Result<&'static str, Error> {
    state.store().ping().await?;
    Ok("ok\n")
}
