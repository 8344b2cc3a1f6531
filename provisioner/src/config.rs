//! What the provisioner is given: the store, the host, the installation, concurrency and timeouts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cloud_providers::Provider;
use migrations::{Store, WorkKind};
use tenant_controlplane::render::{Images, Placement};
use tenant_controlplane::version::KubernetesVersion;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;

/// Everything [`start`](crate::start) needs.
pub struct Config {
    /// The store.
    pub store: Store,
    /// A client of the host cluster.
    pub host: kube::Client,
    /// What this installation is like.
    pub installation: InstallationInfo,
    /// Sources of machines, by their kind.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Who leases work.
    pub owner: LeaseOwner,
    /// Concurrency and timeouts.
    pub tuning: Tuning,
    /// Whether the host's CPUs are idle: otherwise standby control planes wait.
    pub host_idle: watch::Receiver<bool>,
    /// Ends everything: no new work is taken, and what runs is given [`Tuning::shutdown_timeout`].
    pub cancel: CancellationToken,
}

/// Who leases work: one running process of an instance, whose processes follow each other and never run at the same time. Leases that an
/// ended one left are dropped when the next one starts; leases of other instances run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOwner {
    instance: String,
    process: String,
}

impl LeaseOwner {
    /// This process as one of the instance with this id, which no other instance on the same database may have.
    pub fn new(instance: Uuid) -> Self {
        let (process, random) = (std::process::id(), Uuid::now_v7().simple());
        Self { instance: format!("{}/", instance.simple()), process: format!("{process}-{random}") }
    }

    /// What the names of all processes of the instance begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.instance
    }
}

impl fmt::Display for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.instance, self.process)
    }
}

/// What this installation is like, as far as clusters and machines must know.
#[derive(Clone, Debug)]
pub struct InstallationInfo {
    /// The DNS domain of SNI names.
    pub domain: String,
    /// Where and how control planes run; the address of each cluster's etcd and the images of its version are filled in here.
    pub placement: Placement,
    /// The gateway as this process dials it, for the outside-in probe.
    pub gateway: SocketAddr,
    /// The gateway as machines dial it, `address:port`.
    pub machine_gateway: String,
    /// PEM of the CA that signed the gateway's own certificate.
    pub platform_ca_pem: String,
    /// The key that signs machines' parts, `ed25519:…`: machines trust it from their first moment, as they do the CA.
    pub signing_key: String,
    /// Addresses by which clients dial API servers without asking for a name: their certificates cover them. Empty while no cluster may
    /// have a port of its own.
    pub direct: Vec<IpAddr>,
    /// Where people and machines reach the portal, for the line that joins.
    pub portal_url: String,
    /// The Kubernetes versions that are here.
    pub releases: Releases,
}

/// The Kubernetes versions of an installation: all from the start, and each `loaded` as soon as the host has its images.
pub type Releases = watch::Receiver<BTreeMap<KubernetesVersion, Release>>;

/// What a cluster of one Kubernetes version is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The images of the control plane.
    pub images: Images,
    /// The image reference of CoreDNS inside tenants' clusters.
    pub coredns_image: String,
    /// Whether the host can start pods of it.
    pub loaded: bool,
}

/// Concurrency and timeouts. The defaults are for production; tests shorten them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How many clusters are reconciled at once; nodes have half as many permits of their own, pools a quarter.
    pub concurrency: usize,
    /// Number of standby control planes. Each takes as much memory as any other idle control plane.
    pub standby: usize,
    /// How long after a cluster was requested no standby control plane is created: its owner continues with machines.
    pub standby_cooldown: Duration,
    /// How long a lease lasts; renewed at a third of it.
    pub lease: Duration,
    /// How long a reconcile may wait for one resource before it gives its permit to others.
    pub reconcile_timeout: Duration,
    /// How long one reconcile may talk with a tenant's API server: one that hangs costs this much and no more.
    pub tenant_timeout: Duration,
    /// Between two probes of an API server that does not answer yet.
    pub probe_every: Duration,
    /// Between two reconciles of what is settled.
    pub resync: Duration,
    /// Between two applications of objects that did not change.
    pub reapply: Duration,
    /// How long a control plane's pods wait for etcd's volume, where a claim gets one before its pod is there; zero where it does not.
    pub volume_bind_timeout: Duration,
    /// How long a cluster that was running may fail its probes before that is reported.
    pub probe_grace: Duration,
    /// How long a step of a creation may wait before its message says what for.
    pub step_message_after: Duration,
    /// How long it may wait before it becomes the cluster's problem.
    pub problem_after: Duration,
    /// How long draining a node may take.
    pub drain_timeout: Duration,
    /// How long a user's own machine may take to reset before it is given up.
    pub reset_timeout: Duration,
    /// How long running reconciles may take after shutdown was requested.
    pub shutdown_timeout: Duration,
    /// Waits after failures.
    pub backoff: Backoff,
}

impl Tuning {
    /// How many resources of each kind are reconciled at once: each kind has permits of its own, so that what is broken of one holds up
    /// nothing of another.
    pub fn permits(&self) -> [(WorkKind, usize); 3] {
        let shares = [(WorkKind::Cluster, 1), (WorkKind::Node, 2), (WorkKind::NodePool, 4)];
        shares.map(|(kind, share)| (kind, (self.concurrency / share).max(1)))
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            concurrency: 16,
            standby: 0,
            standby_cooldown: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            reconcile_timeout: Duration::from_secs(20),
            tenant_timeout: Duration::from_secs(30),
            probe_every: Duration::from_millis(60),
            resync: Duration::from_secs(30),
            reapply: Duration::from_secs(600),
            volume_bind_timeout: Duration::ZERO,
            probe_grace: Duration::from_secs(3),
            step_message_after: Duration::from_secs(5),
            problem_after: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(60),
            reset_timeout: Duration::from_secs(20),
            shutdown_timeout: Duration::from_secs(10),
            backoff: Backoff::default(),
        }
    }
}
