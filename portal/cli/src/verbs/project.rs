//! `pilothouse project`: projects.

use api_types::{CreateProject, Project};
use clap::Subcommand;

use crate::Noun;
use crate::client::Call;
use crate::error::Result;
use crate::session::Session;

/// What can be done with projects.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List projects in the organization
    List,
    /// Show the current project, or the one named by --project
    Get,
    /// Create a project
    Create {
        /// Lowercase letters, digits and hyphens
        name: String,
    },
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    if let Verb::Get = noun.verb {
        return session.output.item(&session.project().await?);
    }
    let path = format!("/organizations/{}/projects", session.organization().await?.organization_id);
    match noun.verb {
        Verb::Create { name } => {
            let call = Call::post(path, &CreateProject { name, display_name: None })?;
            session.output.item(&session.client.send::<Project>(call).await?)
        }
        Verb::List | Verb::Get => session.output.items(session.client.list::<Project>(&path, &[]).await?),
    }
}
