//! `pilothouse audit`: who did what in an organization.

use std::time::Duration;

use api_types::{AuditEntry, List};
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::Call;
use crate::error::{CliError, Result};
use crate::session::Session;
use crate::{Noun, duration};

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List entries, newest first; requires the admin role
    List(Wanted),
}

/// Which entries.
#[derive(Args, Debug)]
pub struct Wanted {
    /// Action (cluster.create) or its first word (cluster, user, token)
    #[arg(long)]
    pub action: Option<String>,
    /// Actor: an ID, a member's e-mail address, system or anonymous
    #[arg(long, value_name = "WHO")]
    pub actor: Option<String>,
    /// ID of the object that was acted on
    #[arg(long, value_name = "ID")]
    pub target: Option<String>,
    /// Start: a time (2026-01-31T09:30:00Z), a day (2026-01-31) or an age (24h, 7d)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<String>,
    /// End, exclusive: in the same forms
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Maximum number of entries
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// Entries asked for at once; the server's own upper bound.
const PAGE: usize = 200;

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    let Verb::List(wanted) = noun.verb;
    session.output.items(entries(&session, wanted).await?)
}

async fn entries(session: &Session, wanted: Wanted) -> Result<Vec<AuditEntry>> {
    let path = format!("/organizations/{}/audit", session.organization().await?.organization_id);
    let filters = [
        ("action", wanted.action),
        ("actor", wanted.actor),
        ("target", wanted.target),
        ("since", wanted.since),
        ("until", wanted.until),
    ];
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    let most = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    loop {
        let mut call = Call::get(&path).query("limit", (most - items.len()).min(PAGE).to_string());
        for (name, value) in &filters {
            if let Some(value) = value {
                call = call.query(name, value);
            }
        }
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        let page: List<AuditEntry> = session.client.send(call).await?;
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() || items.len() >= most {
            return Ok(items);
        }
    }
}

/// A time as the portal takes it.
fn moment(text: &str) -> std::result::Result<String, String> {
    if text.contains('-') {
        return Ok(text.to_owned());
    }
    let ago: Duration = duration::parse(text)?;
    let time = OffsetDateTime::now_utc() - ago;
    time.format(&Rfc3339).map_err(|error| CliError::usage(error.to_string(), "").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_either_way() {
        assert_eq!(moment("2026-01-31").unwrap(), "2026-01-31");
        assert!(moment("24h").unwrap().ends_with('Z'));
        assert!(moment("yesterday").is_err());
    }
}
