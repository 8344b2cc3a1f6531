//! A Kubernetes API as the reconcilers use it: apply, get, list, select, delete, health, two watches. The host is one, each tenant is one.
//!
//! Two implementations: [`kube`], and in tests a scripted one that fails at any call it is told to. Objects are JSON values from the
//! domain crate; server-side apply with one field manager makes every call safe to repeat. `None` and an empty list mean *observed*
//! absence; what could not be seen is an error.

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

pub mod bindings;
pub mod bounded;
mod handshake;
pub mod kube;
mod meta;
pub mod resources;
#[cfg(test)]
pub(crate) mod testing;

pub use meta::Meta;
pub use tenant_controlplane::observation::{Component, Health, NodeStatus, PodInfo, WaitingReason};

/// The field manager of everything we apply.
pub const FIELD_MANAGER: &str = "pilothouse";
/// How long one call may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(15);
/// The most objects that one list may have, over all its pages.
pub const LIST_LIMIT: usize = 5000;

/// Why a call did not succeed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// It answered, and refused.
    #[error("{what} was refused ({code}): {message}")]
    Rejected {
        /// The call.
        what: String,
        /// The HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// It did not answer.
    #[error("unreachable")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not answer in time.
    #[error("no response within {} s", CALL_LIMIT.as_secs())]
    Timeout,
    /// It answered each call, and so slowly that the visit had no end, or it let them all wait.
    #[error("requests not completed within {} s", .0.as_secs())]
    Slow(Duration),
    /// It answered more than is read: bytes of one answer ([`bounded`]) or objects of one list.
    #[error("{0}: response too large")]
    TooLong(String),
    /// The object is of a kind we never apply, or lacks its name.
    #[error("`{0}` is not an object of a known kind")]
    Unknown(String),
    /// Certificates or addresses that no client can be made of.
    #[error("client configuration failed")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    /// Whether it was refused for want of rights.
    pub const fn is_forbidden(&self) -> bool {
        matches!(self, Self::Rejected { code: 403, .. })
    }

    /// What kind of error it is, as problem codes tell them apart.
    pub const fn kind(&self) -> ApiErrorKind {
        match self {
            Self::Rejected { .. } => ApiErrorKind::Refused,
            Self::Unreachable(_) | Self::Timeout | Self::Slow(_) => ApiErrorKind::Unreachable,
            Self::TooLong(_) => ApiErrorKind::TooLong,
            Self::Unknown(_) | Self::Client(_) => ApiErrorKind::Defect,
        }
    }
}

/// The kinds of [`ApiError`] that people are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// It answered, and refused.
    Refused,
    /// It did not answer, or not in time.
    Unreachable,
    /// It answered more than is read.
    TooLong,
    /// The request could not be made.
    Defect,
}

/// Where an object is: what is needed to get or delete it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// `Namespace`, `StatefulSet`, …
    pub kind: String,
    /// None for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// A cluster-wide object.
    pub fn global(api_version: &str, kind: &str, name: &str) -> Self {
        let (api_version, kind, name) = (api_version.to_owned(), kind.to_owned(), name.to_owned());
        Self { api_version, kind, namespace: None, name }
    }

    /// An object in a namespace.
    pub fn namespaced(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::global(api_version, kind, name) }
    }

    /// Where this object is.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] when it does not say what and where it is.
    pub fn of(object: &Value) -> Result<Self, ApiError> {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let unknown = || ApiError::Unknown(format!("{} {}", object["kind"], object["metadata"]["name"]));
        Ok(Self {
            api_version: text(&object["apiVersion"]).ok_or_else(unknown)?,
            kind: text(&object["kind"]).ok_or_else(unknown)?,
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]).ok_or_else(unknown)?,
        })
    }
}

/// A change of what is watched.
#[derive(Clone, Debug)]
pub enum WatchEvent<T> {
    /// The whole truth, again.
    All(Vec<T>),
    /// One is new or different.
    Changed(T),
    /// One is gone.
    Gone(T),
}

/// A watch; it ends with an error when it breaks, and is then begun again by its owner.
pub type Watch<T> = BoxStream<'static, Result<WatchEvent<T>, ApiError>>;

