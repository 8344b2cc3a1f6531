//! Hosts: the Kubernetes clusters that run control planes.

use tenant_controlplane::id::HostId;
use time::OffsetDateTime;

use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// A Kubernetes cluster that runs control planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Unique in the installation.
    pub name: String,
    /// When it was made known.
    pub created_at: OffsetDateTime,
}

impl TryFrom<table::host::Model> for Host {
    type Error = StoreError;

    fn try_from(model: table::host::Model) -> Result<Self, StoreError> {
        let created_at = codec::time("host time", model.created_at)?;
        Ok(Self { id: HostId::from_uuid(model.id), name: model.name, created_at })
    }
}
