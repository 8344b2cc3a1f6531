//! `pilothouse org`: organizations.

use api_types::{CreateOrganization, Organization, Quota};
use clap::Subcommand;

use crate::Noun;
use crate::client::Call;
use crate::error::Result;
use crate::session::Session;

/// What can be done with organizations.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List your organizations
    List,
    /// Show an organization
    Get {
        /// Name or ID
        org: String,
    },
    /// Show usage and quota of each resource
    Quota {
        /// Name or ID [default: the one in use]
        org: Option<String>,
    },
    /// Create an organization; you become its owner
    Create {
        /// Lowercase letters, digits and hyphens
        name: String,
        /// Display name [default: the name]
        #[arg(long)]
        display_name: Option<String>,
    },
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::List => session.output.items(session.client.list::<Organization>("/organizations", &[]).await?),
        Verb::Get { org } => session.output.item(&session.organization_named(&org).await?),
        Verb::Quota { org } => {
            let id = match org {
                Some(org) => session.organization_named(&org).await?.id,
                None => session.organization().await?.organization_id,
            };
            let quota: Quota = session.client.send(Call::get(format!("/organizations/{id}/quota"))).await?;
            session.output.items(quota.resources)
        }
        Verb::Create { name, display_name } => {
            let call = Call::post("/organizations", &CreateOrganization { name, display_name })?;
            session.output.item(&session.client.send::<Organization>(call).await?)
        }
    }
}
