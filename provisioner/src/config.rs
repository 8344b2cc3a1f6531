//! What the provisioner is given: the store, the host, the facts of the installation, and how patient to be.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cloud_providers::Provider;
use migrations::{Store, WorkKind};
use tenant_controlplane::render::{Images, Placement};
use tenant_controlplane::version::KubernetesVersion;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// Everything [`start`](crate::start) needs.
pub struct Config {
    /// The memory.
    pub store: Store,
    /// A client of the host cluster.
    pub host: kube::Client,
    /// What this installation is like.
    pub facts: Facts,
    /// Sources of machines, by their kind.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Who leases work: the instance's name, unique per running process. Leases that a dead process of that name left are dropped at start.
    pub owner: String,
    /// How patient to be.
    pub tuning: Tuning,
    /// Whether the host has processors to spare: otherwise what is made ahead is put off.
    pub leisure: watch::Receiver<bool>,
    /// Ends everything: no new work is taken, and what runs is given [`Tuning::drain`].
    pub cancel: CancellationToken,
}

/// What this installation is like, as far as clusters and machines must know.
#[derive(Clone, Debug)]
pub struct Facts {
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

/// How patient to be. The defaults are for production; tests shorten them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// How many clusters are reconciled at once; nodes get half as many places of their own, pools a quarter.
    pub concurrency: usize,
    /// How many control planes are kept ready for clusters to come. Each takes as much memory as any other control plane at rest.
    pub spares: usize,
    /// How long after a wish for a cluster none is made ahead: its owner goes on with machines.
    pub calm: Duration,
    /// How long a lease lasts; renewed at a third of it.
    pub lease: Duration,
    /// How long reconciles may wait inside for something to happen to one thing before they give their place to others.
    pub patience: Duration,
    /// How long one visit may talk with a tenant's API server: one that hangs costs its visit this much and no more.
    pub visit: Duration,
    /// Between two looks at an API server that does not answer yet.
    pub probe_every: Duration,
    /// Between two visits to something that is well.
    pub resync: Duration,
    /// Between two applications of objects that did not change.
    pub reapply: Duration,
    /// How long a control plane's pods wait for etcd's volume, where a claim gets one before its pod is there; zero where it does not.
    pub binding: Duration,
    /// How long a cluster that was running may fail its probes before people are told.
    pub grace: Duration,
    /// How long a step of a creation may wait before it says what for.
    pub murmur: Duration,
    /// How long it may wait before the cluster itself says what is wrong.
    pub alarm: Duration,
    /// How long the pods of a node that goes may take to move away.
    pub eviction: Duration,
    /// How long a machine of the user's own is given to reset itself before it is dropped.
    pub farewell: Duration,
    /// How long reconciles may go on after the end was asked for.
    pub drain: Duration,
    /// Waits after failures.
    pub backoff: Backoff,
}

impl Tuning {
    /// How many things of each kind are reconciled at once: each kind has places of its own, so that what is broken of one holds up
    /// nothing of another.
    pub fn places(&self) -> [(WorkKind, usize); 3] {
        let shares = [(WorkKind::Cluster, 1), (WorkKind::Node, 2), (WorkKind::NodePool, 4)];
        shares.map(|(kind, share)| (kind, (self.concurrency / share).max(1)))
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            concurrency: 16,
            spares: 0,
            calm: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            patience: Duration::from_secs(20),
            visit: Duration::from_secs(30),
            probe_every: Duration::from_millis(60),
            resync: Duration::from_secs(30),
            reapply: Duration::from_secs(600),
            binding: Duration::ZERO,
            grace: Duration::from_secs(3),
            murmur: Duration::from_secs(5),
            alarm: Duration::from_secs(15),
            eviction: Duration::from_secs(60),
            farewell: Duration::from_secs(20),
            drain: Duration::from_secs(10),
            backoff: Backoff::default(),
        }
    }
}
