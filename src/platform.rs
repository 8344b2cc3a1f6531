//! The platform in one process: store, portal, gateway, agent service and provisioner, put together.

pub mod certificates;
pub mod directory;
pub mod issuer;
pub mod machines;
pub mod parts;
pub mod removals;
pub mod serve;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bundle::Bundle;
use cloud_providers::Provider;
use gateway::{Gateway, GatewayConfig, Limits};
use migrations::{ExposeSecret, Kek, Store};
use portal::{AgentFiles, Capabilities, PortalConfig};
use provisioner::{Agents, Facts, Handle};
use tenant_controlplane::render::{Images, Placement, PullPolicy};
use tenant_controlplane::version::KubernetesVersion;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::components;
use crate::host::isolation::{State, Wall};
use crate::host::{Host, control_plane, storage};
use crate::instance::{Addresses, Instance, Record};
use crate::options::UpArgs;
use crate::progress::Progress;
use certificates::Certificates;

/// The two ports, bound before anything is started.
pub struct Doors {
    /// The gateway's.
    pub gateway: TcpListener,
    /// The portal's, plain HTTP on loopback.
    pub portal: TcpListener,
}

/// A platform that answers; after [`Platform::provision`] one that works.
pub struct Platform {
    instance: Instance,
    record: Record,
    store: Store,
    bundle: Arc<Bundle>,
    ca_file: PathBuf,
    facts: Facts,
    handle: Option<Handle>,
    host: Option<Host>,
}

impl Platform {
    /// Opens the store (migrating it) and both doors. The portal answers from here on, before the host is there.
    pub async fn open(
        instance: &Instance,
        record: &Record,
        doors: Doors,
        (bundle, embedded): (Arc<Bundle>, bool),
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let kek = Kek::load_or_create(&instance.path("kek")).context("read the key-encryption key")?;
        let store = Store::connect(&database_url(instance)?, kek).await.context("open the database")?;
        store.nodes().reset_links().await.context("forget links of an earlier run")?;
        let addresses = Addresses::of(record.slot);
        let ips = addresses.gateway_names(record.advertise.ip());
        let certificates = certificates::load_or_create(&store, instance, &record.domain, &ips).await?;
        let mut facts = facts(record, &bundle, &certificates)?;
        if !embedded {
            // Pods of somebody else's host know no wire of ours: they reach the gateway as everybody does.
            facts.placement.gateway_ip = record.advertise.ip();
        }
        let platform = Self {
            instance: instance.clone(),
            record: record.clone(),
            store,
            bundle,
            ca_file: certificates.ca_file.clone(),
            facts,
            handle: None,
            host: None,
        };
        platform.open_doors(doors, certificates, cancel)?;
        Ok(platform)
    }

    /// Remembers the host to stop at the end.
    pub fn host_on(&mut self, host: Host) -> &Host {
        self.host.insert(host)
    }

    fn open_doors(&self, doors: Doors, certificates: Certificates, cancel: &CancellationToken) -> Result<()> {
        let app = portal::app(self.portal_config(&certificates.ca_pem)?);
        tokio::spawn(serve::loopback(app.clone(), doors.portal, cancel.clone()));
        let agents = Agents::new(self.store.clone(), self.parts(), Arc::new(self.facts.clone()));
        let gateway = Gateway::new(GatewayConfig {
            listener: doors.gateway,
            domain: self.record.domain.clone(),
            server_cert: (certificates.chain, certificates.key),
            directory: directory::StoreDirectory::new(self.store.clone()),
            portal: Arc::new(move |stream, peer| drop(tokio::spawn(serve::portal(app.clone(), stream, peer)))),
            link: serve::link(agents, cancel.clone()),
            limits: Limits::default(),
        })?;
        tokio::spawn(removals::follow(self.store.clone(), gateway.clone(), cancel.clone()));
        let cancel = cancel.clone();
        tokio::spawn(async move {
            if let Err(error) = gateway.run(cancel).await {
                warn!("the gateway stopped: {error}");
            }
        });
        Ok(())
    }

    fn portal_config(&self, ca_pem: &str) -> Result<PortalConfig> {
        let agent = self.bundle.artefact("pilothouse-node").context("the bundle has no agent: build it again")?;
        Ok(PortalConfig {
            store: self.store.clone(),
            public_url: self.facts.portal_url.clone(),
            gateway_address: self.record.advertise.to_string(),
            domain: self.record.domain.clone(),
            platform_ca_pem: ca_pem.to_owned(),
            versions: vec![
                KubernetesVersion::parse(&self.bundle.manifest().kubernetes).context("read the bundle's version")?,
            ],
            agent: AgentFiles {
                path: self.bundle.path(agent),
                sha256: agent.sha256.clone(),
                machine: std::env::consts::ARCH.to_owned(),
            },
            capabilities: Capabilities { local: nix::unistd::geteuid().is_root() },
            issuer: Arc::new(issuer::StoreIssuer::new(self.store.clone(), self.facts.clone())),
        })
    }

    fn parts(&self) -> Arc<parts::BundleParts> {
        Arc::new(parts::BundleParts(self.bundle.clone()))
    }

