//! `pilothouse-node`: what a person, a provider or systemd calls. Reads arguments, calls a part of the agent, says how it went.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use clap::{Args, Parser, Subcommand};
use node_bootstrap::agent::{self, AgentError, NodeRequest};
use node_bootstrap::config::{JoinConfig, Paths};
use node_bootstrap::ledger::{Ledger, Membership, Tombstone};
use node_bootstrap::spec::Layout;
use node_bootstrap::static_node::{self, StaticNode};
use node_bootstrap::{child, halt, init, labels, preflight, reset, service, signature, status};
use node_linux::files;
use node_protocol::Check;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Like `println!`, but a reader that went away (a console that was hung up) ends nothing.
macro_rules! say {
    ($($text:tt)*) => { drop(writeln!(std::io::stdout(), $($text)*)) };
}

/// The same on standard error.
macro_rules! complain {
    ($($text:tt)*) => { drop(writeln!(std::io::stderr(), $($text)*)) };
}

/// The exit code of a machine that cannot be a node.
const PREFLIGHT_FAILED: u8 = 7;

/// The Pilothouse node agent: joins this machine to a cluster and keeps it there.
#[derive(Parser)]
#[command(name = "pilothouse-node", version)]
struct Cli {
    /// Prefix of every path (for inspecting another root file system)
    #[arg(long, global = true, default_value = "/", hide = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join this machine to a cluster (token in PILOTHOUSE_JOIN_TOKEN or --token-file)
    Join(Join),
    /// Run the agent (what the service does)
    Run(Run),
    /// Show how this machine does
    Status(Output),
    /// Take everything off this machine that joining put on it
    Reset(Reset),
    /// Check whether this machine can be a node; changes nothing
    Preflight(Preflight),
    /// Install and start the systemd unit
    InstallService,
    /// End a static node for good: its pods, processes and mounts (data stays)
    Halt(Halt),
    /// Print the version
    Version,
    #[command(hide = true)]
    ExecChild(ExecChild),
}

#[derive(Args)]
struct Join {
    /// The gateway, address:port
    #[arg(long)]
    server: String,
    /// The instance's DNS domain
    #[arg(long, default_value = "pilothouse.internal")]
    domain: String,
    /// File with the platform's CA certificate (PEM)
    #[arg(long, required_unless_present = "ca_pem_base64")]
    ca_file: Option<PathBuf>,
    /// The platform's CA certificate (PEM), base64
    #[arg(long, conflicts_with = "ca_file")]
    ca_pem_base64: Option<String>,
    /// File with the join token, - for standard input
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The node's name (default: the host name)
    #[arg(long, default_value = "")]
    node_name: String,
    /// Node labels, key=value,key=value
    #[arg(long, value_delimiter = ',', value_parser = labels::parse)]
    labels: Vec<(String, String)>,
    /// The platform's signing key (ed25519:…): only parts that it signed are used
    #[arg(long, value_name = "KEY", value_parser = signature::parse_key)]
    signing_key: Option<String>,
    /// Checks whose failure you accept, by id
    #[arg(long, value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Go on as `run` does
    #[arg(long)]
    foreground: bool,
}

#[derive(Args)]
struct Run {
    /// Run the node this file describes, without a platform
    #[arg(long = "static")]
    static_file: Option<PathBuf>,
    /// With --static: stopping also ends the pods
    #[arg(long, requires = "static_file")]
    stop_pods: bool,
}

