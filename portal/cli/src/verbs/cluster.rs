//! `pilothouse cluster`: Kubernetes control planes.

use std::time::Instant;

use api_types::{Cluster, CreateCluster, CreateNodePool, KubernetesVersion, List, NodePool};
use clap::{Args, Subcommand};

use super::{Removal, confirm};
use crate::Noun;
use crate::client::Call;
use crate::error::Result;
use crate::progress::{Wait, follow};
use crate::session::Session;

/// What can be done with clusters.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a cluster
    Create(Create),
    /// List clusters in the project
    List,
    /// Show a cluster
    Get {
        /// Name or ID
        cluster: String,
    },
    /// Delete a cluster and everything in it
    Delete {
        /// Name or ID
        cluster: String,
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
    /// List the available Kubernetes versions
    Versions,
}

/// What a new cluster is like.
#[derive(Args, Debug)]
pub struct Create {
    /// Lowercase letters, digits and hyphens; immutable
    pub name: String,
    /// Kubernetes version, such as 1.36.3 [default: the recommended one]
    #[arg(long = "kubernetes-version", visible_alias = "version", value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// Pod CIDR; immutable [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<String>,
    /// Service CIDR; immutable [default: 10.96.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Control plane replicas, 1 to 5 [default: 1]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Node pool to create with the cluster: N local machines, or byo (bring your own machines), and its Kubernetes version if
    /// it is not the cluster's, such as web=3@1.35.4; may be repeated
    #[arg(long = "pool", value_name = "NAME=N|byo[@VERSION]", value_parser = pool)]
    pub pools: Vec<CreateNodePool>,
    /// Validate the request without creating anything
    #[arg(long, conflicts_with = "wait")]
    pub validate_only: bool,
    /// Wait until it is ready.
    #[command(flatten)]
    pub wait: Wait,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn pool(text: &str) -> Result<CreateNodePool, String> {
    let (name, machines) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=N or NAME=byo"))?;
    let (machines, version) = match machines.split_once('@') {
        Some((machines, version)) => (machines, Some(version.to_owned())),
        None => (machines, None),
    };
    let (kind, count) = match machines {
        "byo" => ("byo", None),
        count => ("local", Some(count.parse().map_err(|_| format!("{count:?} is not a number of machines or byo"))?)),
    };
    Ok(CreateNodePool { name: name.to_owned(), kind: kind.to_owned(), count, version })
}

/// Runs one verb.
pub async fn run(noun: Noun<Verb>) -> Result<()> {
    let session = Session::open(&noun.globals)?;
    match noun.verb {
        Verb::Create(create) => make(&session, create).await,
        Verb::List => {
            let path = format!("/projects/{}/clusters", session.project().await?.id);
            session.output.items(session.client.list::<Cluster>(&path, &[]).await?)
        }
        Verb::Get { cluster } => session.output.item(&session.cluster(&cluster).await?),
        Verb::Delete { cluster, yes, force, wait } => delete(&session, &cluster, Removal { yes, force, wait }).await,
        Verb::Versions => {
            // All of them in one answer: this list has no pages.
            let versions: List<KubernetesVersion> = session.client.send(Call::get("/kubernetes-versions")).await?;
            session.output.items(versions.items)
        }
    }
}

async fn make(session: &Session, create: Create) -> Result<()> {
    let path = format!("/projects/{}/clusters", session.project().await?.id);
    let body = CreateCluster {
        name: create.name,
        version: create.kubernetes_version,
        pod_cidr: create.pod_cidr,
        service_cidr: create.service_cidr,
        replicas: create.replicas,
        labels: create.labels.into_iter().collect(),
        node_pools: create.pools,
    };
    let call = Call::post(path, &body)?.validate_only(create.validate_only);
    let mut cluster: Cluster = session.client.send(call).await?;
    if create.validate_only {
        session.progress.say(&format!("Cluster {} passed validation; nothing was changed", cluster.name));
        return Ok(());
    }
    if let Some(bound) = create.wait.wait {
        let until = Instant::now() + bound;
        follow_creation(session, &cluster, until).await?;
        if !body.node_pools.is_empty() {
            follow_pools(session, &cluster, until).await?;
        }
        cluster = session.cluster(&cluster.id).await?;
    }
    session.output.item(&cluster)
}

async fn follow_creation(session: &Session, cluster: &Cluster, until: Instant) -> Result<()> {
    let Some(operation) = &cluster.operation_id else { return Ok(()) };
    session.progress.say(&format!("Creating cluster {} ({operation})", cluster.name));
    follow(&session.client, &session.progress, operation, until.saturating_duration_since(Instant::now()))
        .await
        .map(drop)
}

async fn follow_pools(session: &Session, cluster: &Cluster, until: Instant) -> Result<()> {
    let path = format!("/clusters/{}/node-pools", cluster.id);
    for pool in session.client.list::<NodePool>(&path, &[]).await? {
        let Some(operation) = &pool.operation_id else { continue };
        session.progress.say(&format!("Creating pool {} ({operation})", pool.name));
        follow(&session.client, &session.progress, operation, until.saturating_duration_since(Instant::now())).await?;
    }
    Ok(())
}

async fn delete(session: &Session, reference: &str, how: Removal) -> Result<()> {
    let cluster = session.cluster(reference).await?;
    confirm(how.yes, "Delete cluster", &cluster.name)?;
    let cluster: Cluster = session.client.send(how.call(format!("/clusters/{}", cluster.id))).await?;
    let (Some(bound), Some(operation)) = (how.wait.wait, &cluster.operation_id) else {
        return session.output.item(&cluster);
    };
    session.progress.say(&format!("Deleting cluster {} ({operation})", cluster.name));
    follow(&session.client, &session.progress, operation, bound).await?;
    session.progress.say(&format!("Cluster {} deleted", cluster.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_pool_is_read() {
        let read = |text: &str| pool(text).map(|pool| (pool.name, pool.kind, pool.count, pool.version));
        let version = || Some("1.35.4".to_owned());
        assert_eq!(read("web=3"), Ok(("web".into(), "local".into(), Some(3), None)));
        assert_eq!(read("web=3@1.35.4"), Ok(("web".into(), "local".into(), Some(3), version())));
        assert_eq!(read("edge=byo@1.35.4"), Ok(("edge".into(), "byo".into(), None, version())));
        for wrong in ["web", "web=", "web=x", "web=@1.35.4"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
