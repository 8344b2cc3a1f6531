//! `pilothouse-client`: the user's verbs alone, for machines that use a platform and do not run one.

use std::process::ExitCode;

use clap::Parser;

/// Control planes as a service: the client alone.
#[derive(Parser)]
#[command(name = "pilothouse", version)]
struct Program {
    #[command(subcommand)]
    command: cli::Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    sigpipe::reset();
    cli::run(Program::parse().command).await
}
