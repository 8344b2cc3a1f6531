//! The command line. Words here are promises: scripts rely on them.

mod bench;
mod components;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use migrations::{AuditCheckpoint, Resource};
use tenant_controlplane::version::KubernetesVersion;

use crate::instance::PortRange;
pub use bench::{BenchArgs, BenchCommand, BenchCreateArgs, BenchIdleArgs, BenchJoinArgs};
pub use components::{
    BuildArgs, BundleArgs, BundleCommand, CacheArgs, ExportArgs, ImportArgs, KeyArgs, PruneArgs, RotateKeyArgs,
    TrustArgs,
};

/// Pilothouse: anyone can run EKS.
#[derive(Debug, Parser)]
#[command(name = "pilothouse", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// Everything `pilothouse` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the platform on this machine, or resume it
    Up(UpArgs),
    /// Stop the platform; clusters come back with the next `up`
    Down(DownArgs),
    /// Show what runs and where
    Status(StatusArgs),
    /// Show logs of the platform and of the embedded host
    Logs(LogsArgs),
    /// Diagnose problems on this machine, with remedies
    Doctor(DoctorArgs),
    /// Manage bundles of Kubernetes components
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Operator commands, local to this machine
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Run benchmarks on this machine; prints JSON lines
    Bench(BenchArgs),
    /// First stage of a machine container (internal)
    #[command(name = "machine-run", hide = true)]
    MachineRun(MachineArgs),
    /// Second stage of an isolated machine container (internal)
    #[command(name = "machine-users", hide = true)]
    MachineUsers,
    /// Last stage of a machine container (internal)
    #[command(name = "machine-init", hide = true)]
    MachineInit(MachineArgs),
    #[command(flatten)]
    Client(cli::Command),
}

