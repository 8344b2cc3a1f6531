//! `pilothouse node`: single machines, and the line that makes a machine a node.

use std::time::Duration;

use api_types::{CreateJoinToken, CreatedJoinToken, Node};
use clap::{Args, Subcommand};

use super::{InCluster, Removal, confirm};
use crate::client::Call;
use crate::error::Result;
use crate::progress::{Wait, follow};
use crate::session::Session;
use crate::{Format, Noun, duration, output};

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the nodes of a cluster
    List(InCluster),
    /// Show a node
    Get(Target),
    /// Remove a node; its machine is reset and must join again with a new token
    Remove {
        /// The node.
        #[command(flatten)]
        target: Target,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
        /// Do not wait for machines, disruption budgets or finalizers. Requires the admin role
        #[arg(long)]
        force: bool,
        /// Wait until it is deleted.
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the join command to run on a machine as root; it contains a secret
    JoinCommand(Join),
}

/// One node.
#[derive(Args, Debug)]
pub struct Target {
    /// ID, or name together with --cluster
    pub node: String,
    /// Name or ID
    #[arg(long)]
    pub cluster: Option<String>,
}

/// What the line is good for.
#[derive(Args, Debug)]
pub struct Join {
    /// The cluster to join.
    #[command(flatten)]
    pub cluster: InCluster,
    /// Pool of kind byo, by name or ID [default: the only one; created if there is none]
    #[arg(long)]
    pub pool: Option<String>,
    /// Token lifetime: 15m, 24h; at most 30d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub expires_in: Option<Duration>,
    /// Maximum number of machines, 1 to 100 [default: 1]
    #[arg(long, value_name = "N")]
    pub max_uses: Option<u32>,
    /// Print cloud-init user data instead
    #[arg(long)]
    pub cloud_init: bool,
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::List(cluster) => {
            let path = format!("/clusters/{}/nodes", session.cluster(&cluster.reference()).await?.id);
            session.output.items(session.client.list::<Node>(&path, &[]).await?)
        }
        Verb::Get(target) => session.output.item(&session.node(&target.node, target.cluster.as_deref()).await?),
        Verb::Remove { target, yes, force, wait } => remove(&session, &target, Removal { yes, force, wait }).await,
        Verb::JoinCommand(join) => join_command(&session, join).await,
    }
}

async fn join_command(session: &Session, join: Join) -> Result<()> {
    let cluster = session.cluster(&join.cluster.reference()).await?;
    let request = CreateJoinToken {
        node_pool: join.pool,
        expires_in_seconds: join.expires_in.map(|time| time.as_secs()),
        max_uses: join.max_uses,
    };
    let call = Call::post(format!("/clusters/{}/join-tokens", cluster.id), &request)?;
    let created: CreatedJoinToken = session.client.send(call).await?;
    match session.output {
        Format::Table if join.cloud_init => output::print(&created.commands.cloud_init),
        Format::Table => output::print(&format!("{}\n", created.commands.shell.trim_end())),
        Format::Name => output::print(&format!("{}\n", created.join_token.id)),
        other => other.document(&created),
    }
}

async fn remove(session: &Session, target: &Target, how: Removal) -> Result<()> {
    let node = session.node(&target.node, target.cluster.as_deref()).await?;
    confirm(how.yes, "Remove node", &node.name)?;
    let node: Node = session.client.send(how.call(format!("/nodes/{}", node.id))).await?;
    let (Some(bound), Some(operation)) = (how.wait.wait, &node.operation_id) else {
        return session.output.item(&node);
    };
    session.progress.say(&format!("Removing node {} ({operation})", node.name));
    follow(&session.client, &session.progress, operation, bound).await?;
    session.progress.say(&format!("Node {} removed", node.name));
    Ok(())
}
