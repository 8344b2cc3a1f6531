//! Line pasted → node Ready → pod Running, on machine containers.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::api::{Api, text};
use super::percentile;
use crate::options::BenchJoinArgs;

const LIMIT: Duration = Duration::from_secs(120);

/// Makes one cluster, then machines one after another with a pod on each; removes them all.
pub async fn run(args: BenchJoinArgs) -> Result<()> {
    let api = Api::open(&args.instance).await?;
    let made = api
        .post(
            &format!("/projects/{}/clusters", api.project),
            json!({ "name": format!("bench-join-{}", std::process::id()) }),
        )
        .await?;
    let cluster = text(&made["id"])?;
    api.finished(&text(&made["operation_id"])?).await?;
    let measured = machines(&api, &cluster, args.count).await;
    api.remove(&cluster).await?;
    let (ready, running) = measured?;
    println!(
        "{}",
        json!({
            "bench": "join", "summary": true, "count": args.count,
            "p50_seconds": percentile(&ready, 50), "p99_seconds": percentile(&ready, 99),
            "pod_p50_seconds": percentile(&running, 50), "pod_p99_seconds": percentile(&running, 99),
        })
    );
    Ok(())
}

async fn machines(api: &Api, cluster: &str, count: u16) -> Result<(Vec<f64>, Vec<f64>)> {
    let kubeconfig = api.kubeconfig(cluster).await?;
    let (mut all_ready, mut all_running) = (Vec::new(), Vec::new());
    for number in 0..count {
        let begun = Instant::now();
        let pool = format!("b{number}");
        api.post(&format!("/clusters/{cluster}/node-pools"), json!({ "name": pool, "kind": "local", "count": 1 }))
            .await?;
        let selector = format!("-l=pilothouse.dev/pool={pool}");
        api.kubectl_until(&kubeconfig, &["wait", "--for=condition=Ready", "node", &selector, "--timeout=60s"], LIMIT)
            .await?;
        let ready = begun.elapsed().as_secs_f64();
        let pod = json!({ "spec": { "nodeSelector": { "pilothouse.dev/pool": pool }, "automountServiceAccountToken": false } }).to_string();
        let name = format!("pause-{number}");
        let image = bundle::Bundle::locate(bundle::Version::default())?.image_ref("pause")?.to_owned();
        api.kubectl_until(
            &kubeconfig,
            &["run", &name, "--image", &image, "--image-pull-policy=Never", "--overrides", &pod],
            LIMIT,
        )
        .await?;
        api.kubectl_until(&kubeconfig, &["wait", "--for=condition=Ready", "pod", &name, "--timeout=60s"], LIMIT)
            .await?;
        let running = begun.elapsed().as_secs_f64();
        println!(
            "{}",
            json!({ "bench": "join", "pool": pool, "ready_seconds": ready, "pod_running_seconds": running })
        );
        all_ready.push(ready);
        all_running.push(running);
    }
    Ok((all_ready, all_running))
}
