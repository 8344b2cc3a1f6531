//! All certificates and keys of one cluster: made once, kept encrypted by the caller, read by rendering.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use node_protocol::subject::LinkPeer;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::ca::{Ca, CaBundle, CaKind};
use super::leaf::{Leaf, Subject, Usage, Validity, issue};
use super::{KeySource, PkiError};
use crate::id::ClusterId;
use crate::sni;
use crate::spec::{ClusterSpec, NODE_LOCAL_API};

const LIFETIME: Duration = Duration::days(365);

/// The user the API server is to kubelets; an addon binds it to `system:kubelet-api-admin`.
pub(crate) const KUBELET_API_USER: &str = "kube-apiserver-kubelet-client";
/// The name aggregated APIs know the API server by.
pub(crate) const FRONT_PROXY_NAME: &str = "front-proxy-client";

/// The certificates a control plane itself uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafKind {
    /// The API server's serving certificate.
    ApiServing,
    /// The API server towards kubelets.
    ApiKubeletClient,
    /// The API server towards etcd.
    ApiEtcdClient,
    /// The API server towards aggregated APIs and webhooks.
    FrontProxyClient,
    /// etcd's serving certificate.
    EtcdServing,
    /// The controller manager towards the API server.
    ControllerManager,
    /// The scheduler towards the API server.
    Scheduler,
    /// The API server towards the gateway, to be let through to nodes.
    Egress,
}

impl LeafKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::ApiServing,
        Self::ApiKubeletClient,
        Self::ApiEtcdClient,
        Self::FrontProxyClient,
        Self::EtcdServing,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Egress,
    ];

    /// Which CA vouches for it.
    pub const fn signed_by(self) -> CaKind {
        match self {
            Self::ApiServing => CaKind::Serving,
            Self::ApiKubeletClient | Self::ControllerManager | Self::Scheduler => CaKind::Client,
            Self::ApiEtcdClient | Self::EtcdServing => CaKind::Etcd,
            Self::FrontProxyClient => CaKind::FrontProxy,
            Self::Egress => CaKind::Link,
        }
    }
}

/// What certificates of a cluster depend on.
#[derive(Clone, Debug)]
pub struct PkiContext<'a> {
    /// Whose they are.
    pub cluster: ClusterId,
    /// The installation's domain.
    pub domain: &'a str,
    /// What the cluster should be; its service range gives an address.
    pub spec: &'a ClusterSpec,
    /// Further addresses the API server (and etcd) answer to: the embedded host's own, and those by which clients dial a tenant's without
    /// asking for its name.
    pub extra_ips: &'a [IpAddr],
}

impl<'a> PkiContext<'a> {
    /// The context of a tenant: nothing extra.
    pub const fn new(cluster: ClusterId, domain: &'a str, spec: &'a ClusterSpec) -> Self {
        Self { cluster, domain, spec, extra_ips: &[] }
    }

    fn api_names(&self) -> Vec<String> {
        let namespace = sni::namespace(self.cluster);
        let fixed = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let derived = [
            sni::api(self.cluster, self.domain),
            "kubernetes.default.svc.cluster.local".to_owned(),
            "control-plane".to_owned(),
            format!("control-plane.{namespace}"),
            format!("control-plane.{namespace}.svc"),
        ];
        fixed.map(str::to_owned).into_iter().chain(derived).collect()
    }

    fn etcd_names(&self) -> Vec<String> {
        let namespace = sni::namespace(self.cluster);
        let derived =
            [format!("etcd.{namespace}"), format!("etcd.{namespace}.svc"), format!("etcd-0.etcd.{namespace}")];
        ["localhost", "etcd", "etcd-0", "etcd-0.etcd"].map(str::to_owned).into_iter().chain(derived).collect()
    }

    fn addresses(&self, own: &[Ipv4Addr]) -> Vec<IpAddr> {
        let own = own.iter().copied().map(IpAddr::V4);
        own.chain(self.extra_ips.iter().copied()).collect()
    }

    /// Whom a certificate of a kind names.
    pub(super) fn subject(&self, kind: LeafKind) -> Subject {
        let client = |cn: &str| Subject { cn: cn.to_owned(), ..Subject::default() };
        match kind {
            LeafKind::ApiServing => Subject {
                dns_sans: self.api_names(),
                ip_sans: self.addresses(&[Ipv4Addr::LOCALHOST, self.spec.kubernetes_service_ip(), NODE_LOCAL_API]),
                usage: Usage::Server,
                ..client("kube-apiserver")
            },
            LeafKind::EtcdServing => Subject {
                dns_sans: self.etcd_names(),
                ip_sans: self.addresses(&[Ipv4Addr::LOCALHOST]),
                usage: Usage::Both,
                ..client("etcd")
            },
            LeafKind::ApiKubeletClient => client(KUBELET_API_USER),
            LeafKind::ApiEtcdClient => client("kube-apiserver"),
            LeafKind::FrontProxyClient => client(FRONT_PROXY_NAME),
            LeafKind::ControllerManager => client("system:kube-controller-manager"),
            LeafKind::Scheduler => client("system:kube-scheduler"),
            LeafKind::Egress => LinkPeer::Egress { cluster: self.cluster.to_string() }.into(),
        }
    }
}

