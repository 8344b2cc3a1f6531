//! The log on standard error and, where a collector is named, the export of traces: the one place where `tracing` is set up.

use std::io::IsTerminal;

use ::telemetry::TARGET;
use ::telemetry::otlp::Export;
use anyhow::Result;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

const QUIET: &str = "warn,pilothouse=info,provisioner=info,gateway=info,kube_client=off";
const SERVICE: &str = "pilothouse";

/// Sets up the log, and for a process that serves the export that its environment asks for; what is returned ends with the process.
///
/// # Errors
/// When the export cannot be as it is asked for.
pub fn start(serves: bool) -> Result<Option<Export>> {
    let export = if serves { Export::from_environment(SERVICE)? } else { None };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(QUIET));
    // Spans for the collector would stand before each line of the log.
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(
            filter.and(filter_fn(|metadata| metadata.target() != TARGET).with_max_level_hint(LevelFilter::TRACE)),
        );
    tracing_subscriber::registry().with(log).with(export.as_ref().map(Export::layer)).init();
    Ok(export)
}
