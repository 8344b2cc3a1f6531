//! What only the operator may do, on the machine itself: whoever reads the data directory is the operator.

pub mod audit;
mod quota;
mod rotate;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use migrations::{Actor, ExposeSecret, NewToken, Organization, Role, Store};
use tenant_controlplane::id::OrganizationId;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::instance::{Instance, Record};
use crate::options::{AdminCommand, AdminTokenArgs, InstanceArgs, KekCommand, ResetPasswordArgs};
use crate::platform::sources::{database_url, kek};
use crate::ready;

/// Runs one of the operator's commands.
pub async fn admin(command: AdminCommand) -> Result<ExitCode> {
    match command {
        AdminCommand::Token(args) => token(args).await,
        AdminCommand::Env(args) => env(args).await,
        AdminCommand::SetupLink(args) => setup_link(args).await,
        AdminCommand::ResetPassword(args) => reset_password(args).await,
        AdminCommand::Audit(args) => audit::audit(args).await,
        AdminCommand::Kek(KekCommand::Rotate(args)) => rotate::rotate(args).await,
        AdminCommand::Quota(command) => quota::quota(command).await,
    }
}

/// What an instance is, and its memory.
pub async fn open(args: &InstanceArgs) -> Result<(Record, Store)> {
    let instance = Instance::new(&args.name, args.data_dir.clone())?;
    let record = instance.existing()?;
    let store =
        Store::connect(&database_url(&instance)?, kek(&instance, &record).await?).await.context("open the database")?;
    Ok((record, store))
}

async fn token(args: AdminTokenArgs) -> Result<ExitCode> {
    println!("{}", make_token(&args.instance, args.days).await?);
    Ok(ExitCode::SUCCESS)
}

async fn env(args: AdminTokenArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir.clone())?;
    let server = format!("https://{}", instance.existing()?.advertise);
    let ca_file = instance.path("ca.crt").display().to_string();
    let token = make_token(&args.instance, args.days).await?;
    let values = [("SERVER", server), ("CA_FILE", ca_file), ("TOKEN", token)];
    for (name, value) in values {
        println!("export PILOTHOUSE_{name}={}", quoted(&value));
    }
    Ok(ExitCode::SUCCESS)
}

/// One word for any POSIX shell (XCU 2.2.2).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A new token of the operator, good for `days`.
pub async fn make_token(args: &InstanceArgs, days: u16) -> Result<String> {
    let (_, store) = open(args).await?;
    let (user, organization) = store.identity().ensure_admin().await?;
    let wanted = NewToken {
        organization: organization.id,
        user: user.id,
        name: "operator".to_owned(),
        role: Role::Owner,
        expires_at: Some(OffsetDateTime::now_utc() + Duration::days(i64::from(days))),
        actor: Actor::System,
    };
    let (_, secret) = store.identity().create_token(wanted).await?;
    Ok(secret.expose_secret().to_owned())
}

async fn setup_link(args: InstanceArgs) -> Result<ExitCode> {
    let (record, store) = open(&args).await?;
    if !store.identity().setup_needed().await? {
        bail!("the owner account exists: a setup link would open nothing; see `pilothouse admin reset-password`");
    }
    let secret = store.identity().create_setup_token().await.context("create a setup link")?;
    let link = format!("http://{}/setup/{}", record.portal, secret.expose_secret());
    // The link that a running instance named opens nothing from now on.
    ready::set_link(&Instance::new(&args.name, args.data_dir)?, Some(link.clone()))?;
    println!("{link}");
    Ok(ExitCode::SUCCESS)
}

/// The link goes to the person by a way that nobody else reads; the operator never learns the password.
async fn reset_password(args: ResetPasswordArgs) -> Result<ExitCode> {
    let (record, store) = open(&args.instance).await?;
    let made = store.identity().create_password_reset(&args.email).await;
    let (secret, end) = made.with_context(|| format!("make a link for {}", args.email))?;
    println!("https://{}/reset/{}", record.advertise, secret.expose_secret());
    let end = end.replace_nanosecond(0).unwrap_or(end).format(&Rfc3339)?;
    eprintln!("It sets the password once, until {end}, and signs out every browser of {}.", args.email);
    Ok(ExitCode::SUCCESS)
}

/// The organization of an id or a name. Tenants may use the same name.
pub async fn organization(store: &Store, text: &str) -> Result<Organization> {
    if let Ok(id) = text.parse::<OrganizationId>() {
        return Ok(store.identity().organization(id).await?);
    }
    let mut named = store.identity().organizations_named(text).await?;
    match named.len() {
        0 => bail!("no organization is called {text}; `pilothouse admin quota list` names them all"),
        1 => Ok(named.remove(0)),
        _ => {
            let ids: Vec<String> = named.iter().map(|row| row.id.to_string()).collect();
            bail!("several organizations are called {text}: use {}", ids.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["/var/lib/it's $HOME", "a b;`c`\"", ""] {
            let said = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(text))]).output();
            assert_eq!(String::from_utf8(said.unwrap().stdout).unwrap(), text);
        }
    }
}