/// All certificates and keys of one cluster. `Debug` shows no key; the JSON form is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPki {
    /// Vouches for the API server.
    pub serving: CaBundle,
    /// Vouches for clients of the API server and of kubelets.
    pub client: CaBundle,
    /// Vouches for kubelets' serving certificates.
    pub kubelet: CaBundle,
    /// Vouches for the API server as front proxy.
    pub front_proxy: CaBundle,
    /// Vouches for etcd and its client.
    pub etcd: CaBundle,
    /// Vouches for agents and egress at the gateway.
    pub link: CaBundle,
    /// Signs service-account tokens (ES256), PKCS#8 PEM.
    #[serde(with = "super::secret")]
    pub sa_key_pem: Zeroizing<String>,
    /// Checks service-account tokens, SubjectPublicKeyInfo PEM.
    pub sa_public_pem: String,
    /// Encrypts Secrets in etcd (secretbox).
    #[serde(with = "super::secret::bytes")]
    pub encryption_key: Zeroizing<[u8; 32]>,
    /// The control plane's own certificates; kept, so that rendering is deterministic.
    pub leaves: BTreeMap<LeafKind, Leaf>,
}

fn ca(kind: CaKind, cluster: ClusterId, now: OffsetDateTime, keys: &dyn KeySource) -> Result<CaBundle, PkiError> {
    Ca::generate(&format!("pilothouse {} {}", kind.as_str(), cluster.suffix()), now, keys).map(CaBundle::new)
}

impl ClusterPki {
    /// Makes everything new.
    ///
    /// # Errors
    /// [`PkiError`] when a key cannot be made or a name cannot stand in a certificate.
    pub fn generate(context: &PkiContext<'_>, now: OffsetDateTime, keys: &dyn KeySource) -> Result<Self, PkiError> {
        let ca = |kind| ca(kind, context.cluster, now, keys);
        let service_accounts = keys.key_pair()?;
        let mut pki = Self {
            serving: ca(CaKind::Serving)?,
            client: ca(CaKind::Client)?,
            kubelet: ca(CaKind::Kubelet)?,
            front_proxy: ca(CaKind::FrontProxy)?,
            etcd: ca(CaKind::Etcd)?,
            link: ca(CaKind::Link)?,
            sa_public_pem: service_accounts.public_key_pem(),
            sa_key_pem: Zeroizing::new(service_accounts.serialize_pem()),
            encryption_key: Zeroizing::new(keys.bytes32()?),
            leaves: BTreeMap::new(),
        };
        pki.renew_leaves(context, now, keys)?;
        Ok(pki)
    }

    /// Makes the control plane's own certificates anew under the CAs there are: before they end, or when names or addresses changed.
    ///
    /// # Errors
    /// [`PkiError`] as [`ClusterPki::generate`]; nothing is changed then.
    pub fn renew_leaves(
        &mut self,
        context: &PkiContext<'_>,
        now: OffsetDateTime,
        keys: &dyn KeySource,
    ) -> Result<(), PkiError> {
        let validity = Validity::from_now(now, LIFETIME);
        let make = |kind: LeafKind| {
            let signer = &self.ca(kind.signed_by()).current;
            issue(signer, &context.subject(kind), validity, keys).map(|leaf| (kind, leaf))
        };
        self.leaves = LeafKind::ALL.into_iter().map(make).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The CA of a kind.
    pub const fn ca(&self, kind: CaKind) -> &CaBundle {
        match kind {
            CaKind::Serving => &self.serving,
            CaKind::Client => &self.client,
            CaKind::Kubelet => &self.kubelet,
            CaKind::FrontProxy => &self.front_proxy,
            CaKind::Etcd => &self.etcd,
            CaKind::Link => &self.link,
        }
    }

    /// A certificate of the control plane, PEM; empty when a stored value of an older kind lacks it.
    pub fn cert(&self, kind: LeafKind) -> &str {
        self.leaves.get(&kind).map_or("", |leaf| &leaf.cert_pem)
    }

    /// The key of a certificate of the control plane, PEM; empty as [`ClusterPki::cert`].
    pub fn key(&self, kind: LeafKind) -> &str {
        self.leaves.get(&kind).map_or("", |leaf| &leaf.key_pem)
    }

    /// Everything as JSON, to be encrypted by the caller before it rests anywhere.
    ///
    /// # Errors
    /// [`PkiError::Stored`] when it cannot be written, which does not happen with values made here.
    pub fn to_secret_json(&self) -> Result<Zeroizing<String>, PkiError> {
        serde_json::to_string(self).map(Zeroizing::new).map_err(PkiError::Stored)
    }

    /// Reads what [`ClusterPki::to_secret_json`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Stored`] for anything else.
    pub fn from_secret_json(text: &str) -> Result<Self, PkiError> {
        serde_json::from_str(text).map_err(PkiError::Stored)
    }
}

impl fmt::Debug for ClusterPki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPki").field("leaves", &self.leaves.keys()).finish_non_exhaustive()
    }
}
