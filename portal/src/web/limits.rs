//! What one's organizations have, and may have.

use api_types::{Quota, QuotaUse};
use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::shell::{PageContext, Shell};
use super::{assets, render, ui};
use crate::app;
use crate::error::Error;
use crate::state::AppState;
use crate::text::capitalized;

#[derive(Template)]
#[template(path = "limits.html")]
struct Page {
    shell: Shell,
    organizations: Vec<Limits>,
    /// Whether they may set limits.
    operator: bool,
}

struct Limits {
    id: String,
    name: String,
    rows: Vec<Row>,
}

struct Row {
    title: String,
    used: u64,
    limit: u64,
    status: ui::Status,
}

/// `GET /limits`
pub async fn show(State(state): State<AppState>, context: PageContext) -> Result<Response, Error> {
    let mut organizations = Vec::new();
    for (organization, _) in &context.actor.memberships {
        let quota = app::organizations::quota(&state, &context.actor, &organization.id.to_string()).await?;
        organizations.push(limits(organization.display_name.clone(), quota));
    }
    let operator = app::quotas::is_operator(&state, &context.actor).await?;
    render::page(&Page { shell: context.shell, organizations, operator })
}

fn limits(name: String, quota: Quota) -> Limits {
    Limits { id: quota.organization_id, name, rows: quota.resources.into_iter().map(row).collect() }
}

fn row(quota: QuotaUse) -> Row {
    let title = capitalized(&quota.resource.replace('_', " ").replace("api ", "API "));
    let (used, limit) = (quota.used, quota.limit);
    Row { title, used, limit, status: ui::Status::quota(used, limit) }
}
