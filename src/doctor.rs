//! What is wrong on this machine and what to do about it. `up` asks the same questions before it changes anything.

pub mod checks;
mod firewall;
pub mod isolation;
mod machines;
pub mod ports;
pub mod ranges;
mod wall;

use std::process::ExitCode;

use anyhow::Result;
pub use node_linux::{Check, Verdict};

use crate::admin;
use crate::instance::Instance;
use crate::options::{DoctorArgs, Output};
use embedded_host::site::Addresses;

/// Asks everything and prints it. Exit status 1 where something does not work.
pub async fn doctor(args: DoctorArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    let mut all = checks::machine(&instance, &bundle::Cache::default_dir()).await;
    all.extend(checks::leftovers().await);
    let (record, running) = (instance.record()?, instance.running());
    all.push(ports::ports(record.as_ref(), running).await);
    if let (Some(record), true) = (record, running) {
        all.push(checks::certificates(&instance));
        all.push(checks::address(&record));
        all.push(admin::audit::check(&instance).await);
        all.push(machines::probe(&instance, &record).await);
        all.push(isolation::probe(&instance, Addresses::of(record.slot)).await);
    }
    print(&all, args.output)?;
    let failed = all.iter().any(|check| check.status == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(all: &[Check], output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::json!({ "checks": all }));
        return Ok(());
    }
    for check in all {
        println!("{}", line(check));
    }
    let count = |verdict| all.iter().filter(|check| check.status == verdict).count();
    println!("{} passed, {} warnings, {} failed", count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
    Ok(())
}

/// One check as a person reads it.
pub fn line(check: &Check) -> String {
    let mark = match check.status {
        Verdict::Pass => '✔',
        Verdict::Warn => '‼',
        Verdict::Fail => '×',
    };
    let mut text = format!(" {mark} {:<12} {}", check.id, check.observed);
    if !check.remediation.is_empty() {
        text.push_str(&format!("\n     → {}", check.remediation));
    }
    text
}
