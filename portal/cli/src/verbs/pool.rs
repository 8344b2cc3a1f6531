//! `pilothouse pool`: named groups of machines.

use api_types::{CreateNodePool, NodePool, PatchNodePool};
use clap::{Args, Subcommand};

use super::confirm;
use crate::Noun;
use crate::client::Call;
use crate::error::Result;
use crate::progress::{Wait, follow};
use crate::session::Session;

/// What can be done with node pools.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make one
    Create(Create),
    /// List those of a cluster
    List {
        /// Name or id
        #[arg(long)]
        cluster: String,
    },
    /// Show one
    Get(Target),
    /// Change how many machines it has
    Scale {
        /// The pool.
        #[command(flatten)]
        target: Target,
        /// Machines to run
        #[arg(long, value_name = "N")]
        count: u32,
        /// Stay until it is so.
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete one, with its machines
    Delete {
        /// The pool.
        #[command(flatten)]
        target: Target,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Stay until it is gone.
        #[command(flatten)]
        wait: Wait,
    },
}

/// One pool.
#[derive(Args, Debug)]
pub struct Target {
    /// Id, or name together with --cluster
    pub pool: String,
    /// Name or id
    #[arg(long)]
    pub cluster: Option<String>,
}

/// What a new pool is like.
#[derive(Args, Debug)]
pub struct Create {
    /// Small letters, digits and dashes
    pub name: String,
    /// Cluster it belongs to, by name or id
    #[arg(long)]
    pub cluster: String,
    /// local (machine containers beside the platform) or byo (machines you bring)
    #[arg(long)]
    pub kind: String,
    /// Machines to run; for local only
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
    /// Stay until every machine is ready.
    #[command(flatten)]
    pub wait: Wait,
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::Create(create) => make(&session, create).await,
        Verb::List { cluster } => {
            let path = format!("/clusters/{}/node-pools", session.cluster(&cluster).await?.id);
            session.output.items(session.client.list::<NodePool>(&path, &[]).await?)
        }
        Verb::Get(target) => session.output.item(&find(&session, &target).await?),
        Verb::Scale { target, count, wait } => {
            let path = format!("/node-pools/{}", find(&session, &target).await?.id);
            let pool = session.client.send(Call::patch(path, &PatchNodePool { count: Some(count) })?).await?;
            settle(&session, pool, wait).await
        }
        Verb::Delete { target, yes, wait } => delete(&session, &target, (yes, wait)).await,
    }
}

async fn find(session: &Session, target: &Target) -> Result<NodePool> {
    session.pool(&target.pool, target.cluster.as_deref()).await
}

async fn make(session: &Session, create: Create) -> Result<()> {
    let cluster = session.cluster(&create.cluster).await?;
    let body = CreateNodePool { name: create.name, kind: create.kind, count: create.count };
    let call = Call::post(format!("/clusters/{}/node-pools", cluster.id), &body)?;
    let pool = session.client.send(call).await?;
    settle(session, pool, create.wait).await
}

/// Waits if asked to, then shows the pool as it is.
async fn settle(session: &Session, mut pool: NodePool, wait: Wait) -> Result<()> {
    if let (Some(bound), Some(operation)) = (wait.wait, &pool.operation_id) {
        session.progress.say(&format!("Working on pool {} ({operation})", pool.name));
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
    session.progress.say(&format!("Pool {} is gone", pool.name));
    Ok(())
}
