//! The platform in one process: store, portal, gateway, agent service and provisioner, put together.

pub mod certificates;
pub mod directory;
pub mod gateways;
pub mod https;
pub mod issuer;
pub mod leisure;
pub mod machines;
pub mod metrics;
pub mod parts;
pub mod ports;
pub mod process;
pub mod releases;
pub mod removals;
pub mod revocations;
pub mod serve;
pub mod services;
pub mod sources;
pub mod spares;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cloud_providers::Provider;
use gateway::{Gateway, GatewayConfig, Limits};
use migrations::{ExposeSecret, GatewayInfo, Store};
use node_linux::sysctl;
use portal::{AgentFiles, Capabilities, PortalConfig, RequestLimits};
use provisioner::{Agents, Handle, InstallationInfo as Facts, LeaseOwner, Release, Releases};
use tenant_controlplane::render::{Placement, PullPolicy};
use tenant_controlplane::version::KubernetesVersion;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::components::{self, Bundles};
use crate::instance::{Instance, Record};
use crate::options::UpArgs;
use crate::progress::Progress;
use certificates::Certificates;
use embedded_host::isolation::Wall;
use embedded_host::site::{Addresses, remember_sysctls};
use embedded_host::{Host, NODE, control_plane, images, storage};
use services::Services;

/// The two ports, bound before anything is started.
pub struct Doors {
    /// The gateway's.
    pub gateway: TcpListener,
    /// The portal's, plain HTTP on loopback.
    pub portal: TcpListener,
    /// Where Prometheus may ask, if anywhere.
    pub metrics: Option<TcpListener>,
}

/// What a platform has to work with.
pub struct Means {
    /// The components, of one version or more.
    pub bundles: Bundles,
    /// Whether this process runs the host too.
    pub embedded: bool,
    /// What machine containers it makes.
    pub local: machines::Mode,
}

/// How long the gateway may take to tell that its links end, before the store is closed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between two tries to bring a version's images to the host.
const IMAGES_AGAIN: Duration = Duration::from_secs(10);
/// How long pods wait for etcd's volume: one made ahead is bound in a tenth of a second, one made on demand in two to four.
const BINDING: Duration = Duration::from_secs(10);

/// A platform that answers; after [`Platform::provision`] one that works.
pub struct Platform {
    instance: Instance,
    record: Record,
    store: Store,
    gateway: GatewayInfo,
    bundles: Bundles,
    local: machines::Mode,
    releases: watch::Sender<BTreeMap<KubernetesVersion, Release>>,
    ca_file: PathBuf,
    facts: Facts,
    services: Services,
    handle: Option<Handle>,
    host: Option<Host>,
}

