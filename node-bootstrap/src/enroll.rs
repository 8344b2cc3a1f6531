//! Trades the join token for certificates and the first configuration.
//!
//! The one call made without a client certificate: TLS to the gateway under `link.<domain>`, trusting only the CA that came with
//! the token. The token travels in the request's body and nowhere else.

use hyper_util::rt::TokioIo;
use node_protocol::enrollment_client::EnrollmentClient;
use node_protocol::{EnrollReply, EnrollRequest, MachineFacts, alpn, server_name};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::config::JoinConfig;
use crate::connect::{ConnectError, Dialer, tls_config};
use crate::pki::{PkiError, Store};
use crate::signature::{self, SignatureError};

/// The longest name Kubernetes takes for a node here: one DNS label.
const NAME_MAX: usize = 63;

/// An enrollment that failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The gateway could not be reached or trusted.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// gRPC could not be spoken.
    #[error("talk to the platform")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The platform said no.
    #[error("{}: {}", heading(status.code()), status.message())]
    Refused {
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// Keys.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The platform's parts are not what its signing key signed.
    #[error(
        "the platform's first configuration was refused, and nothing was installed: {0}; ask the platform's operator to run `pilothouse bundle verify`, then paste a new join line"
    )]
    Signature(#[from] SignatureError),
    /// The answer misses what a node needs.
    #[error("the platform's answer has no {0}")]
    Incomplete(&'static str),
}

impl EnrollError {
    /// True when the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        use tonic::Code;
        match self {
            Self::Refused { status } => {
                matches!(
                    status.code(),
                    Code::FailedPrecondition
                        | Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::Cancelled
                        | Code::Unknown
                )
            }
            Self::Connect(ConnectError::Tcp { .. } | ConnectError::Slow { .. } | ConnectError::Proxy { .. }) => true,
            Self::Transport(_) => true,
            Self::Connect(_) | Self::Pki(_) | Self::Signature(_) | Self::Incomplete(_) => false,
        }
    }
}

fn heading(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Unauthenticated => "the join token is not accepted",
        Code::PermissionDenied => "this machine may not join",
        Code::FailedPrecondition => "the cluster is not ready yet",
        Code::Unavailable => "the platform is not reachable",
        _ => "the platform refused",
    }
}

/// What this machine says of itself.
#[derive(Debug)]
pub struct Applicant {
    /// Binds the token to the machine.
    pub fingerprint: String,
    /// Its facts.
    pub facts: MachineFacts,
    /// Its keys.
    pub keys: Store,
}

/// The name under which the node asks to be known: the requested one, or the hostname made into a DNS label.
pub fn node_name(requested: &str, hostname: &str) -> String {
    let source = if requested.is_empty() { hostname.split('.').next().unwrap_or_default() } else { requested };
    let lower = source.to_lowercase();
    let name: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(NAME_MAX).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "node".into() } else { name.to_owned() }
}

/// Enrolls once. On success the certificates are on disk; the reply's configuration is still to be kept by the caller.
pub async fn enroll(join: &JoinConfig, applicant: &Applicant) -> Result<EnrollReply, EnrollError> {
    enroll_by(&Dialer::from_env(&join.server)?, join, applicant).await
}

async fn enroll_by(dialer: &Dialer, join: &JoinConfig, applicant: &Applicant) -> Result<EnrollReply, EnrollError> {
    let name = node_name(&join.node_name, &applicant.facts.hostname);
    let pending = applicant.keys.prepare(&name)?;
    let [link_csr, kubelet_csr, proxy_csr, serving_csr] = pending.requests.clone();
    let request = EnrollRequest {
        token: join.token.to_string(),
        fingerprint: applicant.fingerprint.clone(),
        facts: Some(applicant.facts.clone()),
        link_csr,
        kubelet_csr,
        proxy_csr,
        serving_csr,
        node_name: name,
    };
    let mut client = EnrollmentClient::new(channel(dialer, join).await?);
    let reply =
        client.enroll(request).await.map_err(|status| EnrollError::Refused { status: Box::new(status) })?.into_inner();
    let certificates = reply.certificates.as_ref().ok_or(EnrollError::Incomplete("certificates"))?;
    let config = reply.config.as_ref().ok_or(EnrollError::Incomplete("configuration"))?;
    signature::check(config, &join.signing_key)?;
    applicant.keys.accept(&pending, certificates)?;
    Ok(reply)
}

async fn channel(dialer: &Dialer, join: &JoinConfig) -> Result<Channel, EnrollError> {
    let config = tls_config(&join.ca_pem, None, alpn::GRPC)?;
    let name = server_name::enrollment(&join.domain);
    // Dialled here and not by the channel, so that its error keeps its type.
    let stream = dialer.tls(config, &name).await?;
    let mut ready = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = ready.take().ok_or_else(|| std::io::Error::other("the connection to the platform was lost"));
        async move { stream }
    });
    let endpoint =
        Endpoint::from_shared(format!("http://{name}")).map_err(|error| EnrollError::Transport(error.into()))?;
    let endpoint = endpoint.timeout(std::time::Duration::from_secs(30));
    endpoint.connect_with_connector(connector).await.map_err(|error| EnrollError::Transport(error.into()))
}

#[cfg(test)]
#[path = "enroll_tests.rs"]
mod tests;
