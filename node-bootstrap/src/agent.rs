//! The joined agent's life: enroll once, follow the platform's configuration, and reset the machine when it was removed.

mod desired;
mod error;
mod installed;
mod instance_lock;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use node_linux::files;
use node_linux::sysctl;
use node_linux::{Backoff, describe};
use node_protocol::{Check, NodeConfig, NodePhase, Part};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::config::{JoinConfig, Paths};
use crate::enroll::{self, Applicant, EnrollError};
use crate::fetch::{self, PartStore};
use crate::ledger::{self, Accepted, Ledger, Membership};
use crate::link::{Event, Link, Told};
use crate::reset;
use crate::runtime::{self, Runtime, RuntimeError};
use crate::spec::Layout;
use crate::status::{Board, Phase};
use crate::tunnel::target::Targets;
use crate::{api_proxy, kubelet, machine, network, pki, signature, tunnel};

pub use error::AgentError;
use installed::record;

/// The group of the agent's children on a joined machine.
pub const SERVICES: &str = "/pilothouse-node/services";

/// The CNI network's name on a joined machine.
const NETWORK: &str = "pilothouse";

/// How long a start waits for certificates that are due: the node can come up with what it has.
const DUE: Duration = Duration::from_secs(5);
/// And for those that have ended: without them kubelet comes up for nothing, and looks for new ones only every five minutes.
const ENDED: Duration = Duration::from_secs(60);

/// What the user chose on the command line of `join`.
#[derive(Debug, Clone, Default)]
pub struct NodeRequest {
    /// Node labels.
    pub labels: BTreeMap<String, String>,
}

/// Enrolls this machine and keeps the result in the ledger. Tries again while that can help, until stopped.
pub async fn enroll(
    paths: &Paths,
    join: &JoinConfig,
    request: NodeRequest,
    stop: &CancellationToken,
) -> Result<Ledger, AgentError> {
    files::make_private_dir(&paths.state())?;
    let root = paths.at("/");
    let applicant = Applicant {
        fingerprint: machine::fingerprint(&root, &paths.state().join("machine.key"))?,
        facts: machine::facts(&root),
        keys: pki::Store::new(paths.pki()),
    };
    let mut backoff = Backoff::default();
    let reply = loop {
        match enroll::enroll(join, &applicant).await {
            Ok(reply) => break reply,
            Err(error) if error.may_pass() && !stop.is_cancelled() => {
                tracing::warn!(error = describe(&error), "not enrolled yet; trying again");
                stop.run_until_cancelled(tokio::time::sleep(backoff.pause())).await;
            }
            // An attempt whose answer may only be lost is repeated with the same keys; a refused one leaves nothing.
            Err(error) if error.may_pass() => return Err(error.into()),
            Err(error) => {
                reset::forget_attempt(paths)?;
                return Err(error.into());
            }
        }
    };
    let labels = request.labels;
    let (node_id, cluster_id, node_name) = (reply.node_id, reply.cluster_id, reply.node_name);
    tracing::info!(node = node_name, id = node_id, cluster = cluster_id, "enrolled");
    let mut ledger = Ledger::load(&paths.ledger())?;
    let token_id = Membership::token_id(&join.token);
    ledger.membership = Some(Membership { node_id, cluster_id, node_name, labels, token_id });
    if let Some(config) = &reply.config {
        ledger.signing_key = signature::check(config, &join.signing_key).map_err(EnrollError::from)?;
    }
    ledger.config = reply.config;
    record(&mut ledger, paths);
    ledger.save(&paths.ledger())?;
    files::remove(&paths.tombstone())?;
    Ok(ledger)
}

/// Runs the agent until `stop`. `checks`: what preflight found, for the reports.
pub async fn run(paths: &Paths, checks: Vec<Check>, stop: CancellationToken) -> Result<(), AgentError> {
    if let Some(tombstone) = files::read_json::<ledger::Tombstone>(&paths.tombstone())? {
        return Err(AgentError::Removed(tombstone.node_id));
    }
    files::make_dir(&Layout::joined(paths).pids())?;
    let _lock = instance_lock::InstanceLock::claim(&Layout::joined(paths).pids().join("agent.json"))?;
    let ledger = match Ledger::load(&paths.ledger())? {
        ledger if ledger.membership.is_some() => ledger,
        _ => {
            let join = JoinConfig::load(&paths.join_file())?;
            let absent = || AgentError::NotJoined(paths.join_file().display().to_string());
            enroll(paths, &join.ok_or_else(absent)?, NodeRequest::default(), &stop).await?
        }
    };
    // Also after a crash between the two: the token in it has done its work.
    files::remove(&paths.join_file())?;
    Agent::new(paths, ledger, checks)?.run(stop).await
}

