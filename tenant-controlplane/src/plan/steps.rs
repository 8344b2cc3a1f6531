//! The steps of each kind of operation, as people watch them.

/// One step of an operation, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepInfo {
    /// A stable word for programs.
    pub key: &'static str,
    /// What people read.
    pub title: &'static str,
}

const fn step(key: &'static str, title: &'static str) -> StepInfo {
    StepInfo { key, title }
}

/// The steps of `cluster.create`, in order.
pub const CLUSTER_CREATE: [StepInfo; 5] = [
    step("accepted", "Request accepted"),
    step("datastore", "Start etcd"),
    step("control_plane", "Start control plane"),
    step("endpoint", "Verify endpoint"),
    step("addons", "Install RBAC and add-ons"),
];

/// The steps of `cluster.delete`, in order.
pub const CLUSTER_DELETE: [StepInfo; 4] = [
    step("nodes", "Drain nodes"),
    step("machines", "Delete machines"),
    step("namespace", "Delete control plane and data"),
    step("keys", "Delete certificates and keys"),
];

/// The steps of `node_pool.create`, in order.
pub const POOL_CREATE: [StepInfo; 3] = [
    step("accepted", "Request accepted"),
    step("machines", "Create machines"),
    step("ready", "Wait for nodes to become Ready"),
];

/// The steps of `node_pool.delete`, in order.
pub const POOL_DELETE: [StepInfo; 2] = [step("nodes", "Drain nodes"), step("machines", "Delete machines")];

/// The steps of `node.delete`, in order.
pub const NODE_DELETE: [StepInfo; 3] =
    [step("drain", "Drain pods"), step("machine", "Release machine"), step("node", "Delete Node object")];

/// The steps of an operation of that kind; empty for kinds without any.
pub const fn steps(operation_kind: &str) -> &'static [StepInfo] {
    match operation_kind.as_bytes() {
        b"cluster.create" => &CLUSTER_CREATE,
        b"cluster.delete" => &CLUSTER_DELETE,
        b"node_pool.create" => &POOL_CREATE,
        b"node_pool.delete" => &POOL_DELETE,
        b"node.delete" => &NODE_DELETE,
        _ => &[],
    }
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    Waiting,
    /// Begun, and not seen to be done.
    Running,
    /// Seen to be done.
    Done,
}
