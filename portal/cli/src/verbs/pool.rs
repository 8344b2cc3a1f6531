//! `pilothouse pool`: named groups of machines.

use api_types::{CreateNodePool, NodePool, PatchNodePool};
use clap::{Args, Subcommand};

use super::{InCluster, confirm};
use crate::Noun;
use crate::client::Call;
use crate::error::Result;
use crate::progress::{Wait, follow};
use crate::session::Session;

/// What can be done with node pools.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a node pool
    Create(Create),
    /// List the node pools of a cluster
    List(InCluster),
    /// Show a node pool
    Get(Target),
    /// Change the number of machines
    Scale {
        /// The pool.
        #[command(flatten)]
        target: Target,
        /// Number of machines
        #[arg(long, value_name = "N")]
        count: u32,
        /// Wait until the change is applied.
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete a node pool and its machines
    Delete {
        /// The pool.
        #[command(flatten)]
        target: Target,
        /// Skip the confirmation prompt
        #[arg(long, short)]
        yes: bool,
        /// Wait until it is deleted.
        #[command(flatten)]
        wait: Wait,
    },
}

/// One pool.
#[derive(Args, Debug)]
pub struct Target {
    /// ID, or name together with --cluster
    pub pool: String,
    /// Name or ID
    #[arg(long)]
    pub cluster: Option<String>,
}

/// What a new pool is like.
#[derive(Args, Debug)]
pub struct Create {
    /// Lowercase letters, digits and hyphens
    pub name: String,
    /// Cluster name or ID
    #[arg(long)]
    pub cluster: String,
    /// local (containers on the platform host) or byo (bring your own machines)
    #[arg(long)]
    pub kind: String,
    /// Number of machines; for local only [default: 1]
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
    /// Kubernetes version of the nodes; at most three minor versions older than the cluster's [default: the cluster's]
    #[arg(long, visible_alias = "kubernetes-version")]
    pub version: Option<String>,
    /// Wait until every machine is ready.
    #[command(flatten)]
    pub wait: Wait,
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::Create(create) => make(&session, create).await,
        Verb::List(cluster) => {
            let path = format!("/clusters/{}/node-pools", session.cluster(&cluster.reference()).await?.id);
            session.output.items(session.client.list::<NodePool>(&path, &[]).await?)
        }
        Verb::Get(target) => session.output.item(&find(&session, &target).await?),
        Verb::Scale { target, count, wait } => {
            let path = format!("/node-pools/{}", find(&session, &target).await?.id);
            let pool = session.client.send(Call::patch(path, &PatchNodePool { count: Some(count) })?).await?;
            settle(&session, pool, "Scaling", wait).await
        }
        Verb::Delete { target, yes, wait } => delete(&session, &target, (yes, wait)).await,
    }
}

async fn find(session: &Session, target: &Target) -> Result<NodePool> {
    session.pool(&target.pool, target.cluster.as_deref()).await
}

async fn make(session: &Session, create: Create) -> Result<()> {
    let cluster = session.cluster(&create.cluster).await?;
    let Create { name, kind, count, version, wait, .. } = create;
    let body = CreateNodePool { name, kind, count, version };
    let call = Call::post(format!("/clusters/{}/node-pools", cluster.id), &body)?;
    let pool = session.client.send(call).await?;
    settle(session, pool, "Creating", wait).await
}

/// Waits if asked to, saying what is being done, then shows the pool as it is.
async fn settle(session: &Session, mut pool: NodePool, action: &str, wait: Wait) -> Result<()> {
    if let (Some(bound), Some(operation)) = (wait.wait, &pool.operation_id) {
        session.progress.say(&format!("{action} pool {} ({operation})", pool.name));
        follow(&session.client, &session.progress, operation, bound).await?;
        pool = session.pool(&pool.id, None).await?;
    }
    session.output.item(&pool)
}

async fn delete(session: &Session, target: &Target, (yes, wait): (bool, Wait)) -> Result<()> {
    let pool = find(session, target).await?;
    confirm(yes, "Delete pool", &pool.name)?;
    let pool: NodePool = session.client.send(Call::delete(format!("/node-pools/{}", pool.id))).await?;
    let (Some(bound), Some(operation)) = (wait.wait, &pool.operation_id) else {
        return session.output.item(&pool);
    };
    session.progress.say(&format!("Deleting pool {} ({operation})", pool.name));
    follow(&session.client, &session.progress, operation, bound).await?;
    session.progress.say(&format!("Pool {} deleted", pool.name));
    Ok(())
}
