//! Request → first successful `kubectl get ns` through the gateway, one by one and then several at once.
//!
//! Each time the platform is at rest first, as people find it; a line's `spares` are the control planes that it had ready then. What a
//! cluster from nothing takes is measured on an instance that keeps none (`up --spares 0`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api::{Api, text};
use super::percentile;
use crate::options::BenchCreateArgs;

/// Measures, and removes what it made.
pub async fn run(args: BenchCreateArgs) -> Result<()> {
    let api = Api::open(&args.instance).await?;
    let stamp = std::process::id();
    let mut alone = Vec::new();
    for number in 0..args.count {
        let mode = Mode { name: "one", spares: api.rested().await? };
        let (id, seconds) = one(&api, &format!("bench-{stamp}-{number}"), mode).await?;
        alone.push(seconds);
        api.remove(&id).await?;
    }
    let mode = Mode { name: "at_once", spares: api.rested().await? };
    let at_once = (0..args.parallel).map(|number| {
        let (api, name) = (&api, format!("bench-{stamp}-p{number}"));
        async move { one(api, &name, mode).await }
    });
    let together: Vec<(String, f64)> = try_join_all(at_once).await?;
    try_join_all(together.iter().map(|(id, _)| api.remove(id))).await?;
    let last = together.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    println!(
        "{}",
        json!({
            "bench": "create", "summary": true, "count": args.count,
            "p50_seconds": percentile(&alone, 50), "p99_seconds": percentile(&alone, 99),
            "at_once": args.parallel, "at_once_last_seconds": last, "spares": mode.spares,
        })
    );
    Ok(())
}

/// How clusters are made.
#[derive(Clone, Copy)]
struct Mode {
    name: &'static str,
    spares: usize,
}

async fn one(api: &Api, name: &str, mode: Mode) -> Result<(String, f64)> {
    let (made, begun) = api.cluster(name).await?;
    let id = text(&made["id"])?;
    let operation = api.finished(&text(&made["operation_id"])?).await?;
    let running = begun.elapsed().as_secs_f64();
    let kubeconfig = api.kubeconfig(&id).await?;
    let issued = begun.elapsed().as_secs_f64();
    api.kubectl_until(&kubeconfig, &["get", "ns"], Duration::from_secs(60)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "bench": "create", "mode": mode.name, "spares": mode.spares, "name": name, "seconds": seconds,
            "running_seconds": running, "kubeconfig_seconds": issued, "steps": steps(&operation),
        })
    );
    Ok((id, seconds))
}

/// How long each step of the operation took, by its key.
fn steps(operation: &Value) -> BTreeMap<String, f64> {
    let all = operation["steps"].as_array().into_iter().flatten();
    all.filter_map(|step| {
        let at = |field: &str| OffsetDateTime::parse(step[field].as_str()?, &Rfc3339).ok();
        Some((step["key"].as_str()?.to_owned(), (at("finished_at")? - at("started_at")?).as_seconds_f64()))
    })
    .collect()
}
