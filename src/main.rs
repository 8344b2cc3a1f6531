//! `pilothouse`: one program for the operator's verbs and the user's. It only composes: the portal writes what should be, the
//! provisioner makes it so, the gateway is the door, and the embedded host is where control planes run.

mod admin;
mod bench;
mod components;
mod detach;
mod doctor;
mod down;
mod identity;
mod instance;
mod limits;
mod logs;
mod options;
mod platform;
mod progress;
mod protect;
mod ready;
mod screen;
mod status;
mod telemetry;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::options::{Cli, Command};

fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let command = Cli::parse().command;
    let _export = match telemetry::start(matches!(&command, Command::Up(args) if !args.detach)) {
        Ok(export) => export,
        Err(error) => {
            eprintln!("pilothouse: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    // Whoever reads what a verb prints may stop reading, as `head` does; what starts, stops or is a machine goes on without a reader.
    let goes_on = match &command {
        Command::Up(args) => !args.detach,
        Command::Down(_) | Command::MachineRun(_) | Command::MachineUsers | Command::MachineInit(_) => true,
        _ => false,
    };
    if !goes_on {
        sigpipe::reset();
    }
    // Whatever works on the machine itself; a user's own commands keep the user's ways.
    if !matches!(command, Command::Client(_))
        && let Err(error) = node_linux::environment::settle()
    {
        eprintln!("pilothouse: run this again with /usr/sbin in PATH: {error}");
        return ExitCode::FAILURE;
    }
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pilothouse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The stages of a machine must not run beside threads: they change namespaces. All else is asynchronous.
fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::MachineRun(args) => Ok(cloud_local::stage::run(&args.spec)?),
        Command::MachineUsers => Ok(cloud_local::stage::users()?),
        Command::MachineInit(args) => Ok(cloud_local::stage::init(&args.spec)?),
        other => tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run_command(other)),
    }
}

async fn run_command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Down(args) => down::down(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Logs(args) => logs::logs(args).await,
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Bundle(command) => components::bundle(command).await,
        Command::Admin(command) => admin::admin(command).await,
        Command::Bench(args) => bench::bench(args).await,
        Command::Client(command) => Ok(cli::run(command).await),
        Command::MachineRun(_) | Command::MachineUsers | Command::MachineInit(_) => Ok(ExitCode::FAILURE),
    }
}
