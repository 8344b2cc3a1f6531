//! Certificates and keys: one CA per purpose, so that no certificate is worth anything where it was not meant to be.
//!
//! Keys are ECDSA P-256 (fast to make and to check); CAs live ten years, leaves one. Every certificate begins five minutes before it was
//! made, because clocks differ. Key pairs come from a [`KeySource`] and the time is an argument. (Signing itself draws an ECDSA nonce
//! inside the crypto library, so two certificates of the same input differ in their signature and in nothing else.)

mod ca;
mod cluster;
mod kubeconfig_authority;
mod leaf;
mod platform;
mod renewal;
mod secret;
mod subject;

pub use ca::{Ca, CaBundle, CaKind};
pub use cluster::{ClusterPki, LeafKind, PkiContext};
pub(crate) use cluster::{FRONT_PROXY_NAME, KUBELET_API_USER};
pub use kubeconfig_authority::{
    KubeconfigAuthorities, KubeconfigSubject, client_trust_pem, generate_kubeconfig_authority, issue_kubeconfig_leaf,
    subject_der,
};
pub use leaf::{Leaf, Subject, Usage, Validity, issue, sign_csr};
pub use platform::{PlatformNames, PlatformPki};
pub use renewal::{Cause, end};
pub(crate) use subject::{KUBECONFIG_PREFIX, NODE_PROXIES, node_proxy_user};
pub use subject::{
    PLATFORM_GROUP, kube_proxy, kubeconfig_user_name, kubelet_client, kubelet_serving, kubelet_user, link_node,
    node_proxy, person, platform_access, provisioner_access, role_group,
};

use thiserror::Error;

/// Where key pairs and secret bytes come from: the caller's randomness.
pub trait KeySource: Send + Sync {
    /// A new ECDSA P-256 key pair.
    ///
    /// # Errors
    /// [`PkiError::Key`] when none can be made.
    fn key_pair(&self) -> Result<rcgen::KeyPair, PkiError>;

    /// 32 unpredictable bytes.
    ///
    /// # Errors
    /// [`PkiError::Random`] when there are none.
    fn bytes32(&self) -> Result<[u8; 32], PkiError>;
}

/// What can go wrong with certificates. Never holds key material.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A key pair could not be made or read.
    #[error("read or make key pair")]
    Key(#[source] rcgen::Error),
    /// There is no randomness.
    #[error("draw random bytes")]
    Random,
    /// A certificate could not be signed.
    #[error("sign certificate for `{subject}`")]
    Sign {
        /// The wanted common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A name cannot stand in a certificate.
    #[error("put name `{0}` into certificate")]
    Name(String),
    /// The stored CA certificate cannot be read.
    #[error("read CA certificate")]
    Ca(#[source] rcgen::Error),
    /// The certificate's times cannot be read.
    #[error("read certificate's validity")]
    Times,
    /// The signing request is not one, or its signature does not match its key.
    #[error("read certificate signing request")]
    Csr(#[source] rcgen::Error),
    /// The signing request's key is of another kind than ECDSA P-256.
    #[error("refuse signing request: its key must be ECDSA P-256")]
    CsrKey,
    /// The stored secret is not what was written.
    #[error("read stored certificates")]
    Stored(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests;