/// One Kubernetes API.
#[async_trait]
pub trait Kubernetes: Send + Sync {
    /// Server-side applies one object, taking fields over from others; answers it as it is now.
    async fn apply(&self, object: &Value) -> Result<Value, ApiError>;
    /// One object; `None` is observed absence.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, ApiError>;
    /// All objects of a kind, in all namespaces: of the host alone, because a tenant's may be of any number and size.
    async fn list(&self, api_version: &str, kind: &str) -> Result<Vec<Value>, ApiError>;
    /// The metadata of the objects of a kind that carry these labels (`name=value,…`), of one namespace or of a cluster-wide kind.
    async fn metadata(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Meta>, ApiError>;
    /// Whether there is such an object; nothing of it but its metadata is read.
    async fn exists(&self, key: &ObjectKey) -> Result<bool, ApiError>;
    /// The objects of a kind that carry these labels (`name=value,…`; empty: whatever they carry), of one namespace or of all; as for
    /// [`Kubernetes::list`] of the host alone, or of a tenant where "too much to read" is a good answer too.
    async fn select(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, ApiError>;
    /// The role bindings of all namespaces, and of the cluster, that name these users, by user.
    async fn bindings_of(&self, users: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<ObjectKey>>, ApiError>;
    /// The metadata of the Secrets of all namespaces that hold a token of a service account, which never expires.
    async fn token_secrets(&self) -> Result<Vec<Meta>, ApiError>;
    /// Begins the deletion of one object; one that is not there is fine.
    async fn delete(&self, key: &ObjectKey) -> Result<(), ApiError>;
    /// Ends a pod at once, without waiting for its kubelet; one that is not there is fine.
    async fn end(&self, key: &ObjectKey) -> Result<(), ApiError>;
    /// Takes an object's finalizers off, so that its deletion waits for nobody; one that is not there is fine.
    async fn release(&self, key: &ObjectKey) -> Result<(), ApiError>;
    /// Whether a user is denied whatever it asks: not for want of a role, but by an authorizer that says no (SubjectAccessReview).
    async fn denies(&self, user: &str) -> Result<bool, ApiError>;
    /// Whether an object would be taken if it were applied: asks admission, and changes nothing (`dryRun=All`).
    async fn would_take(&self, object: &Value) -> Result<(), ApiError>;
    /// The pods that are on a node and have not ended, in all namespaces.
    async fn pods_on(&self, node: &str) -> Result<Vec<Meta>, ApiError>;
    /// What a pod answers to a plain GET at one of its ports, asked for by the API server: status and text.
    async fn ask_pod(&self, pod: &ObjectKey, port: u16, path: &str) -> Result<(u16, String), ApiError>;
    /// Asks a pod to end, unless a disruption budget forbids it (429); one that is not there is fine.
    async fn evict(&self, namespace: &str, pod: &str) -> Result<(), ApiError>;
    /// How far the API server has come.
    async fn health(&self) -> Health;
    /// Whether an ordinary authenticated request is answered.
    async fn answers(&self) -> Result<(), ApiError>;
    /// Watches all pods of tenants' control planes.
    fn watch_pods(&self) -> Watch<PodInfo>;
    /// Watches the nodes.
    fn watch_nodes(&self) -> Watch<NodeStatus>;
}

/// Where a tenant's API is.
#[derive(Clone)]
pub struct Site {
    /// `address:port` to dial.
    pub address: String,
    /// The name to ask for and to expect.
    pub server_name: String,
    /// What to trust, PEM.
    pub ca_pem: String,
}

/// What is needed to reach a tenant's API as someone.
#[derive(Clone)]
pub struct TenantConnection {
    /// Where it is.
    pub site: Site,
    /// Who calls.
    pub identity: tenant_controlplane::pki::Leaf,
}

/// The subjects of the authorities that a TLS server says it believes, DER.
pub type Announced = BTreeSet<Vec<u8>>;

/// Creates clients of tenants.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Whom the API server behind that address says it believes: asked by a handshake, without a certificate.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`] or [`ApiError::Timeout`] when it does not answer.
    async fn announced(&self, site: &Site) -> Result<Announced, ApiError>;

    /// A client for that connection; nothing is dialed yet.
    ///
    /// # Errors
    /// [`ApiError::Client`] when no client can be made of what was given.
    fn connect(&self, connection: &TenantConnection) -> Result<Arc<dyn Kubernetes>, ApiError>;
}