/// Which instance.
#[derive(Debug, Clone, Args)]
pub struct InstanceArgs {
    /// Name of the instance; instances of different names run side by side
    #[arg(long, default_value = crate::instance::DEFAULT_NAME, env = "PILOTHOUSE_NAME")]
    pub name: String,
    /// Data directory [default: /var/lib/pilothouse/NAME]
    #[arg(long, env = "PILOTHOUSE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `pilothouse up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Address and port of the gateway [default: 0.0.0.0:8443, or a free port where that is taken]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Address that people and nodes dial [default: this machine's own]
    #[arg(long)]
    pub advertise: Option<std::net::IpAddr>,
    /// DNS domain of the gateway's names, chosen at the first `up`; kubeconfigs by name need a record `*.api.DOMAIN` to the gateway
    /// [default: pilothouse.internal, without DNS]
    #[arg(long)]
    pub domain: Option<String>,
    /// Ports of the gateway that clusters may have for their own, as FIRST-LAST: for clients that know no `tls-server-name`. Kept for
    /// every later `up`
    #[arg(long, value_name = "RANGE")]
    pub cluster_ports: Option<PortRange>,
    /// Database [default: an SQLite file in the data directory]. A PostgreSQL server elsewhere must prove who it is (sslmode=verify-full)
    /// unless the URL says another sslmode. One with a password goes into the environment or a file, not here
    #[arg(long, env = "PILOTHOUSE_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// File that holds the database's URL
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,
    /// File that holds the key under which secrets are kept; made at the first `up` [default: kek in the data directory]
    #[arg(long, value_name = "FILE", conflicts_with = "kek_command")]
    pub kek_file: Option<PathBuf>,
    /// Command for `sh -c` that prints that key, 64 hexadecimal digits; kept for every later start
    #[arg(long, value_name = "COMMAND")]
    pub kek_command: Option<String>,
    /// Use this existing cluster as host; needs no root
    #[arg(long, value_name = "FILE")]
    pub host_kubeconfig: Option<PathBuf>,
    /// Offer this Kubernetes version as well and get its components; kept for every later `up`. Versions whose bundle is in the
    /// cache are offered anyway
    #[arg(long, value_name = "VERSION", value_delimiter = ',', value_parser = crate::components::version)]
    pub with_version: Vec<KubernetesVersion>,
    /// Machine containers (pools of kind "local"): "isolated" ones have user namespaces of their own and reach nothing of this machine
    /// but the gateway; "trusted" ones share its kernel, so only the first organization has them and only its admins get kubeconfigs
    /// above view in their clusters; "off" offers none [default: isolated where the kernel can, else trusted]
    #[arg(long, value_name = "MODE")]
    pub local_machines: Option<LocalMode>,
    /// The same as --local-machines off
    #[arg(long, conflicts_with = "local_machines")]
    pub no_local_machines: bool,
    /// Control planes to keep running for clusters to come, which are then there in a second: each takes some 270 MB of memory, and
    /// those of the default version and ranges find one [default: 2 on the embedded host, fewer where there is less than 8 GiB; else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=16))]
    pub spares: Option<u8>,
    /// Address on loopback where Prometheus reads `/metrics` [default: nowhere]
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    pub metrics: Option<SocketAddr>,
    /// Where the Kubernetes components come from: auto, release (official files) or modules (built from Go modules)
    #[arg(long, default_value = "auto", env = "PILOTHOUSE_BUNDLE_SOURCE")]
    pub bundle_source: String,
    /// Directory of the bundle cache [default: /var/cache/pilothouse]
    #[arg(long, env = "PILOTHOUSE_CACHE")]
    pub cache: Option<PathBuf>,
    /// File with the Ed25519 key (PKCS#8, PEM) that signs bundles; kept for every later build [default: one made in
    /// /etc/pilothouse/signing]
    #[arg(long, value_name = "FILE", env = "PILOTHOUSE_SIGNING_KEY")]
    pub signing_key: Option<PathBuf>,
    /// Report missing Debian packages instead of installing them
    #[arg(long)]
    pub no_install: bool,
    /// Run in the background; return once it is ready
    #[arg(long)]
    pub detach: bool,
    /// Format of the last line
    #[arg(long, default_value = "text")]
    pub output: Output,
    /// Write progress there (internal)
    #[arg(long, hide = true)]
    pub progress_file: Option<PathBuf>,
}

/// An address that only this machine reaches.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "use ADDRESS:PORT, such as 127.0.0.1:9464".to_owned())?;
    let refused = || format!("{} is not on loopback: others would reach it", address.ip());
    address.ip().is_loopback().then_some(address).ok_or_else(refused)
}

/// What local machines an instance offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LocalMode {
    Isolated,
    Trusted,
    Off,
}

/// Text for people or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// `pilothouse down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Also remove the data directory and everything else of this instance
    #[arg(long)]
    pub purge: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
}

/// `pilothouse status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `pilothouse logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// One component: pilothouse, etcd, kube-apiserver, kubelet, … [default: all of them]
    pub component: Option<String>,
    /// Number of lines from the end of each log
    #[arg(long, default_value_t = 40)]
    pub tail: usize,
    /// Follow the logs
    #[arg(long, short)]
    pub follow: bool,
}

/// `pilothouse doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `pilothouse admin …`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Print a new API token of the machine's operator
    Token(AdminTokenArgs),
    /// Print a new token, the server and its CA as a shell takes them: eval "$(pilothouse admin env)"
    Env(AdminTokenArgs),
    /// Print a new single-use setup link for the first owner
    SetupLink(InstanceArgs),
    /// Print a link with which a person sets a forgotten password, once within an hour
    ResetPassword(ResetPasswordArgs),
    /// Read the audit log of the installation, or of any organization
    Audit(AdminAuditArgs),
    /// Manage the key that encrypts secrets in the database
    #[command(subcommand)]
    Kek(KekCommand),
    /// Show and set quotas of organizations
    #[command(subcommand)]
    Quota(QuotaCommand),
}

