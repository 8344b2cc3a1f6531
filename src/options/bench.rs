//! The words of `pilothouse bench`.

use clap::{Args, Subcommand};

use super::InstanceArgs;

/// `pilothouse bench …`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: BenchCommand,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Request → first successful `kubectl get ns` through the gateway
    Create(BenchCreateArgs),
    /// Memory and CPU of tenants, host and platform at rest
    Idle(BenchIdleArgs),
    /// Join command → node Ready → pod Running
    Join(BenchJoinArgs),
}

/// `pilothouse bench create`.
#[derive(Debug, Args)]
pub struct BenchCreateArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Clusters created one after another
    #[arg(long, default_value_t = 5)]
    pub count: u16,
    /// Clusters then created at once
    #[arg(long, default_value_t = 5)]
    pub parallel: u16,
}

/// `pilothouse bench idle`.
#[derive(Debug, Args)]
pub struct BenchIdleArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Seconds over which CPU is measured
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
}

/// `pilothouse bench join`.
#[derive(Debug, Args)]
pub struct BenchJoinArgs {
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Machines created one after another
    #[arg(long, default_value_t = 3)]
    pub count: u16,
}
