//! Pages for people: server-rendered, readable without script, live by htmx.
//!
//! [`admission`] stands before every page of a person: who, and how often.
//! One file per page, its template struct above its handler and its template under `templates/` with the same name.
//! Reading is GET, every change is a form that posts and is answered with 303; only what is shown once (a kubeconfig, a
//! join line) is the answer of its own POST. Pages call [`mod@crate::app`], never the store.

mod account;
mod admission;
mod assets;
mod audit;
mod clusters;
mod create;
mod delete;
mod form;
mod join;
mod kubeconfigs;
mod limits;
pub(crate) mod live;
mod local;
mod nodes;
mod overview;
mod pools;
mod preferences;
mod problem;
mod quotas;
mod render;
mod reset;
mod setup;
mod shell;
mod signin;
#[cfg(test)]
mod state_words;
mod tokens;
mod ui;
mod view_models;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{Redirect, Response};
use axum::routing::{get, post};

use crate::state::AppState;

/// Every page, fragment and static file. Mounted at the root, beside `/api`.
pub fn routes(state: &AppState) -> Router<AppState> {
    let pages = open_pages()
        .merge(pages_of_people().route_layer(from_fn_with_state(state.clone(), admission::admit)))
        .layer(axum::middleware::map_response(async |response| render::page_headers(response)));
    pages.route("/static/{name}", get(assets::serve))
}

/// Pages for which nobody has to be signed in.
fn open_pages() -> Router<AppState> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/clusters") }))
        .route("/setup/{token}", get(setup::show).post(setup::submit))
        .route("/reset/{token}", get(reset::show).post(reset::submit))
        .route("/signin", get(signin::show).post(signin::submit))
        .route("/signout", post(signin::sign_out))
        .route("/preferences/theme", post(preferences::theme))
}

/// Everything else: [`admission`] stands before all of it.
fn pages_of_people() -> Router<AppState> {
    Router::new()
        .route("/account", get(account::show))
        .route("/account/password", post(account::password))
        .route("/account/sessions/end", post(account::end_others))
        .route("/account/sessions/{session}/end", post(account::end))
        .route("/audit", get(audit::first))
        .route("/organizations/{organization}/audit", get(audit::show))
        .route("/tokens", get(tokens::show).post(tokens::create))
        .route("/tokens/{token}/revoke", post(tokens::revoke))
        .route("/limits", get(limits::show))
        .route("/operator/quotas", get(quotas::list))
        .route("/operator/quotas/{organization}", get(quotas::show).post(quotas::set))
        .merge(cluster_pages())
}

fn cluster_pages() -> Router<AppState> {
    Router::new()
        .route("/clusters", get(clusters::list).post(create::submit))
        .route("/clusters/live", get(clusters::live))
        .route("/clusters/new", get(create::show))
        .route("/clusters/{cluster}", get(overview::show))
        .route("/clusters/{cluster}/live", get(overview::live))
        .route("/clusters/{cluster}/delete", get(delete::show).post(delete::submit))
        .route("/clusters/{cluster}/kubeconfigs", get(kubeconfigs::show).post(kubeconfigs::issue))
        .route("/clusters/{cluster}/kubeconfigs/{kubeconfig}/revoke", post(kubeconfigs::revoke))
        .route("/clusters/{cluster}/join", get(join::show).post(join::submit))
        .route("/clusters/{cluster}/join/live", get(join::live))
        .route("/clusters/{cluster}/join/{token}/revoke", post(join::revoke))
        .route("/clusters/{cluster}/pools/new", get(pools::new))
        .route("/clusters/{cluster}/pools", post(pools::create))
        .route("/pools/{pool}", get(pools::show))
        .route("/pools/{pool}/scale", post(pools::scale))
        .route("/pools/{pool}/delete", post(pools::delete))
        .route("/nodes/{node}", get(nodes::show))
        .route("/nodes/{node}/remove", post(nodes::remove))
}

/// The page for an error: what happened, who must act, the next step, and the request id to quote.
///
/// The caller sets the status.
pub fn error_page(problem: &api_types::Problem) -> Response {
    problem::page(problem)
}
