//! `pilothouse status`: what of an instance runs, in one look.

use std::process::ExitCode;

use anyhow::Result;
use node_linux::cgroup::Cgroups;
use serde_json::json;

use crate::doctor::{Verdict, checks, line};
use crate::instance::Instance;
use crate::options::{Output, StatusArgs};
use crate::ready;

/// Prints it. Exit status 3 where the instance does not run, as init scripts expect.
pub async fn status(args: StatusArgs) -> Result<ExitCode> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    let record = instance.existing()?;
    let running = instance.running();
    let ready = if running { ready::read(&instance).ok() } else { None };
    let state = match (running, &ready) {
        (true, Some(_)) => "running",
        (true, None) => "starting",
        (false, _) => "stopped",
    };
    let processes = count(&instance);
    if args.output == Output::Json {
        let pid = instance.pid().filter(|_| running);
        println!(
            "{}",
            json!({ "name": instance.name, "state": state, "pid": pid, "processes": processes, "ready": ready, "gateway": record.advertise, "data_dir": instance.dir })
        );
    } else {
        println!("{:<10} {state}", instance.name);
        println!("  portal   http://{}", record.portal);
        println!("  gateway  https://{}", record.advertise);
        println!("  data     {}", instance.dir.display());
        if let Some(ready) = &ready {
            println!("  local machines  {}", ready.local_machines.described());
        }
        let certificates = checks::certificates(&instance);
        if certificates.status == Verdict::Warn {
            println!("{}", line(&certificates));
        }
        println!("  processes: host {}, node and tenants {}, machines {}", processes[0], processes[1], processes[2]);
    }
    Ok(if running { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// How many processes the host, its pods and the machines have.
fn count(instance: &Instance) -> [usize; 3] {
    let cgroups = Cgroups::detect();
    ["platform", "node", "machines"].map(|part| cgroups.processes(&format!("{}/{part}", instance.cgroup())).len())
}
