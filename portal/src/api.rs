//! REST v1: one file per noun, each handler a few lines — take from the request, call the operation, shape the answer.
//!
//! The annotations are the OpenAPI document; a route cannot be served without being described.

mod audit;
mod clusters;
mod idempotency;
mod join_tokens;
mod kubeconfigs;
mod me;
mod meta;
pub(crate) mod middleware;
mod node_pools;
mod nodes;
mod openapi;
mod operations;
mod organizations;
mod projects;
mod quota;
mod reply;
mod sessions;
mod setup;
mod tokens;

use crate::auth::session;
use crate::state::AppState;
use reply::Failure;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

/// Where all of it is mounted.
pub const ROOT: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pilothouse",
        description = "Control planes as a service. Every error is `application/problem+json` with a stable code, see \
                       `GET /api/v1/errors`. Lists are paged by `limit` and `cursor`. Requests that start an operation \
                       answer 202 with `operation_id` and `Location`; `Prefer: wait=N` or `?wait=N` waits for it to finish. \
                       `?validate_only=true` validates a change without applying it; `Idempotency-Key` makes retries safe. \
                       Requests are rate-limited per user, and for tokens per user and organization: see `RateLimit-Policy`."
    ),
    components(schemas(api_types::Problem), responses(Failure)),
    modifiers(&Credentials),
    security(("token" = []), ("session" = []))
)]
struct Document;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("pilothouse_…").build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(session::COOKIE_NAME));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// Every route of REST v1 with its description.
pub fn routes() -> OpenApiRouter<AppState> {
    let nouns = OpenApiRouter::new()
        .merge(setup::routes())
        .merge(me::routes())
        .merge(sessions::routes())
        .merge(tokens::routes())
        .merge(organizations::routes())
        .merge(audit::routes())
        .merge(quota::routes())
        .merge(projects::routes())
        .merge(clusters::routes())
        .merge(kubeconfigs::routes())
        .merge(join_tokens::routes())
        .merge(node_pools::routes())
        .merge(nodes::routes())
        .merge(operations::routes())
        .merge(meta::routes());
    let mut all = OpenApiRouter::with_openapi(Document::openapi()).nest(ROOT, nouns);
    openapi::complete(all.get_openapi_mut());
    all
}
