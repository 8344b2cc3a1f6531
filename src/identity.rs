//! Which host an instance's clusters live on. On any other the provisioner would make every cluster anew, empty, and point the
//! gateway there: so a start on another one is refused.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::time::sleep;

use crate::instance::{Instance, KnownHost, Record};

/// How often the namespace is asked for: a new API server makes it a moment after it is ready.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// Refuses a start that would use the embedded host where a kubeconfig named another, or the reverse. Asks nobody.
pub fn same_kind(known: Option<&KnownHost>, kubeconfig: Option<&Path>) -> Result<()> {
    match (known.map(|host| &host.kubeconfig), kubeconfig) {
        (Some(Some(file)), None) => bail!(
            "this instance's clusters live on the host of {}: pass --host-kubeconfig {}, or another --data-dir for a new instance",
            file.display(),
            file.display()
        ),
        (Some(None), Some(_)) => bail!(
            "this instance's clusters live on its embedded host: leave out --host-kubeconfig, or pass another --data-dir for a new instance"
        ),
        _ => Ok(()),
    }
}

/// Compares the host that `client` reaches with the known one; the first is kept.
pub async fn recognise(instance: &Instance, record: &mut Record, client: &Client, file: Option<&Path>) -> Result<()> {
    let kubeconfig = file.map(std::path::absolute).transpose().context("resolve the kubeconfig's path")?;
    let now = KnownHost { kubeconfig, uid: uid(client).await? };
    same_uid(record.host.as_ref(), &now)?;
    if record.host.as_ref() != Some(&now) {
        record.host = Some(now);
        instance.save(record)?;
    }
    Ok(())
}

fn same_uid(known: Option<&KnownHost>, now: &KnownHost) -> Result<()> {
    let Some(known) = known.filter(|known| known.uid != now.uid) else { return Ok(()) };
    let next = match &known.kubeconfig {
        Some(file) => format!("pass the kubeconfig that it was made with ({})", file.display()),
        None => "put host/etcd in the data directory back from your backup".to_owned(),
    };
    bail!(
        "this is another host than the one on which the clusters live (kube-system is {}, not {}): {next}, or pass another --data-dir for a new instance",
        now.uid,
        known.uid
    )
}

async fn uid(client: &Client) -> Result<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    for _ in 0..TRIES {
        let found = api.get_opt("kube-system").await.context("ask the host for its namespace kube-system")?;
        if let Some(uid) = found.and_then(|namespace| namespace.metadata.uid) {
            return Ok(uid);
        }
        sleep(PAUSE).await;
    }
    bail!("the host has no namespace kube-system: is it a Kubernetes cluster?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(file: Option<&str>, uid: &str) -> KnownHost {
        KnownHost { kubeconfig: file.map(Into::into), uid: uid.to_owned() }
    }

    #[test]
    fn another_kind_of_host_is_refused() {
        let (foreign, embedded) = (host(Some("/etc/f"), "a"), host(None, "a"));
        let file = Path::new("/etc/f");
        assert!(same_kind(Some(&foreign), None).unwrap_err().to_string().contains("--host-kubeconfig /etc/f"));
        assert!(same_kind(Some(&embedded), Some(file)).is_err());
        for (known, now) in [(None, Some(file)), (None, None), (Some(&foreign), Some(file)), (Some(&embedded), None)] {
            same_kind(known, now).unwrap();
        }
    }

    #[test]
    fn another_host_under_the_same_file_is_refused() {
        let known = host(Some("/etc/f"), "a");
        assert!(same_uid(Some(&known), &host(Some("/etc/f"), "b")).is_err());
        same_uid(Some(&known), &host(Some("/moved/f"), "a")).unwrap();
        same_uid(None, &known).unwrap();
    }
}
