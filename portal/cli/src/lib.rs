//! The user's verbs: `pilothouse login|org|project|cluster|kubeconfig|pool|node|token|operation|audit`.
//!
//! Everything here is a client of REST v1 and nothing else. Standard output carries data only, so that it can be piped;
//! progress, questions and errors go to standard error. Names and ids are taken alike. A token is never an argument:
//! other people on the machine can read those.

mod client;
mod context;
mod draft;
mod duration;
mod error;
mod output;
mod progress;
mod session;
mod terminal;
mod verbs;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use error::{CliError, Exit, Report};
pub use output::Format;

/// Server, credentials and output format; valid with every verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// Portal URL, for example https://pilothouse.example.com
    #[arg(long, global = true, env = "PILOTHOUSE_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// File with the API token; `-` reads standard input. Alternative: PILOTHOUSE_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<String>,
    /// File with the only CA certificate to trust (PEM)
    #[arg(long, global = true, env = "PILOTHOUSE_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<String>,
    /// Context of the config file to use
    #[arg(long, global = true, env = "PILOTHOUSE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Organization, by name or id
    #[arg(long, global = true, env = "PILOTHOUSE_ORG", value_name = "ORG")]
    pub org: Option<String>,
    /// Project, by name or id
    #[arg(long, global = true, env = "PILOTHOUSE_PROJECT", value_name = "PROJECT")]
    pub project: Option<String>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Suppress progress on standard error
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// A noun, its verbs, and the options every verb takes.
#[derive(Args, Debug)]
pub struct Noun<C: Subcommand> {
    /// Options of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// The verb.
    #[command(subcommand)]
    pub verb: C,
}

/// The nouns a user works with; flatten it into the program's own commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Save a portal URL and an API token for later commands
    Login(verbs::login::LoginArgs),
    /// Organizations: owners of projects and clusters
    Org(Noun<verbs::org::Verb>),
    /// Projects: groups of clusters
    Project(Noun<verbs::project::Verb>),
    /// Clusters: dedicated Kubernetes control planes
    Cluster(Noun<verbs::cluster::Verb>),
    /// Kubeconfigs: issue one (prints the file), list them, revoke one
    Kubeconfig(verbs::kubeconfig::KubeconfigArgs),
    /// Node pools: named groups of machines
    Pool(Noun<verbs::pool::Verb>),
    /// Nodes: single machines
    Node(Noun<verbs::node::Verb>),
    /// Your API tokens
    Token(Noun<verbs::token::Verb>),
    /// Operations: long-running requests
    Operation(Noun<verbs::operation::Verb>),
    /// Audit log: who did what in an organization
    Audit(Noun<verbs::audit::Verb>),
}

/// Runs one verb to its end and reports an error, if any, on standard error.
///
/// Needs a tokio runtime with time and IO. The exit status follows [`Exit`].
pub async fn run(command: Command) -> ExitCode {
    match dispatch(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", Report(&error));
            error.exit().into()
        }
    }
}

async fn dispatch(command: Command) -> error::Result<()> {
    match command {
        Command::Login(args) => verbs::login::run(args).await,
        Command::Org(noun) => verbs::org::run(noun).await,
        Command::Project(noun) => verbs::project::run(noun).await,
        Command::Cluster(noun) => verbs::cluster::run(noun).await,
        Command::Kubeconfig(args) => verbs::kubeconfig::run(args).await,
        Command::Pool(noun) => verbs::pool::run(noun).await,
        Command::Node(noun) => verbs::node::run(noun).await,
        Command::Token(noun) => verbs::token::run(noun).await,
        Command::Operation(noun) => verbs::operation::run(noun).await,
        Command::Audit(noun) => verbs::audit::run(noun).await,
    }
}
