//! One trait for every source of machines.
//!
//! A provider makes, finds and destroys machines; it decides nothing. The platform writes a node's row first, then calls
//! [`Provider::ensure`] with the row's id, so a lost answer or a crash never makes a twin. Every call may be repeated and may be cut
//! off in the middle. A provider that cannot see a machine answers an error, never "not there": unknown is not absent.
//!
//! Each provider lives in a crate of its own below this one and passes the same suite (`contract`, behind the feature of that name).

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

#[cfg(feature = "contract")]
pub mod contract;
mod error;
#[cfg(feature = "contract")]
pub mod memory;

pub use error::{ProviderError, ProviderErrorClass};

/// What the agent on a new machine needs to join its cluster.
#[derive(Clone, Debug)]
pub struct JoinMaterial {
    /// The gateway, `address:port`.
    pub server: String,
    /// The instance's DNS domain, which SNI names end in.
    pub domain: String,
    /// PEM of the CA that signed the gateway's certificate; the agent trusts nothing else.
    pub ca_pem: String,
    /// The key that signs the machine's parts, `ed25519:…`; the agent runs nothing else.
    pub signing_key: String,
    /// A one-use token, bound to this machine's node.
    pub token: SecretString,
}

/// A machine as it should be.
#[derive(Clone, Debug)]
pub struct MachineRequest {
    /// The node's id (`nod_…`): the idempotency token. Two requests with one id are one machine.
    pub id: String,
    /// The node's name, and the machine's host name: a DNS label.
    pub name: String,
    /// The id of the cluster it will join (`cls_…`), for tags.
    pub cluster: String,
    /// How it joins.
    pub join: JoinMaterial,
    /// The same as a `#cloud-config` document, for providers whose machines run cloud-init.
    pub user_data: String,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "message")]
pub enum MachineState {
    /// On its way.
    Creating,
    /// Powered on.
    Running,
    /// Powered off; [`Provider::start`] brings it back with its disk.
    Stopped,
    /// It will not come up; the text says why, for people.
    Failed(String),
}

/// A machine as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The id of its [`MachineRequest`].
    pub id: String,
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: MachineState,
    /// Its own address, when it has one already.
    pub address: Option<String>,
}

/// How far a removal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The machine was observed to be gone, with everything made for it.
    Gone,
    /// It is on its way out: ask again.
    InProgress,
}

/// A source of machines. All calls may be repeated, and several run at once for different machines.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The word for it, as node pools name it (`local`, `qemu`, `aws`).
    fn kind(&self) -> &'static str;

    /// Makes the machine unless it is there; returns it as it is now, which may still be [`MachineState::Creating`]. A machine that is
    /// there is left as it is, stopped ones too.
    ///
    /// # Errors
    /// [`ProviderError`] when it could not be made or looked for; nothing half-made stays behind that the next call would not finish.
    async fn ensure(&self, request: &MachineRequest) -> Result<Machine, ProviderError>;

    /// The machine of that id; `None` only when its absence was observed.
    ///
    /// # Errors
    /// [`ProviderError`] when it could not be looked for.
    async fn get(&self, id: &str) -> Result<Option<Machine>, ProviderError>;

    /// Every machine this instance has here.
    ///
    /// # Errors
    /// [`ProviderError`] when they could not be looked for.
    async fn list(&self) -> Result<Vec<Machine>, ProviderError>;

    /// Powers the machine off and keeps its disk; already off is fine.
    ///
    /// # Errors
    /// [`ProviderError`]; an unknown id is one too.
    async fn stop(&self, id: &str) -> Result<(), ProviderError>;

    /// Powers the machine on; already on is fine.
    ///
    /// # Errors
    /// [`ProviderError`]; an unknown id is one too.
    async fn start(&self, id: &str) -> Result<(), ProviderError>;

    /// Destroys the machine and all that was made for it. An unknown id is [`Removal::Gone`].
    ///
    /// # Errors
    /// [`ProviderError`] when it could not be destroyed or looked for.
    async fn remove(&self, id: &str) -> Result<Removal, ProviderError>;
}