/// What ended one stretch of following.
enum Turn {
    Follow(Box<NodeConfig>),
    Removed(String),
    Again,
    Stopped,
}

struct Agent {
    paths: Paths,
    ledger: Ledger,
    membership: Membership,
    link: Link,
    board: Board,
    runtime: Runtime,
    observed: watch::Sender<u64>,
    targets: watch::Sender<Targets>,
    checks: Vec<Check>,
}

impl Agent {
    fn new(paths: &Paths, ledger: Ledger, checks: Vec<Check>) -> Result<Self, AgentError> {
        let membership = ledger.membership.clone().ok_or_else(|| AgentError::Config("no membership".into()))?;
        let config = ledger.config.as_ref().ok_or_else(|| AgentError::Config("none was kept".into()))?;
        let link = Link::new(config, pki::Store::new(paths.pki()))?;
        let board = Board::new(paths.run().join("status.json"));
        let targets = watch::Sender::new(desired::targets(config, &membership)?);
        Ok(Self {
            paths: paths.clone(),
            link,
            runtime: Runtime::new(board.clone()),
            board,
            observed: watch::Sender::new(0),
            targets,
            checks,
            membership,
            ledger,
        })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), AgentError> {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        stop.run_until_cancelled(self.freshen()).await;
        let (events, mut heard) = mpsc::channel(8);
        let background = CancellationToken::new();
        self.start_link(events, &background);
        let mut backoff = Backoff::default();
        let outcome = loop {
            let turn = self.turn(&mut heard, &stop, &mut backoff).await;
            match turn {
                Turn::Again => {}
                Turn::Stopped => break None,
                Turn::Removed(why) => break Some(why),
                Turn::Follow(config) => self.consider(*config)?,
            }
        };
        if let Some(why) = outcome {
            return self.leave(why, &background).await;
        }
        background.cancel();
        self.runtime.stop(&Layout::joined(&self.paths)).await;
        Ok(())
    }

