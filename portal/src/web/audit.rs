//! The audit log of an organization.

use api_types::AuditEntry;
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;

use super::form::Refusal;
use super::shell::{PageContext, Shell};
use super::{assets, render, ui};
use crate::app;
use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::error::Error;
use crate::error_response::UNRESERVED;
use crate::extract::AuditQuery;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    shell: Shell,
    id: String,
    organization: String,
    /// All organizations whose log may be read: id and name.
    others: Vec<(String, String)>,
    typed: Typed,
    refusal: Refusal,
    rows: Vec<Row>,
    /// Where older entries are.
    older: Option<String>,
}

struct Row {
    id: String,
    when: String,
    action: String,
    detail: String,
    who: String,
    target: String,
    address: String,
}

/// What was typed.
#[derive(Clone, Default, Deserialize)]
pub struct Typed {
    #[serde(default)]
    action: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    cursor: String,
}

/// The organizations whose log a caller may read: id and name.
pub fn readable(actor: &Actor) -> impl Iterator<Item = (String, String)> + '_ {
    let known = actor.memberships.iter().map(|(organization, _)| organization);
    let readable = known.filter(|known| policy::may(actor, Action::ReadAuditLog, *known).is_ok());
    readable.map(|organization| (organization.id.to_string(), organization.display_name.clone()))
}

/// `GET /audit`: the log of the first organization that has one for the caller.
pub async fn first(context: PageContext) -> Result<Response, Error> {
    let mine = context.actor.organizations().next().map(|id| id.to_string());
    let id = readable(&context.actor).next().map(|(id, _)| id).or(mine);
    let id = id.ok_or(Error::NotFound { what: "organization" })?;
    Ok(Redirect::to(&format!("/organizations/{id}/audit")).into_response())
}

/// `GET /organizations/{organization}/audit`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Query(typed): Query<Typed>,
) -> Result<Response, Error> {
    let path = format!("/organizations/{id}/audit");
    let (list, refusal) = match wanted(&typed).parse(&path) {
        Ok((filter, paging)) => {
            (app::audit::list(&state, &context.actor, &id, (filter, &paging)).await?, Refusal::default())
        }
        Err(error) => {
            // Whoever may not read the log learns that, whatever was typed.
            let (filter, paging) = AuditQuery { limit: Some(1), ..AuditQuery::default() }.parse(&path)?;
            let list = app::audit::list(&state, &context.actor, &id, (filter, &paging)).await?;
            (api_types::List { items: Vec::new(), ..list }, Refusal::of(error)?)
        }
    };
    let organization = app::organizations::get(&state, &context.actor, &id).await?.display_name;
    let older = list.next_cursor.filter(|_| refusal.general().is_none()).map(|cursor| older(&path, &typed, &cursor));
    let (others, rows) = (readable(&context.actor).collect(), list.items.into_iter().map(row).collect());
    let page = Page { shell: context.shell, id, organization, others, typed, refusal, rows, older };
    render::page_as(page.refusal.status(), &page)
}

fn wanted(typed: &Typed) -> AuditQuery {
    let given = |text: &str| Some(text.to_owned());
    AuditQuery {
        limit: None,
        cursor: given(&typed.cursor),
        action: given(&typed.action),
        actor: given(&typed.actor),
        target: None,
        since: given(&typed.since),
        until: given(&typed.until),
    }
}

fn older(path: &str, typed: &Typed, cursor: &str) -> String {
    let fields = [
        ("action", typed.action.as_str()),
        ("actor", &typed.actor),
        ("since", &typed.since),
        ("until", &typed.until),
        ("cursor", cursor),
    ];
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> =
        given.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, UNRESERVED))).collect();
    format!("{path}?{}", pairs.join("&"))
}

fn row(entry: AuditEntry) -> Row {
    let when = entry.created_at.replace_nanosecond(0).unwrap_or(entry.created_at).format(&Rfc3339).unwrap_or_default();
    Row {
        id: entry.id,
        when: when.replace('T', " ").replace('Z', ""),
        action: entry.action,
        detail: entry.detail,
        who: entry.actor_name.unwrap_or(entry.actor),
        target: entry.target,
        address: entry.address.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_entries_are_those_of_the_same_question() {
        let typed = Typed { actor: "ana+x@example.com".into(), since: "2026-01-31".into(), ..Typed::default() };
        let link = older("/organizations/org_1/audit", &typed, "AbC-_");
        assert_eq!(link, "/organizations/org_1/audit?actor=ana%2Bx%40example.com&since=2026-01-31&cursor=AbC-_");
    }
}