/// `pilothouse admin reset-password`.
#[derive(Debug, Args)]
pub struct ResetPasswordArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// E-mail address of the account
    pub email: String,
}

/// `pilothouse admin audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AdminAuditArgs {
    #[command(subcommand)]
    pub verb: Option<AdminAuditVerb>,
    #[command(flatten)]
    pub list: AdminAuditListArgs,
}

/// What else can be done with it.
#[derive(Debug, Subcommand)]
pub enum AdminAuditVerb {
    /// Verify the log: report the first entry of each organization that was changed, and entries that are missing
    Verify(AdminAuditVerifyArgs),
}

/// Against what.
#[derive(Debug, Args)]
pub struct AdminAuditVerifyArgs {
    #[command(flatten)]
    pub common: DoctorArgs,
    /// `NUMBER:HASH` that an earlier run printed: fail if the log does not go on from there
    #[arg(long)]
    pub checkpoint: Option<AuditCheckpoint>,
}

/// Which entries.
#[derive(Debug, Args)]
pub struct AdminAuditListArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Name of an organization [default: what belongs to none, such as sign-ins to accounts that do not exist]
    #[arg(long)]
    pub organization: Option<String>,
    /// A whole action (user.sign_in_refused), or its first word (user)
    #[arg(long)]
    pub action: Option<String>,
    /// Maximum number of entries, newest first
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `pilothouse admin kek …`.
#[derive(Debug, Subcommand)]
pub enum KekCommand {
    /// Encrypt every secret again under a new key while the platform is stopped; resumes where it was interrupted
    Rotate(RotateArgs),
}

/// `pilothouse admin kek rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Keep the new key in this file [default: in the old one's place]
    #[arg(long, value_name = "FILE", conflicts_with = "to_command")]
    pub to_file: Option<PathBuf>,
    /// Command for `sh -c` that prints the new key, 64 hexadecimal digits
    #[arg(long, value_name = "COMMAND")]
    pub to_command: Option<String>,
}

/// `pilothouse admin token` and `pilothouse admin env`.
#[derive(Debug, Args)]
pub struct AdminTokenArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Days until it expires
    #[arg(long, default_value_t = 90)]
    pub days: u16,
}

/// `pilothouse admin quota …`.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// List usage and limits of organizations
    List(QuotaListArgs),
    /// Set a limit of one organization, or how many organizations a person may own
    Set(QuotaSetArgs),
    /// Take a limit of one holder back: the default applies again
    Unset(QuotaUnsetArgs),
    /// Set the default limit
    Default(QuotaDefaultArgs),
}

/// `pilothouse admin quota list`.
#[derive(Debug, Args)]
pub struct QuotaListArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// One organization, by id or name, or a person, by e-mail address [default: all organizations]
    pub holder: Option<String>,
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `pilothouse admin quota set`.
#[derive(Debug, Args)]
pub struct QuotaSetArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// The organization, by id or name; for "organizations" the person, by e-mail address
    pub holder: String,
    /// clusters, nodes, node_pools, join_tokens, kubeconfigs, api_tokens, projects or organizations
    pub resource: Resource,
    /// Limit; what exists already stays
    pub limit: u64,
}

/// `pilothouse admin quota unset`.
#[derive(Debug, Args)]
pub struct QuotaUnsetArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// The organization, by id or name; for "organizations" the person, by e-mail address
    pub holder: String,
    /// clusters, nodes, node_pools, join_tokens, kubeconfigs, api_tokens, projects or organizations
    pub resource: Resource,
}

/// `pilothouse admin quota default`.
#[derive(Debug, Args)]
pub struct QuotaDefaultArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// clusters, nodes, node_pools, join_tokens, kubeconfigs, api_tokens, projects or organizations
    pub resource: Resource,
    /// Limit
    pub limit: u64,
}

/// The stages of a machine container.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// The machine's specification
    pub spec: PathBuf,
}

#[cfg(test)]
mod help_tests;