impl Platform {
    /// Opens the store (migrating it) and both doors. The portal answers from here on, before the host is there.
    pub async fn open(
        instance: &Instance,
        record: &Record,
        doors: Doors,
        Means { bundles, embedded, local }: Means,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let store = Store::connect(&sources::database_url(instance)?, sources::kek(instance, record).await?)
            .await
            .context("open the database")?;
        let gateway = gateways::start(&store, process::instance_id(instance)?, record.advertise).await?;
        let addresses = Addresses::of(record.slot);
        let ips = addresses.gateway_names(record.advertise.ip());
        let certificates = certificates::load_or_create(&store, instance, &record.domain, &ips).await?;
        let (releases, known) = watch::channel(releases::of(&bundles, embedded)?);
        let mut facts = facts(record, known, &certificates, bundles.host.signer().to_string())?;
        if !embedded {
            // Pods of somebody else's host know no wire of ours: they reach the gateway as everybody does.
            facts.placement.gateway_ip = record.advertise.ip();
        }
        let mut platform = Self {
            instance: instance.clone(),
            record: record.clone(),
            store,
            gateway,
            bundles,
            local,
            releases,
            ca_file: certificates.ca_file.clone(),
            facts,
            services: Services::default(),
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

    fn open_doors(&mut self, doors: Doors, certificates: Certificates, cancel: &CancellationToken) -> Result<()> {
        let at = self.record.listen.ip();
        let ports = self.record.cluster_ports.map(|range| ports::ClusterPorts::new(self.store.clone(), at, range));
        let app = serve::Portal::new(portal::app(self.portal_config(&certificates.ca_pem, ports.clone())?));
        let (loopback, app) = (serve::loopback(app.clone(), doors.portal, cancel.clone()), app.layered(https::strict));
        self.services.go_on("the portal", loopback);
        let housekeeping = portal::housekeeping(self.store.clone(), cancel.clone());
        self.services.go_on("the portal's housekeeping", housekeeping);
        let agents = Agents::new(self.store.clone(), self.parts()?, Arc::new(self.facts.clone()));
        let gateway = Gateway::new(GatewayConfig {
            listener: doors.gateway,
            domain: self.record.domain.clone(),
            server_cert: (certificates.chain, certificates.key),
            peers: gateways::peers(&self.store, &self.gateway, &certificates.ca_pem),
            directory: directory::StoreDirectory::new(self.store.clone(), self.gateway.id),
            portal: serve::portal(app),
            link: serve::link(agents, cancel.clone()),
            limits: Limits::default(),
        })?;
        if let Some(listener) = doors.metrics {
            let scrapes = metrics::serve(listener, self.store.clone(), gateway.clone(), cancel.clone());
            self.services.keep("the metrics", scrapes);
        }
        let known = gateways::follow(self.store.clone(), self.gateway, gateway.clone(), cancel.clone());
        self.services.go_on("the gateway's place among others", known);
        let removals = removals::follow(self.store.clone(), gateway.clone(), cancel.clone());
        self.services.go_on("the watch for removals", removals);
        let revocations = revocations::follow(self.store.clone(), gateway.clone(), cancel.clone());
        self.services.go_on("the watch for revocations", revocations);
        if let Some(ports) = ports {
            self.services.go_on("the clusters' own ports", ports.follow(gateway.clone(), cancel.clone()));
        }
        let ips = Addresses::of(self.record.slot).gateway_names(self.record.advertise.ip());
        let about = (self.instance.clone(), self.record.domain.clone(), ips);
        let renewal = certificates::keep_fresh(self.store.clone(), about, gateway.clone(), cancel.clone());
        self.services.go_on("the renewal of the gateway's certificate", renewal);
        let cancel = cancel.clone();
        self.services.keep("the gateway", async move { Ok(gateway.run(cancel).await?) });
        Ok(())
    }

    fn portal_config(&self, ca_pem: &str, ports: Option<Arc<ports::ClusterPorts>>) -> Result<PortalConfig> {
        let agent = self.bundles.host.artefact(components::AGENT).context("the bundle has no agent: build it again")?;
        Ok(PortalConfig {
            store: self.store.clone(),
            public_url: self.facts.portal_url.clone(),
            gateway_address: self.record.advertise.to_string(),
            domain: self.record.domain.clone(),
            platform_ca_pem: ca_pem.to_owned(),
            versions: self.bundles.iter().map(|(version, _)| version).collect(),
            agent: AgentFiles {
                path: self.bundles.host.path(agent),
                sha256: agent.sha256.clone(),
                signing_key: self.facts.signing_key.clone(),
                machine: std::env::consts::ARCH.to_owned(),
            },
            capabilities: Capabilities { local: self.local.into(), dns: self.record.has_dns(), ports: ports.is_some() },
            limits: RequestLimits::default(),
            issuer: Arc::new(issuer::StoreIssuer::new(self.store.clone(), self.facts.clone(), ports)),
        })
    }

    fn parts(&self) -> Result<Arc<parts::BundleParts>> {
        Ok(Arc::new(parts::BundleParts::new(self.bundles.clone(), self.instance.path("run"))?))
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
        let providers = match self.local {
            machines::Mode::Off => Vec::new(),
            _ => self.local(args, progress).await?,
        };
        let client = host.clone();
        // How much a host works that is not this machine is not known.
        let leisure = if embedded { self.leisure(cancel) } else { watch::channel(true).1 };
        let config = provisioner::Config {
            store: self.store.clone(),
            host,
            installation: self.facts.clone(),
            providers,
            owner: LeaseOwner::new(process::instance_id(&self.instance)?),
            tuning: tuning(args),
            host_idle: leisure,
            cancel: cancel.clone(),
        };
        let handle = provisioner::start(config);
        if embedded {
            self.services.keep("the wall between tenants", keep_apart(self.wall()?, &handle, cancel));
            let volumes = storage::keep_ready(client, self.instance.path("volumes"), NODE.to_owned(), cancel.clone());
            self.services.go_on("the making of volumes", volumes);
            self.load_others(cancel);
        }
        self.handle = Some(handle);
        Ok(())
    }

    /// Whether this machine has processors to spare, as it changes.
    fn leisure(&mut self, cancel: &CancellationToken) -> watch::Receiver<bool> {
        let (sender, leisure) = watch::channel(false);
        let look = cancel.clone().run_until_cancelled_owned(leisure::follow(sender));
        self.services.go_on("the look at the processors", async { look.await.unwrap_or_default() });
        leisure
    }

    /// Brings the images of the other versions to the host, one after another; clusters of a version wait until it is there.
    fn load_others(&self, cancel: &CancellationToken) {
        let site = self.instance.site(Addresses::of(self.record.slot));
        let (bundles, releases) = (self.bundles.clone(), self.releases.clone());
        let work = async move {
            for (version, bundle) in &bundles.others {
                while let Err(error) = images::load(&site, &bundles.host, bundle).await {
                    warn!("Kubernetes {version} cannot be used yet, and is tried again: {error:#}");
                    tokio::time::sleep(IMAGES_AGAIN).await;
                }
                releases.send_modify(|all| all.get_mut(version).into_iter().for_each(|one| one.loaded = true));
            }
        };
        tokio::spawn(cancel.clone().run_until_cancelled_owned(work));
    }

    async fn local(&self, args: &UpArgs, progress: &Progress) -> Result<Vec<Arc<dyn Provider>>> {
        let tree = components::node_tree(args.cache.clone(), progress).await?;
        remember_sysctls(&sysctl::LOCAL_MACHINES)?;
        let closed = machines::closed(&self.store, self.local).await?;
        closed.iter().for_each(|why| progress.note(why));
        let making = machines::Making { lower: tree, mode: self.local, closed };
        let local = machines::provider(&self.instance, &self.record, &self.bundles.host, making)?;
        machines::resume(local.as_ref(), progress).await?;
        Ok(vec![local])
    }

    /// The wall between tenants; its only door is the gateway.
    pub fn wall(&self) -> Result<Wall> {
        let gateway = SocketAddr::new(self.facts.placement.gateway_ip, self.facts.placement.gateway_port);
        let SocketAddr::V4(gateway) = gateway else { bail!("the gateway's address {gateway} is not IPv4") };
        Ok(Wall::new(self.instance.site(Addresses::of(self.record.slot)), gateway))
    }

    /// What machine containers it makes.
    pub const fn local_mode(&self) -> machines::Mode {
        self.local
    }

    /// The CA to pin, for people.
    pub fn ca_file(&self) -> PathBuf {
        self.ca_file.clone()
    }

    /// Where everything is kept.
    pub fn store(&self) -> Store {
        self.store.clone()
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

    /// Waits for the first service that ends and must not, and says why.
    pub async fn failed(&mut self) -> anyhow::Error {
        self.services.ended().await
    }

    /// Stops taking work, lets what runs come to its next safe point, and closes the store.
    pub async fn stop(mut self, cancel: &CancellationToken) {
        cancel.cancel();
        if let Some(handle) = self.handle {
            handle.finish().await;
        }
        if let Some(host) = self.host {
            host.stop().await;
        }
        self.services.finish(LAST_WORDS).await;
        self.store.close().await;
    }
}

/// How the provisioner treats the host. Where that is this very machine, claims are bound before their pods are there.
fn tuning(args: &UpArgs) -> provisioner::Tuning {
    let binding = if args.host_kubeconfig.is_none() { BINDING } else { Duration::ZERO };
    provisioner::Tuning {
        volume_bind_timeout: binding,
        standby: usize::from(spares::wanted(args)),
        ..provisioner::Tuning::default()
    }
}

/// What every part of the platform must agree on.
fn facts(record: &Record, releases: Releases, certificates: &Certificates, signing_key: String) -> Result<Facts> {
    let addresses = Addresses::of(record.slot);
    let gateway_ip =
        if record.listen.ip().is_unspecified() { IpAddr::V4(addresses.outside()) } else { record.listen.ip() };
    let dial = if record.listen.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { record.listen.ip() };
    let own = releases.borrow().get(&KubernetesVersion::default()).map(|release| release.images.clone());
    let images = own.context("the default version has no bundle")?;
    let placement = Placement {
        domain: record.domain.clone(),
        gateway_ip,
        gateway_port: record.listen.port(),
        advertised: record.advertise.to_string(),
        platform_ca_pem: certificates.ca_pem.clone(),
        storage_class: None,
        images,
        pull_policy: PullPolicy::Never,
        fsync: true,
        etcd_ip: None,
    };
    Ok(Facts {
        domain: record.domain.clone(),
        placement,
        gateway: SocketAddr::new(dial, record.listen.port()),
        machine_gateway: machines::dialed(record).to_string(),
        platform_ca_pem: certificates.ca_pem.clone(),
        signing_key,
        direct: record.cluster_ports.map(|_| record.advertise.ip()).into_iter().collect(),
        portal_url: format!("https://{}", record.advertise),
        releases,
    })
}

/// Moves the wall with every pod until `cancel`.
fn keep_apart(wall: Wall, handle: &Handle, cancel: &CancellationToken) -> impl Future<Output = Result<()>> + use<> {
    let (changes, cancel) = (handle.isolation(), cancel.clone());
    async move {
        cancel.run_until_cancelled(wall.follow(changes)).await;
        Ok(())
    }
}

/// A client of a cluster that somebody else runs.
pub async fn foreign_host(file: &Path) -> Result<kube::Client> {
    Ok(control_plane::from_file(file).await?)
}
