//! `pilothouse operation`: work that takes a while.

use std::time::Duration;

use api_types::Operation;
use clap::Subcommand;

use crate::client::Call;
use crate::error::Result;
use crate::progress::follow;
use crate::session::Session;
use crate::{Noun, duration};

/// What can be done with operations.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the operations of a cluster, a node pool or a node, newest first
    List {
        /// ID, or name of a cluster; with --cluster, name of a node pool or a node in it
        #[arg(long)]
        target: String,
        /// Name or ID
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Show an operation
    Get {
        /// ID
        operation: String,
    },
    /// Wait for an operation to finish and show its steps
    Wait {
        /// ID
        operation: String,
        /// Timeout
        #[arg(long, value_name = "TIME", default_value = "20m", value_parser = duration::parse)]
        timeout: Duration,
    },
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::List { target, cluster } => {
            let target = session.target_id(&target, cluster.as_deref()).await?;
            session.output.items(session.client.list::<Operation>("/operations", &[("target", target)]).await?)
        }
        Verb::Get { operation } => {
            session.output.item(&session.client.send::<Operation>(Call::get(format!("/operations/{operation}"))).await?)
        }
        Verb::Wait { operation, timeout } => {
            let ended = follow(&session.client, &session.progress, &operation, timeout).await?;
            session.output.item(&ended)
        }
    }
}
