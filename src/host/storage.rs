//! Storage of the embedded host: the local-path provisioner as a supervised process, its class, and volumes made ahead.
//!
//! A volume that local-path makes on demand costs a helper pod, about two seconds in the middle of creating a cluster. So a
//! few empty ones always lie ready in the same class; Kubernetes binds a claim to a fitting volume that exists before it
//! asks the provisioner. A released one is the provisioner's to clean like any other.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenant_controlplane::component::etcd::VOLUME;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The storage class of tenants' etcd on the embedded host.
pub const CLASS: &str = "local-path";
/// Where the provisioner's helper pods run.
pub const NAMESPACE: &str = "local-path-storage";
const PROVISIONER: &str = "rancher.io/local-path";
/// Volumes kept ready; more clusters at once than this wait for the provisioner as before.
const READY: usize = 8;
/// The user of tenants' pods.
const USER: u32 = 65532;
const AHEAD: &str = "ahead-";
const LABEL: &str = "pilothouse.dev/made-ahead";

/// What local-path needs to know, in its own `config.json`. There is one node, so its disk is "shared": that lets claims be
/// bound at once instead of when their pod is scheduled.
pub fn provisioner_config(volumes: &Path) -> Value {
    json!({ "sharedFileSystemPath": volumes })
}

/// Writes the files that the provisioner reads at its start: configuration, helper pod and its two scripts.
pub fn write_files(dir: &Path, volumes: &Path, helper_image: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    fs::create_dir_all(volumes).with_context(|| format!("create {}", volumes.display()))?;
    // Pods see what is mounted for them, and nobody else of this machine has any business here.
    fs::set_permissions(volumes, fs::Permissions::from_mode(0o700))?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "helper-pod" },
        "spec": { "containers": [{ "name": "helper-pod", "image": helper_image, "imagePullPolicy": "Never" }] }
    });
    fs::write(dir.join("config.json"), provisioner_config(volumes).to_string())?;
    fs::write(dir.join("helperPod.yaml"), pod.to_string())?;
    fs::write(
        dir.join("setup"),
        format!("#!/bin/sh\nset -eu\nmkdir -m 0700 \"$VOL_DIR\"\nchown {USER}:{USER} \"$VOL_DIR\"\n"),
    )?;
    fs::write(dir.join("teardown"), "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n")?;
    Ok(())
}

/// Applies the namespace, the class and the configuration, then keeps volumes ready until `cancel`.
pub async fn install(client: &Client, dir: &Path) -> Result<()> {
    apply::<Namespace>(
        &Api::all(client.clone()),
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
    )
    .await?;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": CLASS, "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"
    });
    apply::<StorageClass>(&Api::all(client.clone()), class).await?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).with_context(|| format!("read {name}"));
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "local-path-config", "namespace": NAMESPACE },
        "data": { "config.json": read("config.json")?, "setup": read("setup")?, "teardown": read("teardown")?, "helperPod.yaml": read("helperPod.yaml")? }
    });
    apply::<k8s_openapi::api::core::v1::ConfigMap>(&Api::namespaced(client.clone(), NAMESPACE), config).await
}

/// Keeps volumes ready until `cancel`; looks again every two seconds.
pub async fn keep_ready(client: Client, volumes: std::path::PathBuf, node: String, cancel: CancellationToken) {
    let mut tick = interval(Duration::from_secs(2));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = top_up(&client, &volumes, &node).await {
            warn!("volumes made ahead: {error:#}");
        }
    }
}

async fn top_up(client: &Client, volumes: &Path, node: &str) -> Result<()> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let known = api.list(&ListParams::default().labels(LABEL)).await?;
    let phase = |volume: &PersistentVolume| volume.status.as_ref().and_then(|status| status.phase.clone());
    for failed in known.iter().filter(|volume| phase(volume).as_deref() == Some("Failed")) {
        // The object goes last: without it nobody would know of a deleted tenant's data.
        remove(&volumes.join(failed.name_any()))?;
        api.delete(&failed.name_any(), &DeleteParams::default()).await.ok();
    }
    forget_unused(volumes, &known.iter().map(ResourceExt::name_any).collect());
    let ready =
        known.iter().filter(|volume| matches!(phase(volume).as_deref(), None | Some("Available" | "Pending"))).count();
    for _ in ready..READY {
        let name = format!("{AHEAD}{}", uuid::Uuid::now_v7().simple());
        make_directory(&volumes.join(&name))?;
        apply(&api, volume(&name, volumes, node)).await?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the directories whose volume was never made. One that holds anything stays: it was somebody's.
fn forget_unused(volumes: &Path, known: &BTreeSet<String>) {
    for entry in fs::read_dir(volumes).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(AHEAD) && !known.contains(&name) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    chown(path, Some(USER), Some(USER)).with_context(|| format!("give {} to the tenants' user", path.display()))
}

/// A volume exactly as local-path would have made it, so that it also is local-path that removes it.
fn volume(name: &str, volumes: &Path, node: &str) -> Value {
    let requirement = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "labels": { LABEL: "true" },
            "annotations": { "pv.kubernetes.io/provisioned-by": PROVISIONER, "local.path.provisioner/selected-node": node }
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": VOLUME.to_string() }, "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": CLASS,
            "hostPath": { "path": volumes.join(name), "type": "DirectoryOrCreate" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [requirement] }] } }
        }
    })
}

/// Server-side apply of one object.
pub async fn apply<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let name = object["metadata"]["name"].as_str().context("an object has a name")?.to_owned();
    let params = PatchParams::apply("pilothouse").force();
    api.patch(&name, &params, &Patch::Apply(object)).await.with_context(|| format!("apply {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_without_its_volume_goes_and_data_stays() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ahead-1", "ahead-2", "ahead-3", "pvc-1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("ahead-2/db"), "").unwrap();
        forget_unused(dir.path(), &BTreeSet::from(["ahead-3".to_owned()]));
        let left = |name: &str| dir.path().join(name).exists();
        assert!(!left("ahead-1"));
        assert!(left("ahead-2") && left("ahead-3") && left("pvc-1"));
        remove(&dir.path().join("ahead-2")).unwrap();
        remove(&dir.path().join("ahead-2")).unwrap();
        assert!(!left("ahead-2"));
    }
}