    /// A machine that was off for long begins with new certificates and not with ended ones.
    async fn freshen(&self) {
        let patience = if self.link.has_ended(OffsetDateTime::now_utc()) { ENDED } else { DUE };
        let name = &self.membership.node_name;
        let renewed = async {
            loop {
                match self.link.renew_if_due(name, OffsetDateTime::now_utc()).await {
                    Ok(false) => return,
                    Ok(true) => return tracing::info!("certificates renewed"),
                    Err(error) if error.is_final() => return, // the watch says so, and acts
                    Err(error) => tracing::warn!(error = describe(&error), "certificates not renewed yet"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        if tokio::time::timeout(patience, renewed).await.is_err() {
            tracing::warn!("going on with the certificates there are");
        }
    }

    fn start_link(&self, events: mpsc::Sender<Event>, stop: &CancellationToken) {
        let known = self.ledger.config.as_ref().map_or(0, |config| config.generation);
        let name = self.membership.node_name.clone();
        tokio::spawn(self.link.clone().watch(known, events, stop.clone()));
        tokio::spawn(self.link.clone().report(self.told(), stop.clone()));
        let needed = self.targets.borrow().node_ip;
        tokio::spawn(self.link.clone().renew(name, needed, stop.clone()));
        tokio::spawn(tunnel::run(self.link.clone(), self.targets.subscribe(), stop.clone()));
        let config = self.ledger.config.as_ref();
        if let Some(address) = config.and_then(|config| config.api_address.parse::<SocketAddr>().ok()) {
            if let Err(error) = network::add_address(address.ip()) {
                tracing::warn!(error = describe(&error), "pods will not reach the cluster's API");
            }
            tokio::spawn(api_proxy::run(address, self.link.clone(), stop.clone()));
        }
        if let Some(Ok(guard)) = config.map(|config| desired::guard(config, &self.paths)) {
            tokio::spawn(guard.run(self.board.clone(), self.observed.subscribe(), stop.clone()));
        }
    }

    fn told(&self) -> Told {
        let pods = self.targets.borrow().pods;
        Told { board: self.board.clone(), observed: self.observed.subscribe(), checks: self.checks.clone(), pods }
    }

    /// Brings the node to the configuration at hand, or waits for the next word.
    async fn turn(
        &mut self,
        heard: &mut mpsc::Receiver<Event>,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Turn {
        let (followed, board, own) = (self.ledger.config.clone(), self.board.clone(), self.membership.clone());
        let generation = followed.as_ref().map_or(0, |config| config.generation);
        let pending = *self.observed.borrow() != generation;
        let work = async {
            if !pending {
                return std::future::pending().await;
            }
            match self.apply().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let text = describe(&error);
                    tracing::error!(error = text, "the node is not as it should be; trying again");
                    self.board.phase(Phase::Degraded, text);
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
            Turn::Again
        };
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Turn::Stopped,
                event = heard.recv() => match event {
                    // The platform repeats itself whenever the link comes up: no reason to cut the work off.
                    Some(Event::Config(config)) if followed.as_ref() == Some(&*config) => {}
                    Some(Event::Config(config)) => return Turn::Follow(config),
                    Some(Event::Removed(removal)) if own.is_in(&removal) => {
                        return Turn::Removed("the platform has it in writing".into());
                    }
                    Some(Event::Removed(removal)) => {
                        tracing::error!(?removal, "told that another node was removed: this one goes on");
                    }
                    Some(Event::Linked(text)) => board.link(text),
                    None => return Turn::Stopped,
                },
                turn = &mut work => return turn,
            }
        }
    }

    /// Puts an offered configuration before the fence. One whose parts nobody trusted signed is not even written down.
    fn consider(&mut self, offered: NodeConfig) -> Result<(), AgentError> {
        let key = match signature::check(&offered, &self.ledger.signing_key) {
            Ok(key) => key,
            Err(refused) => {
                tracing::error!(error = describe(&refused), generation = offered.generation, "configuration refused");
                self.board.refusal(Some(refused.check(offered.generation)));
                return Ok(());
            }
        };
        match self.ledger.accept(offered) {
            Ok(Accepted::Same) => return Ok(()),
            Ok(Accepted::New) => self.ledger.signing_key = key,
            Err(refused) => {
                tracing::warn!(error = describe(&refused), "configuration refused");
                return Ok(());
            }
        }
        self.board.refusal(None);
        record(&mut self.ledger, &self.paths);
        self.ledger.save(&self.paths.ledger())?;
        if let Some(config) = &self.ledger.config {
            self.link.follow(config)?;
            self.targets.send_replace(desired::targets(config, &self.membership)?);
        }
        Ok(())
    }

    async fn apply(&mut self) -> Result<(), AgentError> {
        let config = self.ledger.config.clone().ok_or_else(|| AgentError::Config("none was kept".into()))?;
        let layout = Layout::joined(&self.paths);
        layout.dirs().iter().try_for_each(|dir| files::make_dir(dir))?;
        let parts = fetch::needed(&config.parts);
        if self.observed.borrow().eq(&0) {
            let (count, version) = (parts.len(), &config.kubernetes_version);
            self.board.phase(Phase::Starting, format!("getting {count} parts of Kubernetes {version}"));
        }
        let (store, link) = (PartStore::new(layout.parts.clone(), Some(self.paths.seed())), self.link.client());
        let arrivals = Arrivals::expecting(parts.iter().map(|part| part.name.as_str()));
        // A node that works goes over to other parts when it has them all.
        if layout.program(kubelet::NAME).exists() {
            store.ensure_all(&parts, &link, &arrivals).await?;
        }
        // What must travel far comes in two goes: the node is ready after the first, and the second takes no processor from it.
        let (first, later) = store.in_two_goes(&parts);
        let travel = async {
            store.ensure_all(&first, &link, &arrivals).await?;
            if !later.is_empty() {
                runtime::await_kubelet().await;
            }
            Ok(store.ensure_all(&later, &link, &arrivals).await?)
        };
        tokio::try_join!(travel, self.bring(&config, &store, &parts, &arrivals))?;
        tracing::info!(generation = config.generation, "in force");
        self.observed.send_replace(config.generation);
        Ok(())
    }

    /// Makes the node of these parts as they arrive.
    async fn bring(
        &mut self,
        config: &NodeConfig,
        store: &PartStore,
        parts: &[Part],
        arrivals: &Arrivals,
    ) -> Result<(), AgentError> {
        let (images, digest) =
            fetch::install(parts, &Layout::joined(&self.paths).bin, |part| store.path(&part.sha256))?;
        let mut spec = desired::spec(config, &self.membership, &self.paths)?;
        fetch::fill(&mut spec, images, digest);
        network::add_address(spec.node_ip)?;
        self.note(sysctl::before(&sysctl::KUBELET))?;
        if let Some(before) = self.runtime.apply(&spec, arrivals).await? {
            self.note([(network::FORWARD.into(), before)])?;
        }
        Ok(())
    }

    /// Remembers kernel values as they were, unless older ones are remembered already.
    fn note(&mut self, values: impl IntoIterator<Item = (PathBuf, String)>) -> Result<(), AgentError> {
        let known = self.ledger.installed.sysctls.len();
        for (path, value) in values {
            self.ledger.installed.sysctls.entry(path).or_insert(value);
        }
        if self.ledger.installed.sysctls.len() > known {
            self.ledger.save(&self.paths.ledger())?;
        }
        Ok(())
    }

    /// Goes for good: the tombstone first, so that a crash in the middle does not bring the node back.
    async fn leave(self, why: String, background: &CancellationToken) -> Result<(), AgentError> {
        let node = self.membership.node_id.clone();
        tracing::info!(node, why, "removed; resetting this machine");
        ledger::bury(&self.paths.tombstone(), &node)?;
        let told = self.told();
        let _ = self.link.report_once(told.say(NodePhase::Resetting, "removing the node from this machine")).await;
        // The link's own tasks end before the files they use do; the report after the reset goes over the open connection.
        background.cancel();
        self.runtime.stop(&Layout::joined(&self.paths)).await;
        let paths = self.paths.clone();
        let done = tokio::task::spawn_blocking(move || reset::execute(&paths, true)).await;
        let left = done.map_err(RuntimeError::Lost)??;
        for line in &left {
            tracing::warn!(left = line, "left on the machine");
        }
        let _ = self.link.report_once(told.say(NodePhase::Reset, &left.join("; "))).await;
        Err(AgentError::Removed(node))
    }
}

#[cfg(test)]
mod tests {
    use super::desired::tests::config;
    use super::*;
    use crate::signature::tests::Signer;

    /// Nothing of a refused configuration reaches the disk, so nothing of it is ever fetched, unpacked or run.
    #[tokio::test]
    async fn a_configuration_that_is_not_signed_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        files::make_dir(&paths.run()).unwrap();
        files::make_dir(&paths.state()).unwrap();
        let (platform, other) = (Signer::new(), Signer::new());
        let offer = |generation, sum: &str, signed| {
            let parts = signature::tests::config("1.36.3", &sum.repeat(64));
            let (kubernetes_version, parts) = (parts.kubernetes_version, parts.parts);
            NodeConfig { generation, kubernetes_version, parts, signed, ..config() }
        };
        let signed = |by: &Signer, sum: &str| Some(by.signed(&signature::tests::manifest("1.36.3", &sum.repeat(64))));
        let membership = Membership {
            node_id: "nod_x".into(),
            cluster_id: "cls_x".into(),
            node_name: "n1".into(),
            labels: BTreeMap::new(),
            token_id: String::new(),
        };
        let first = offer(1, "a", signed(&platform, "a"));
        let ledger = Ledger {
            membership: Some(membership),
            config: Some(first.clone()),
            signing_key: platform.key(),
            ..Ledger::default()
        };
        ledger.save(&paths.ledger()).unwrap();
        let mut agent = Agent::new(&paths, ledger.clone(), Vec::new()).unwrap();
        let attacks = [offer(2, "b", signed(&platform, "a")), offer(2, "b", signed(&other, "b")), offer(2, "b", None)];
        for attack in attacks {
            agent.consider(attack).unwrap();
            assert_eq!((&agent.ledger, &Ledger::load(&paths.ledger()).unwrap()), (&ledger, &ledger));
            let told = agent.board.status().failing();
            assert!(told[0].id == "signature" && told[0].observed.contains("configuration 2 was refused"), "{told:?}");
        }
        agent.consider(offer(3, "c", signed(&platform, "c"))).unwrap();
        assert_eq!(Ledger::load(&paths.ledger()).unwrap().config.unwrap().generation, 3);
        assert!(agent.board.status().failing().is_empty());
    }

    #[tokio::test]
    async fn a_removed_machine_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        ledger::bury(&paths.tombstone(), "nod_gone").unwrap();
        let error = run(&paths, Vec::new(), CancellationToken::new()).await.unwrap_err();
        assert!(error.is_final() && error.to_string().contains("nod_gone"), "{error}");
    }

    #[tokio::test]
    async fn a_machine_nobody_told_anything_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&Paths::new(dir.path()), Vec::new(), CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, AgentError::NotJoined(_)), "{error}");
    }
}
