//! Builds a bundle, or the node image, from the command line; the product's own commands live in the root binary.
//!
//! `cargo run -p bundle --example build -- [VERSION] [--agent FILE | --workspace DIR | --no-agent]`, or
//! `cargo run -p bundle --example build -- node-image | verify | prune [--yes]`.

use std::process::ExitCode;

use bundle::{AgentSource, BuildOptions, Bundle, BundleError, Cache, Progress, PruneOptions, Version, node_image};

#[tokio::main]
async fn main() -> ExitCode {
    let work = async {
        let report = |progress: Progress| eprintln!("{progress}");
        let args: Vec<String> = std::env::args().skip(1).collect();
        match args.first().map(String::as_str) {
            Some("node-image") => image(&report).await,
            Some("prune") => prune(&args, &report).await,
            Some("verify") => Bundle::locate(Version::default())?.verify(&report),
            _ => build(&args, &report).await,
        }
    };
    tokio::select! {
        result = work => finish(result),
        // Dropping the work stops its child processes.
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}

fn finish(result: Result<(), BundleError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

async fn build(args: &[String], report: bundle::Report<'_>) -> Result<(), BundleError> {
    let mut args = args.iter();
    let mut opts = BuildOptions::new(Version::default());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--no-agent" => opts.agent = AgentSource::Absent,
            "--agent" => opts.agent = AgentSource::Path(args.next().cloned().unwrap_or_default().into()),
            "--workspace" => opts.agent = AgentSource::Auto { workspace: args.next().map(Into::into) },
            version => opts.version = Version::parse(version)?,
        }
    }
    let bundle = Bundle::build(&opts, report).await?;
    println!("{}", bundle.cache().bundles().join(bundle.id()).join("bundle.json").display());
    Ok(())
}

/// Only tells, unless it is given `--yes`; nothing is too young.
async fn prune(args: &[String], report: bundle::Report<'_>) -> Result<(), BundleError> {
    let dry_run = !args.iter().any(|arg| arg == "--yes");
    let opts = PruneOptions { keep: std::time::Duration::ZERO, dry_run };
    let pruned = bundle::prune(&Cache::default_dir(), &opts, report).await?;
    println!("{} things, {} MiB; kept {:?}", pruned.removed.len(), pruned.size() >> 20, pruned.kept);
    Ok(())
}

async fn image(report: bundle::Report<'_>) -> Result<(), BundleError> {
    let root = node_image::build(&node_image::NodeImageOptions::new(Cache::default_dir()), report).await?;
    println!("{}", root.display());
    Ok(())
}
