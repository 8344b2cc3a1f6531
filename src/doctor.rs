//! What is wrong on this machine and what to do about it. `up` asks the same questions before it changes anything.

pub mod checks;
mod firewall;
pub mod isolation;
mod machines;
pub mod ports;
pub mod ranges;
mod wall;

use std::process::ExitCode;

use anyhow::{Result, bail};
pub use node_linux::{Check, Verdict};

use crate::admin;
use crate::instance::{Instance, Record};
use crate::options::{DoctorArgs, Output};
use embedded_host::site::Addresses;

/// Asks everything and prints it. Exit status 1 where something does not work.
pub async fn doctor(args: DoctorArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    let record = known(&instance)?;
    let mut all = checks::machine(&instance, &bundle::Cache::default_dir()).await;
    all.extend(checks::leftovers().await);
    let running = instance.running();
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

/// The instance's record. Without a name the machine is diagnosed before there is any instance; one that was named must exist.
fn known(instance: &Instance) -> Result<Option<Record>> {
    let record = instance.record()?;
    if record.is_none() && !instance.is_default() {
        bail!("{}. Before that, `pilothouse doctor` without --name diagnoses this machine", instance.missing());
    }
    Ok(record)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_was_named_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new("nothere", Some(dir.path().to_owned())).unwrap();
        let error = known(&instance).unwrap_err().to_string();
        assert!(error.starts_with("there is no instance \"nothere\"") && error.contains("without --name"), "{error}");
        instance.save(&Record::example("nothere", "127.0.0.1:1".parse().unwrap())).unwrap();
        assert!(known(&instance).unwrap().is_some());
    }
}
