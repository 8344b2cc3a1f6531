//! Certificates of the embedded host: tenant zero's, made once and kept in files that only root reads.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::{DuringStep, HostError, Result};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::kubeconfig::{KubeconfigInput, UserAuth, kubeconfig};
use tenant_controlplane::name::NodeName;
use tenant_controlplane::pki::{self, CaBundle, CaKind, ClusterPki, Leaf, PkiContext, Subject, Validity};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::version::KubernetesVersion;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::site::Site;
use crate::{Host, NODE};
use node_linux::files::write_secret;

/// How long a leaf is good; each `up` issues new ones.
const LIFETIME: Duration = Duration::days(365);

/// Where a file of the host's certificates lies.
pub fn file(site: &Site, name: &str) -> PathBuf {
    site.path("host/pki").join(name)
}

/// The specification by which the domain crate describes the host. Its ranges are shared address space (RFC 6598), which no
/// tenant may choose: so they never collide.
fn spec(host: &Host) -> ClusterSpec {
    let (pod_cidr, service_cidr) = (host.site.addresses.pods(), host.site.addresses.services());
    ClusterSpec { pod_cidr, service_cidr, ..ClusterSpec::new(KubernetesVersion::default()) }
}

/// Reads the host's authorities, or makes them at the first start; leaves are made anew each time.
pub fn load_or_create(host: &Host) -> Result<ClusterPki> {
    let path = file(&host.site, "authorities.json");
    let now = OffsetDateTime::now_utc();
    let spec = spec(host);
    let ips = [IpAddr::V4(host.site.addresses.inside())];
    let zero = ClusterId::from_uuid(Uuid::nil());
    let context = PkiContext { extra_ips: &ips, ..PkiContext::new(zero, "host.internal", &spec) };
    if let Some(text) = kept(&path, &host.site.path("host/etcd/member"))? {
        let mut known = ClusterPki::from_secret_json(&text).during("read the host's certificates")?;
        known.renew_leaves(&context, now, &*host.keys).during("renew the host's certificates")?;
        return Ok(known);
    }
    let made = ClusterPki::generate(&context, now, &*host.keys).during("make the host's certificates")?;
    write_secret(&path, made.to_secret_json().during("write the host's certificates")?.as_bytes())?;
    Ok(made)
}

/// The authorities as they were kept, or nothing at the first start. Whatever cannot be read is not absent: new authorities
/// over an etcd that lives would lock everybody out of it, and its Secrets were encrypted with a key that only this file holds.
fn kept(path: &Path, etcd: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .during_step(|| format!("read {}; where it is damaged put it back from your backup", path.display())),
        Err(_) if etcd.exists() => Err(HostError::Unfit(format!(
            "{} is missing, but the host's etcd has data in {}: put the file back from your backup",
            path.display(),
            etcd.display()
        ))),
        Err(_) => Ok(None),
    }
}

/// Writes what the node and the platform itself read.
pub fn write_files(host: &Host, pki: &ClusterPki) -> Result<()> {
    let write = |name: &str, text: &str| write_secret(&file(&host.site, name), text.as_bytes());
    for kind in CaKind::ALL {
        write(&format!("{}-ca.crt", kind.as_str()), &pki.ca(kind).trust_pem())?;
    }
    let node = NodeName::parse(NODE).during("name the host's node")?;
    let serving = pki::kubelet_serving(&node, &[IpAddr::V4(host.site.addresses.inside())]);
    for (name, ca, subject) in [
        ("kubelet", CaKind::Client, pki::kubelet_client(&node)),
        ("kubelet-serving", CaKind::Kubelet, serving),
        ("kube-proxy", CaKind::Client, pki::kube_proxy()),
    ] {
        let leaf = issue(host, pki.ca(ca), &subject)?;
        write(&format!("{name}.crt"), &leaf.cert_pem)?;
        write(&format!("{name}.key"), &leaf.key_pem)?;
    }
    write("operator.kubeconfig", &operator_kubeconfig(host, pki)?)?;
    Ok(())
}

fn issue(host: &Host, ca: &CaBundle, subject: &Subject) -> Result<Leaf> {
    let validity = Validity::from_now(OffsetDateTime::now_utc(), LIFETIME);
    pki::issue(&ca.current, subject, validity, &*host.keys)
        .during_step(|| format!("issue a certificate for {}", subject.cn))
}

/// The platform's own access to its host. Only root reads the file, and the host is the platform's alone.
fn operator_kubeconfig(host: &Host, pki: &ClusterPki) -> Result<String> {
    let subject =
        Subject { cn: "pilothouse:platform".to_owned(), o: vec!["system:masters".to_owned()], ..Subject::default() };
    let leaf = issue(host, pki.ca(CaKind::Client), &subject)?;
    Ok(with_certificate(host, pki, (&leaf.cert_pem, &leaf.key_pem)))
}

fn with_certificate(host: &Host, pki: &ClusterPki, (cert, key): (&str, &str)) -> String {
    kubeconfig(&KubeconfigInput {
        name: &host.site.name,
        server_url: &format!("https://{}", host.api()),
        tls_server_name: None,
        ca_pem: &pki.ca(CaKind::Serving).trust_pem(),
        user: UserAuth::ClientCert { cert_pem: cert, key_pem: key },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absent_file_means_a_first_start() {
        let dir = tempfile::tempdir().unwrap();
        let (path, etcd) = (dir.path().join("authorities.json"), dir.path().join("member"));
        assert!(kept(&path, &etcd).unwrap().is_none());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(kept(&path, &etcd).unwrap_err().to_string().contains("backup"), "bad UTF-8 is no absence");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&etcd).unwrap();
        assert!(kept(&path, &etcd).unwrap_err().to_string().contains("is missing"));
    }
}
