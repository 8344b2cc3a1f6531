//! The user interface: pages, REST v1, sign-in. The portal writes what should be and reads what is; making it so is the
//! provisioner's work, and the two meet only in the store.
//!
//! A request passes [`router`] (the whole table of routes) and, for REST, `api::middleware` (limits, trying out, sending
//! twice), a handler in [`api`] or [`web`] (text in, text out), an
//! operation in [`mod@app`] (authorize → rules → store), and leaves through [`error_response`], which gives errors their shape.
//! What is absent here: no Kubernetes client, no cloud, no tenant's key. Kubeconfigs are signed behind [`Issuer`].

pub mod api;
pub mod app;
mod audit;
pub mod auth;
pub mod config;
pub mod connection;
pub mod error;
pub mod error_response;
pub mod extract;
mod housekeeping;
mod install;
pub mod paging;
mod router;
pub mod state;
mod text;
mod trace;
pub mod web;

pub use config::{AgentFiles, Capabilities, IssueError, Issuer, LocalMachines, PortalConfig, RequestLimits};
pub use connection::{Connection, CredentialSeen};
pub use housekeeping::{clean, housekeeping};

/// The whole portal as one service: pages, `/api/v1`, `/install`, `/healthz`, `/readyz`.
///
/// The caller serves it on any number of listeners and inserts a [`Connection`] into each request's extensions, so that
/// rate limits know the peer and cookies know TLS.
pub fn app(config: PortalConfig) -> axum::Router {
    router::build(state::AppState::new(config))
}

/// The answer to a request for which the platform has no room, for whoever serves the portal: 503 with `Retry-After`, in the shape of
/// every other error for programs.
pub fn overloaded(retry_after_seconds: u64) -> axum::response::Response {
    error_response::refused(error::Error::Overloaded {
        what: "the platform's memory limit is reached",
        retry_after_seconds,
    })
}

/// The OpenAPI 3.1 document served at `/api/v1/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    router::openapi()
}
