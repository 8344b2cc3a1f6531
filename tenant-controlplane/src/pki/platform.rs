//! The platform's own certificates: the CA that joining machines and kubeconfig-less clients pin, and the gateway's serving certificate.

use std::net::IpAddr;

use node_protocol::{server_name, subject};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::ca::{Ca, CaBundle};
use super::leaf::{Leaf, Subject, Usage, Validity, issue};
use super::{KeySource, PkiError};

const LIFETIME: Duration = Duration::days(365);

/// What the gateway answers to besides the names of its domain.
#[derive(Clone, Copy, Debug)]
pub struct PlatformNames<'a> {
    /// The installation's domain.
    pub domain: &'a str,
    /// Further DNS names, such as the portal's public one.
    pub names: &'a [String],
    /// The addresses people and machines reach it by.
    pub ips: &'a [IpAddr],
}

impl PlatformNames<'_> {
    fn subject(&self) -> Subject {
        let domain = self.domain;
        let own = [domain.to_owned(), format!("portal.{domain}"), "localhost".to_owned()];
        let own = own.into_iter().chain(server_name::served_by_gateway(domain));
        Subject {
            cn: format!("pilothouse {domain}"),
            o: vec![subject::GATEWAY.to_owned()],
            dns_sans: own.chain(self.names.iter().cloned()).collect(),
            ip_sans: self.ips.to_vec(),
            // Gateways show it to each other too, where one forwards to another.
            usage: Usage::Both,
            ..Subject::default()
        }
    }
}

/// The platform's CA and the gateway's serving certificate. The JSON form is a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformPki {
    /// What people and machines trust.
    pub ca: CaBundle,
    /// What the gateway shows where it ends TLS itself.
    pub server: Leaf,
}

impl PlatformPki {
    /// Makes a new CA and a serving certificate.
    ///
    /// # Errors
    /// [`PkiError`] when a key cannot be made or a name cannot stand in a certificate.
    pub fn generate(names: &PlatformNames<'_>, now: OffsetDateTime, keys: &dyn KeySource) -> Result<Self, PkiError> {
        let ca = Ca::generate(&format!("pilothouse platform {}", names.domain), now, keys)?;
        let server = serving(&ca, names, now, keys)?;
        Ok(Self { ca: CaBundle::new(ca), server })
    }

    /// The same CA with a new serving certificate: at every start, so that it follows the machine's addresses and never ends.
    ///
    /// # Errors
    /// [`PkiError`] as [`PlatformPki::generate`].
    pub fn with_new_server(
        &self,
        names: &PlatformNames<'_>,
        now: OffsetDateTime,
        keys: &dyn KeySource,
    ) -> Result<Self, PkiError> {
        let server = serving(&self.ca.current, names, now, keys)?;
        Ok(Self { ca: self.ca.clone(), server })
    }

    /// Everything as JSON, to be kept where only the platform reads it.
    ///
    /// # Errors
    /// [`PkiError::Stored`] when it cannot be written, which does not happen with values made here.
    pub fn to_secret_json(&self) -> Result<Zeroizing<String>, PkiError> {
        serde_json::to_string(self).map(Zeroizing::new).map_err(PkiError::Stored)
    }

    /// Reads what [`PlatformPki::to_secret_json`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Stored`] for anything else.
    pub fn from_secret_json(text: &str) -> Result<Self, PkiError> {
        serde_json::from_str(text).map_err(PkiError::Stored)
    }
}

fn serving(ca: &Ca, names: &PlatformNames<'_>, now: OffsetDateTime, keys: &dyn KeySource) -> Result<Leaf, PkiError> {
    issue(ca, &names.subject(), Validity::from_now(now, LIFETIME), keys)
}
