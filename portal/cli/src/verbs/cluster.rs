//! `pilothouse cluster`: Kubernetes control planes.

use api_types::{Cluster, CreateCluster, KubernetesVersion};
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
    /// Make one
    Create(Create),
    /// List those of the project
    List,
    /// Show one
    Get {
        /// Name or id
        cluster: String,
    },
    /// Delete one, with everything in it
    Delete {
        /// Name or id
        cluster: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Wait for nothing that may never come: machines, disruption budgets, finalizers. Takes the role admin
        #[arg(long)]
        force: bool,
        /// Stay until it is gone.
        #[command(flatten)]
        wait: Wait,
    },
    /// List the Kubernetes versions on offer
    Versions,
}

/// What a new cluster is like.
#[derive(Args, Debug)]
pub struct Create {
    /// Small letters, digits and dashes; cannot be changed later
    pub name: String,
    /// Kubernetes version; the recommended one when left out. Written like 1.36.3
    #[arg(long = "kubernetes-version", visible_alias = "version", value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// Range of pod addresses; cannot be changed later
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<String>,
    /// Range of service addresses; cannot be changed later
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Copies of the control plane
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// Label, as often as needed
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Only check whether it would work, and make nothing
    #[arg(long, conflicts_with = "wait")]
    pub validate_only: bool,
    /// Stay until it answers.
    #[command(flatten)]
    pub wait: Wait,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
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
            session.output.items(session.client.list::<KubernetesVersion>("/kubernetes-versions", &[]).await?)
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
    };
    let call = Call::post(path, &body)?.validate_only(create.validate_only);
    let mut cluster: Cluster = session.client.send(call).await?;
    if create.validate_only {
        session.progress.say(&format!("Cluster {} can be made; nothing was changed", cluster.name));
        return Ok(());
    }
    if let (Some(bound), Some(operation)) = (create.wait.wait, &cluster.operation_id) {
        session.progress.say(&format!("Creating cluster {} ({operation})", cluster.name));
        follow(&session.client, &session.progress, operation, bound).await?;
        cluster = session.cluster(&cluster.id).await?;
    }
    session.output.item(&cluster)
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
    session.progress.say(&format!("Cluster {} is gone", cluster.name));
    Ok(())
}
