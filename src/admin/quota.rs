//! `pilothouse admin quota`: how many of each resource an organization may have, and how many organizations a person.

use std::process::ExitCode;

use anyhow::{Result, bail};
use migrations::{Actor, Organization, QuotaHolder, QuotaUse, Resource, Store};

use super::{open, organization};
use crate::options::{Output, QuotaCommand, QuotaDefaultArgs, QuotaListArgs, QuotaSetArgs, QuotaUnsetArgs};

/// Runs one of the verbs.
pub async fn quota(command: QuotaCommand) -> Result<ExitCode> {
    match command {
        QuotaCommand::List(args) => list(args).await,
        QuotaCommand::Set(args) => set(args).await,
        QuotaCommand::Unset(args) => unset(args).await,
        QuotaCommand::Default(args) => set_default(args).await,
    }
}

/// A holder with what people call it.
struct Holder {
    id: String,
    name: String,
    quotas: QuotaHolder,
}

impl From<Organization> for Holder {
    fn from(row: Organization) -> Self {
        Self { id: row.id.to_string(), name: row.name.to_string(), quotas: row.id.into() }
    }
}

async fn list(args: QuotaListArgs) -> Result<ExitCode> {
    let (_, store) = open(&args.instance).await?;
    let holders = match &args.holder {
        Some(text) => vec![holder(&store, text).await?],
        None => store.identity().all_organizations().await?.into_iter().map(Holder::from).collect(),
    };
    let mut rows = Vec::new();
    for holder in holders {
        for quota in store.quotas().list(holder.quotas).await? {
            rows.push((holder.id.clone(), holder.name.clone(), quota));
        }
    }
    print(&rows, args.output);
    Ok(ExitCode::SUCCESS)
}

async fn set(args: QuotaSetArgs) -> Result<ExitCode> {
    let (_, store) = open(&args.instance).await?;
    let holder = holder(&store, &args.holder).await?;
    let quota = store.quotas().set(holder.quotas, args.resource, args.limit, Actor::System).await?;
    print(&[(holder.id, holder.name, quota)], Output::Text);
    Ok(ExitCode::SUCCESS)
}

async fn unset(args: QuotaUnsetArgs) -> Result<ExitCode> {
    let (_, store) = open(&args.instance).await?;
    let holder = holder(&store, &args.holder).await?;
    let quota = store.quotas().unset(holder.quotas, args.resource, Actor::System).await?;
    print(&[(holder.id, holder.name, quota)], Output::Text);
    Ok(ExitCode::SUCCESS)
}

async fn set_default(args: QuotaDefaultArgs) -> Result<ExitCode> {
    let (_, store) = open(&args.instance).await?;
    store.quotas().set_default(args.resource, args.limit, Actor::System).await?;
    let (limit, title) = (args.limit, args.resource.title());
    println!("Whoever has no limit of their own may have {limit} {title}");
    Ok(ExitCode::SUCCESS)
}

/// The organization of an id or name, or the person of an e-mail address.
async fn holder(store: &Store, text: &str) -> Result<Holder> {
    if text.contains('@') {
        let Some(person) = store.identity().user_by_email(text).await? else {
            bail!("nobody here has the address {text}")
        };
        let (id, quotas) = (person.id.to_string(), QuotaHolder::Person(person.id));
        return Ok(Holder { id, name: person.email, quotas });
    }
    organization(store, text).await.map(Holder::from)
}

fn print(rows: &[(String, String, QuotaUse)], output: Output) {
    match output {
        Output::Text => print!("{}", table(rows)),
        Output::Json => {
            let item = |(id, name, quota): &(String, String, QuotaUse)| {
                let (resource, used, limit) = (quota.resource.to_string(), quota.used, quota.limit);
                serde_json::json!({"holder": id, "name": name, "resource": resource, "used": used, "limit": limit})
            };
            println!("{}", serde_json::json!({"items": rows.iter().map(item).collect::<Vec<_>>()}));
        }
    }
}

/// Columns wide enough for what is in them.
fn table(rows: &[(String, String, QuotaUse)]) -> String {
    let width = rows.iter().map(|(_, name, _)| name.chars().count()).max().unwrap_or_default().max(4);
    let resources = Resource::ALL.iter().map(|resource| resource.to_string().len()).max().unwrap_or_default();
    let line = |name: &str, resource: &str, rest: [&str; 3]| {
        let [used, limit, id] = rest;
        format!("{name:width$}  {resource:resources$}  {used:>6}  {limit:>7}  {id}\n")
    };
    let mut text = line("NAME", "RESOURCE", ["USED", "LIMIT", "ID"]);
    for (id, name, quota) in rows {
        let (used, limit) = (quota.used.to_string(), quota.limit.to_string());
        text.push_str(&line(name, &quota.resource.to_string(), [&used, &limit, id]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let quota = QuotaUse { resource: Resource::Nodes, used: 7, limit: 100 };
        let text = table(&[("org_1".into(), "default".into(), quota)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME     RESOURCE         USED    LIMIT  ID");
        assert_eq!(lines[1], "default  nodes               7      100  org_1");
    }
}
