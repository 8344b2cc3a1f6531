//! Storage of the embedded host: the local-path provisioner as a supervised process, its class, and volumes made ahead.
//!
//! A volume that local-path makes on demand costs a helper pod, about two seconds in the middle of creating a cluster. So a
//! few empty ones always lie ready in the same class; Kubernetes binds a claim to a fitting volume that exists before it
//! asks the provisioner. A released one is the provisioner's to clean like any other.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::time::Duration;

use crate::error::{DuringStep, Result};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenant_controlplane::component::etcd::VOLUME;
use tenant_controlplane::render::{COMPONENT_LABEL, ETCD};
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
/// The user of all tenants' pods in earlier releases.
const FORMER_USER: u32 = 65532;
/// Every volume is given to a user of its own only when a cluster claims it, so its directory takes anybody; nobody but root gets to it
/// except through the mount in a pod ([`write_files`]). What etcd makes in it is closed to others.
const OPEN: u32 = 0o777;
const AHEAD: &str = "ahead-";
const LABEL: &str = "pilothouse.dev/made-ahead";

/// What local-path needs to know, in its own `config.json`. There is one node, so its disk is "shared": that lets claims be
/// bound at once instead of when their pod is scheduled.
pub fn provisioner_config(volumes: &Path) -> Value {
    json!({ "sharedFileSystemPath": volumes })
}

/// Writes the files that the provisioner reads at its start: configuration, helper pod and its two scripts.
pub fn write_files(dir: &Path, volumes: &Path, helper_image: &str) -> Result<()> {
    fs::create_dir_all(dir).during_step(|| format!("create {}", dir.display()))?;
    fs::create_dir_all(volumes).during_step(|| format!("create {}", volumes.display()))?;
    // Pods see what is mounted for them, and nobody else of this machine has any business here.
    fs::set_permissions(volumes, fs::Permissions::from_mode(0o700))?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "helper-pod" },
        "spec": { "containers": [{ "name": "helper-pod", "image": helper_image, "imagePullPolicy": "Never" }] }
    });
    fs::write(dir.join("config.json"), provisioner_config(volumes).to_string())?;
    fs::write(dir.join("helperPod.yaml"), pod.to_string())?;
    fs::write(dir.join("setup"), format!("#!/bin/sh\nset -eu\nmkdir -m {OPEN:o} \"$VOL_DIR\"\n"))?;
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
    let read = |name: &str| fs::read_to_string(dir.join(name)).during_step(|| format!("read {name}"));
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
    let all = api.list(&ListParams::default()).await?.items;
    hand_over(client, &all).await?;
    let known: Vec<_> = all.into_iter().filter(|volume| volume.labels().contains_key(LABEL)).collect();
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
            Err(error).during_step(|| format!("remove {}", path.display()))
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
    fs::create_dir_all(path).during_step(|| format!("create {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(OPEN)).during_step(|| format!("open {}", path.display()))
}

/// Gives the volumes of earlier releases, in which all tenants had one user, to the users that their pods have now. A pod that starts before
/// it finds its data closed, ends, and is started again.
async fn hand_over(client: &Client, volumes: &[PersistentVolume]) -> Result<()> {
    for volume in volumes {
        let spec = volume.spec.as_ref();
        let path = spec.and_then(|spec| Some(Path::new(&spec.host_path.as_ref()?.path).to_owned()));
        let namespace = spec.and_then(|spec| spec.claim_ref.as_ref()?.namespace.clone());
        let former = path.filter(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == FORMER_USER));
        let Some(path) = former else { continue };
        let Some(namespace) = namespace else {
            // Nobody's yet.
            give(&path, 0).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(OPEN)))?;
            continue;
        };
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let pods = pods.list(&ListParams::default().labels(&format!("{COMPONENT_LABEL}={ETCD}"))).await?;
        let user = pods.iter().find_map(|pod| pod.spec.as_ref()?.security_context.as_ref()?.run_as_user);
        if let Some(user) = user.and_then(|user| u32::try_from(user).ok()).filter(|user| *user != FORMER_USER) {
            give(&path, user).during_step(|| format!("give {} to user {user}", path.display()))?;
        }
    }
    Ok(())
}

/// A tree and all in it; its root last, so that a call that was cut off is repeated. Follows no link.
fn give(path: &Path, user: u32) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    lchown(path, Some(user), Some(user))
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
    let name = object["metadata"]["name"].as_str().during("an object has a name")?.to_owned();
    let params = PatchParams::apply("pilothouse").force();
    api.patch(&name, &params, &Patch::Apply(object)).await.during_step(|| format!("apply {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_takes_any_user_and_its_parent_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (files, volumes) = (dir.path().join("storage"), dir.path().join("volumes"));
        write_files(&files, &volumes, "busybox").unwrap();
        make_directory(&volumes.join("ahead-1")).unwrap();
        assert_eq!((mode(&volumes), mode(&volumes.join("ahead-1"))), (0o700, OPEN));
        assert!(fs::read_to_string(files.join("setup")).unwrap().contains("mkdir -m 777"));
    }

    #[test]
    fn a_volume_is_handed_over_with_all_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("data/member")).unwrap();
        fs::write(volume.join("data/member/db"), "").unwrap();
        fs::write(dir.path().join("outside"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), volume.join("data/link")).unwrap();
        if lchown(&volume, Some(FORMER_USER), Some(FORMER_USER)).is_err() {
            return; // not root: nothing can be given to anybody
        }
        give(&volume, 1_879_100_007).unwrap();
        let owner = |path: &str| fs::symlink_metadata(volume.join(path)).unwrap().uid();
        for path in ["", "data", "data/member/db", "data/link"] {
            assert_eq!(owner(path), 1_879_100_007, "{path}");
        }
        assert_eq!(fs::metadata(dir.path().join("outside")).unwrap().uid(), 0, "a link is not followed");
    }

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
