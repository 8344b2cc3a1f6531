//! Which pods of a host may meet, for a packet filter that keeps tenants apart.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What a packet filter has to know. A service address is rewritten to a pod's before packets are forwarded, so pairs of pod addresses suffice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationState {
    /// Source and destination that may meet: a control plane and its own etcd, members of one etcd.
    pub pairs: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// Every address of a tenant's pod.
    pub tenants: BTreeSet<Ipv4Addr>,
}