#[derive(Args)]
struct Output {
    /// json, or text for people
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

#[derive(Args)]
struct Reset {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also when pods run
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct Preflight {
    #[command(flatten)]
    output: Output,
    /// Checks whose failure you accept, by id
    #[arg(long, value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
}

#[derive(Args)]
struct Halt {
    /// The static node's root_dir
    #[arg(long)]
    root_dir: PathBuf,
    /// Seconds that processes get to end by themselves
    #[arg(long, default_value_t = 2)]
    grace: u64,
}

#[derive(Args)]
struct ExecChild {
    #[arg(long)]
    cgroup: Option<String>,
    #[arg(long)]
    pid_file: PathBuf,
    #[arg(long)]
    digest: String,
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    // What the agent starts inherits it.
    if !matches!(cli.command, Command::ExecChild(_))
        && let Err(error) = node_linux::environment::settle()
    {
        complain!("error: run this program again with /usr/sbin in its PATH: {error}");
        return ExitCode::FAILURE;
    }
    let paths = Paths::new(cli.root);
    match dispatch(cli.command, &paths) {
        Ok(code) => code,
        Err(error) => {
            complain!("error: {error:#}");
            let last = error.downcast_ref::<AgentError>().is_some_and(AgentError::is_final);
            if last { ExitCode::from(init::FINAL) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(command: Command, paths: &Paths) -> anyhow::Result<ExitCode> {
    match command {
        Command::Join(join) => in_runtime(self::join(paths, join)),
        Command::Run(run) => in_runtime(self::run(paths, run)),
        Command::Status(output) => show_status(paths, &output),
        Command::Reset(options) => self::reset(paths, &options),
        Command::Preflight(options) => self::preflight(paths, &options),
        Command::InstallService => Ok(service::install(paths).map(|()| ExitCode::SUCCESS)?),
        Command::Halt(options) => {
            Ok(halt::halt(&options.root_dir, Duration::from_secs(options.grace)).map(|()| ExitCode::SUCCESS)?)
        }
        Command::Version => {
            say!("pilothouse-node {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::ExecChild(options) => {
            Err(child::exec(options.cgroup.as_deref(), &options.pid_file, &options.digest, &options.program).into())
        }
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn log() {
    let filter = std::env::var("PILOTHOUSE_LOG").unwrap_or_else(|_| "info".into());
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}

/// Cancelled by TERM or INT.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

async fn run(paths: &Paths, options: Run) -> anyhow::Result<ExitCode> {
    let stop = stop_signal()?;
    if let Some(file) = options.static_file {
        let node = StaticNode::load(&file)?;
        static_node::run(node, stop, options.stop_pods).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if std::process::id() == 1 {
        init::move_to_leaf();
        tokio::spawn(init::reap(stop.clone()));
    }
    let first = Ledger::load(&paths.ledger())?.membership.is_none();
    let checks = if first { checked(paths, &[]) } else { Vec::new() };
    if preflight::count(&checks).0 > 0 {
        complain!("{}", preflight::human(&checks));
        return Ok(ExitCode::from(PREFLIGHT_FAILED));
    }
    agent::run(paths, checks, stop).await?;
    Ok(ExitCode::SUCCESS)
}

fn checked(paths: &Paths, ignored: &[String]) -> Vec<Check> {
    let probe = preflight::Probe::of_machine(&paths.at("/"), &paths.state());
    let mut checks = preflight::judge(&probe);
    preflight::ignore(&mut checks, ignored);
    checks
}

async fn join(paths: &Paths, options: Join) -> anyhow::Result<ExitCode> {
    let ledger = Ledger::load(&paths.ledger())?;
    if let Some(membership) = &ledger.membership {
        return already(membership, &options);
    }
    let checks = checked(paths, &options.ignore_preflight_errors);
    complain!("{}", preflight::human(&checks));
    if preflight::count(&checks).0 > 0 {
        return Ok(ExitCode::from(PREFLIGHT_FAILED));
    }
    let config = join_config(&options)?;
    let stop = stop_signal()?;
    let request = NodeRequest { labels: options.labels.into_iter().collect() };
    let ledger = agent::enroll(paths, &config, request, &stop).await?;
    let name = ledger.membership.map(|membership| membership.node_name).unwrap_or_default();
    complain!("Joined as node {name}.");
    if !options.foreground {
        let next = if service::systemd_runs() { "install-service" } else { "run" };
        complain!("Next: pilothouse-node {next}");
        return Ok(ExitCode::SUCCESS);
    }
    agent::run(paths, checks, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// The same line pasted again is no error: what comes after joining may be what was missing. Any other line is one, for whoever
/// pasted it wants the machine to be something else.
fn already(is: &Membership, options: &Join) -> anyhow::Result<ExitCode> {
    let (node, cluster) = (&is.node_name, &is.cluster_id);
    if is.token_id.is_empty() || is.token_id != Membership::token_id(&token(options)?) {
        bail!(
            "this machine already is node {node} of cluster {cluster}, by another line; nothing was changed; to join by this one run `pilothouse-node reset` first"
        );
    }
    complain!("This machine already is node {node} of cluster {cluster}; the token was not used again.");
    Ok(ExitCode::SUCCESS)
}

fn join_config(options: &Join) -> anyhow::Result<JoinConfig> {
    let ca_pem = match (&options.ca_file, &options.ca_pem_base64) {
        (Some(file), _) => files::read_text(file)?,
        (None, Some(text)) => {
            let pem = base64::engine::general_purpose::STANDARD
                .decode(text.trim())
                .context("--ca-pem-base64 is not base64")?;
            String::from_utf8(pem).context("--ca-pem-base64 does not hold PEM")?
        }
        (None, None) => bail!("--ca-file or --ca-pem-base64 is needed"),
    };
    let (server, domain, node_name) = (options.server.clone(), options.domain.clone(), options.node_name.clone());
    let signing_key = options.signing_key.clone().unwrap_or_default();
    Ok(JoinConfig { server, domain, ca_pem, token: token(options)?, node_name, signing_key })
}

fn token(options: &Join) -> anyhow::Result<Zeroizing<String>> {
    let text = match &options.token_file {
        Some(file) if file.as_os_str() == "-" => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin().read_to_string(&mut text).context("read the token from standard input")?;
            text
        }
        Some(file) => Zeroizing::new(files::read_text(file)?),
        None => Zeroizing::new(
            std::env::var("PILOTHOUSE_JOIN_TOKEN").context("set PILOTHOUSE_JOIN_TOKEN, or use --token-file")?,
        ),
    };
    let token = text.trim();
    if token.is_empty() {
        bail!("the join token is empty");
    }
    Ok(Zeroizing::new(token.to_owned()))
}

fn preflight(paths: &Paths, options: &Preflight) -> anyhow::Result<ExitCode> {
    let checks = checked(paths, &options.ignore_preflight_errors);
    if options.output.output == "json" {
        say!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        say!("{}", preflight::human(&checks));
    }
    let failed = preflight::count(&checks).0 > 0;
    Ok(if failed { ExitCode::from(PREFLIGHT_FAILED) } else { ExitCode::SUCCESS })
}

fn show_status(paths: &Paths, output: &Output) -> anyhow::Result<ExitCode> {
    let ledger = Ledger::load(&paths.ledger())?;
    let now: status::Status = files::read_json(&paths.run().join("status.json"))?.unwrap_or_default();
    let joined = ledger.membership.is_some();
    if output.output == "json" {
        let generation = ledger.config.as_ref().map(|config| config.generation);
        let version = ledger.config.as_ref().map(|config| &config.kubernetes_version);
        let all = serde_json::json!({"membership": ledger.membership, "generation": generation, "kubernetes_version": version, "status": now});
        say!("{all:#}");
    } else if let (Some(membership), Some(config)) = (&ledger.membership, &ledger.config) {
        say!("node {} ({}) of cluster {}", membership.node_name, membership.node_id, membership.cluster_id);
        say!(
            "gateway {}, Kubernetes {}, configuration {}",
            config.server,
            config.kubernetes_version,
            config.generation
        );
        say!("{}", status::human(&now));
        if child::Identity::load(&Layout::joined(paths).pids().join("agent.json")).is_none() {
            let start = if service::systemd_runs() { "systemctl start pilothouse-node" } else { "pilothouse-node run" };
            say!("The agent does not run, so this is how things were. Start it: {start}");
        }
    } else if let Some(gone) = files::read_json::<Tombstone>(&paths.tombstone())? {
        say!(
            "Node {} was removed from its cluster; this machine stays out. To join again, paste a new join line.",
            gone.node_id
        );
    } else {
        say!("This machine has not joined a cluster.");
    }
    Ok(if joined { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn reset(paths: &Paths, options: &Reset) -> anyhow::Result<ExitCode> {
    log();
    let ledger = Ledger::load(&paths.ledger())?;
    if options.dry_run {
        let steps = reset::plan(&ledger);
        say!("{}", if steps.is_empty() { "Nothing was installed on this machine.".into() } else { steps.join("\n") });
        return Ok(ExitCode::SUCCESS);
    }
    let running = reset::pod_processes();
    if running > 0 && !options.force && ledger.membership.is_some() {
        return Err(reset::ResetError::PodsRunning(running).into());
    }
    reset::stop_agent(paths, ledger.installed.unit.as_deref());
    let left = reset::execute(paths, false)?;
    say!("Reset. The node's object stays in the cluster until it is deleted there.");
    for line in left {
        say!("  {line}");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod join_tests;
