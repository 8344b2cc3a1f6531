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
    /// List yours
    List,
    /// Show one
    Get {
        /// Name or id
        org: String,
    },
    /// Show what it has of each resource, and how many it may have
    Quota {
        /// Name or id [default: the one in use]
        org: Option<String>,
    },
    /// Make one; you become its owner
    Create {
        /// Small letters, digits and dashes
        name: String,
        /// The name shown to people
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
