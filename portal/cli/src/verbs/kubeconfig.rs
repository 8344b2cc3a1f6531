//! `pilothouse kubeconfig demo > demo.kubeconfig`: issue one; `list` and `revoke` look after those issued.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::{IssueKubeconfig, IssuedKubeconfig, Kubeconfig};
use clap::{Args, Subcommand};

use super::InCluster;
use crate::client::Call;
use crate::draft::Draft;
use crate::error::{CliError, Result};
use crate::session::Session;
use crate::{Format, Globals, duration, output};

/// Issue a kubeconfig for CLUSTER and print it, or run a subcommand.
#[derive(Args, Debug)]
pub struct KubeconfigArgs {
    /// Options of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// Cluster name or ID
    pub cluster: Option<String>,
    /// In place of the argument
    #[arg(long = "cluster", value_name = "CLUSTER", conflicts_with = "cluster")]
    pub option: Option<String>,
    /// Role of the kubeconfig: view, edit or admin [default: admin, or view where you may not have more]
    #[arg(long)]
    pub role: Option<String>,
    /// Lifetime: 12h, 90d; at most 365d [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub expires_in: Option<Duration>,
    /// Name [default: the cluster, the role and a random suffix, such as demo-admin-x7k2p]
    #[arg(long)]
    pub name: Option<String>,
    /// How the file addresses the API server: sni (by address and tls-server-name), dns (by name) or port (dedicated), where
    /// the operator offers them [default: dns where it is offered, else sni]
    #[arg(long)]
    pub endpoint: Option<String>,
    /// Write to this new file, readable by you only, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the file of --out if it exists
    #[arg(long, requires = "out")]
    pub force: bool,
    /// The verb.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What can be done with issued kubeconfigs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the kubeconfigs of a cluster
    List(InCluster),
    /// Revoke a kubeconfig; the cluster rejects it within seconds
    Revoke {
        /// ID, or name together with --cluster
        kubeconfig: String,
        /// Name or ID
        #[arg(long)]
        cluster: Option<String>,
    },
}

/// Runs one verb.
pub async fn run(mut args: KubeconfigArgs) -> Result<()> {
    let session = Session::open(&args.globals)?;
    match args.verb.take() {
        None => issue(&session, args).await,
        Some(Verb::List(cluster)) => {
            let path = format!("/clusters/{}/kubeconfigs", session.cluster(&cluster.reference()).await?.id);
            session.output.items(session.client.list::<Kubeconfig>(&path, &[]).await?)
        }
        Some(Verb::Revoke { kubeconfig, cluster }) => {
            let id = session.kubeconfig_id(&kubeconfig, cluster.as_deref()).await?;
            match session.client.send_maybe::<Kubeconfig>(Call::delete(format!("/kubeconfigs/{id}"))).await? {
                None => session.progress.say(&format!("Kubeconfig {kubeconfig} revoked: the cluster rejects it")),
                Some(_) => session.progress.say(&format!(
                    "Kubeconfig {kubeconfig} is being revoked, and the cluster was not seen to refuse it yet: see \
                     `pilothouse kubeconfig list`"
                )),
            }
            Ok(())
        }
    }
}

async fn issue(session: &Session, args: KubeconfigArgs) -> Result<()> {
    let reference = args.cluster.or(args.option).ok_or_else(|| {
        CliError::usage("no cluster specified", "For example: pilothouse kubeconfig demo > demo.kubeconfig")
    })?;
    let draft = args.out.as_deref().map(|path| Draft::create(path, args.force)).transpose()?;
    let request = IssueKubeconfig {
        name: args.name,
        kind: None,
        role: args.role,
        expires_in_seconds: args.expires_in.map(|time| time.as_secs()),
        endpoint: args.endpoint,
    };
    // Otherwise Ctrl-C would leave the empty file.
    let issued = tokio::select! {
        issued = send(session, &reference, &request) => issued?,
        _ = tokio::signal::ctrl_c() => return Err(CliError::Interrupted { next: unknown_outcome(&reference) }),
    };
    if let (Some(draft), Some(path)) = (draft, args.out) {
        return save(session, draft, &path, &issued).await;
    }
    match session.output {
        Format::Table | Format::Yaml => output::print(&issued.kubeconfig),
        Format::Json => session.output.document(&issued),
        Format::Name => session.output.item(&issued.issued),
    }
}

async fn send(session: &Session, cluster: &str, request: &IssueKubeconfig) -> Result<IssuedKubeconfig> {
    let cluster = session.cluster(cluster).await?;
    session.client.send(Call::post(format!("/clusters/{}/kubeconfigs", cluster.id), request)?).await
}

fn unknown_outcome(cluster: &str) -> String {
    format!("See with `pilothouse kubeconfig list --cluster {cluster}` whether it was issued, and revoke it if so.")
}

/// A kubeconfig that could not be written is of no use to anybody: it is revoked.
async fn save(session: &Session, draft: Draft, path: &Path, issued: &IssuedKubeconfig) -> Result<()> {
    let (id, name) = (&issued.issued.id, &issued.issued.name);
    let Err(source) = draft.save(issued.kubeconfig.as_bytes()) else {
        session.progress.say(&format!("Kubeconfig {name} ({id}) written to {}", path.display()));
        return Ok(());
    };
    let revoked = session.client.send_only(Call::delete(format!("/kubeconfigs/{id}"))).await;
    let next = match revoked {
        Ok(()) => format!("Kubeconfig {id} was revoked. Make room, or specify another file with --out."),
        Err(_) => format!("Revoke what was issued: pilothouse kubeconfig revoke {id}"),
    };
    Err(CliError::NotSaved { path: path.display().to_string(), next, source })
}