    /// Starts the provisioner on a host that is ready, with the providers that this machine can offer.
    pub async fn provision(
        &mut self,
        host: kube::Client,
        args: &UpArgs,
        (cancel, progress): (&CancellationToken, &Progress),
    ) -> Result<()> {
        let embedded = args.host_kubeconfig.is_none();
        if embedded {
            self.facts.placement.storage_class = Some(storage::CLASS.to_owned());
        }
        let providers = if nix::unistd::geteuid().is_root() { self.local(args, progress).await? } else { Vec::new() };
        let config = provisioner::Config {
            store: self.store.clone(),
            host,
            facts: self.facts.clone(),
            providers,
            parts: self.parts(),
            owner: self.instance.name.clone(),
            tuning: provisioner::Tuning::default(),
            cancel: cancel.clone(),
        };
        let handle = provisioner::start(config);
        if embedded {
            self.keep_apart(&handle).await?;
        }
        self.handle = Some(handle);
        Ok(())
    }

    async fn local(&self, args: &UpArgs, progress: &Progress) -> Result<Vec<Arc<dyn Provider>>> {
        let tree = components::node_tree(args.cache.clone(), progress).await?;
        let local = machines::provider(&self.instance, Addresses::of(self.record.slot), &self.bundle, tree)?;
        machines::resume(local.as_ref(), progress).await?;
        Ok(vec![local])
    }

    /// Puts the wall between tenants up, and moves it with every pod.
    async fn keep_apart(&self, handle: &Handle) -> Result<()> {
        let gateway = SocketAddr::new(self.facts.placement.gateway_ip, self.facts.placement.gateway_port);
        let SocketAddr::V4(gateway) = gateway else { anyhow::bail!("the gateway's address {gateway} is not IPv4") };
        let wall = Wall::new(&self.instance, Addresses::of(self.record.slot), gateway);
        let mut changes = handle.isolation();
        wall.apply(&State::default()).await?;
        tokio::spawn(async move {
            loop {
                let state = {
                    let now = changes.borrow_and_update();
                    State { pairs: now.pairs.clone(), tenants: now.tenants.clone() }
                };
                if let Err(error) = wall.apply(&state).await {
                    warn!("{error:#}");
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// The CA to pin, for people.
    pub fn ca_file(&self) -> PathBuf {
        self.ca_file.clone()
    }

    /// A fresh one-use link while there is no owner.
    pub async fn setup_url(&self, record: &Record) -> Result<Option<String>> {
        let identity = self.store.identity();
        if !identity.setup_needed().await? {
            return Ok(None);
        }
        let secret = identity.create_setup_token().await?;
        Ok(Some(format!("http://{}/setup/{}", record.portal, secret.expose_secret())))
    }

    /// Stops taking work, lets what runs come to its next safe point, and closes the store.
    pub async fn stop(self, cancel: &CancellationToken) {
        cancel.cancel();
        if let Some(handle) = self.handle {
            handle.finish().await;
        }
        if let Some(host) = self.host {
            host.stop().await;
        }
        self.store.close().await;
    }
}

/// What every part of the platform must agree on.
fn facts(record: &Record, bundle: &Bundle, certificates: &Certificates) -> Result<Facts> {
    let addresses = Addresses::of(record.slot);
    let gateway_ip =
        if record.listen.ip().is_unspecified() { IpAddr::V4(addresses.outside()) } else { record.listen.ip() };
    let dial = if record.listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { record.listen.ip() };
    let image = |name: &str| -> Result<String> { Ok(bundle.image_ref(name)?.to_owned()) };
    let placement = Placement {
        domain: record.domain.clone(),
        gateway_ip,
        gateway_port: record.listen.port(),
        advertised: record.advertise.to_string(),
        platform_ca_pem: certificates.ca_pem.clone(),
        storage_class: None,
        images: Images {
            apiserver: image("kube-apiserver")?,
            controller_manager: image("kube-controller-manager")?,
            scheduler: image("kube-scheduler")?,
            etcd: image("etcd")?,
        },
        pull_policy: PullPolicy::Never,
        fsync: true,
        etcd_ip: None,
    };
    Ok(Facts {
        domain: record.domain.clone(),
        placement,
        gateway: SocketAddr::new(dial, record.listen.port()),
        machine_gateway: record.advertise.to_string(),
        platform_ca_pem: certificates.ca_pem.clone(),
        portal_url: format!("https://{}", record.advertise),
        coredns_image: image("coredns")?,
    })
}

/// A client of a cluster that somebody else runs.
pub async fn foreign_host(file: &Path) -> Result<kube::Client> {
    control_plane::from_file(file).await
}

/// The database of an instance: what `--database-url` said at some `up`, else a file in the data directory.
pub fn database_url(instance: &Instance) -> Result<String> {
    match std::fs::read_to_string(instance.path("database.url")) {
        Ok(url) => Ok(url.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("sqlite://{}", instance.path("pilothouse.db").display()))
        }
        Err(error) => Err(error).context("read database.url"),
    }
}

/// Keeps the database's address for the operator's other commands; it may hold a password.
pub fn keep_database_url(instance: &Instance, url: Option<&str>) -> Result<()> {
    match url {
        Some(url) => crate::host::pki::write_secret(&instance.path("database.url"), url.as_bytes()),
        None => Ok(()),
    }
}
