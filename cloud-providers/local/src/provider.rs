//! The provider: what the platform asks for, turned into directories, wires and processes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use cloud_providers::{JoinMaterial, Machine, MachineRequest, MachineState, Provider, ProviderError, Removal};
use node_linux::cgroup::Cgroups;
use node_linux::describe;
use node_linux::tool::run;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OnceCell};

use crate::cgroup;
use crate::crash_loop;
use crate::error::LocalError;
use crate::machine::Spec;
use crate::network::{AppliedRules, Network};
use crate::users::{Ranges, Users};

/// A machine's agent stops its pods in this time, or they are ended with it.
const GRACE: Duration = Duration::from_secs(5);

/// Between two looks whether a machine has begun.
const LOOK: Duration = Duration::from_millis(2);

/// What the provider needs of its instance.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Machines' directories lie here.
    pub dir: PathBuf,
    /// The Debian tree that all machines share, read-only.
    pub lower: PathBuf,
    /// Parts by checksum.
    pub seed: PathBuf,
    /// The static agent.
    pub agent: PathBuf,
    /// The program with the subcommands `machine-run` and `machine-init`.
    pub launcher: PathBuf,
    /// Parent of the machines' cgroups, relative to each hierarchy's root.
    pub cgroup: String,
    /// Prefix of the wires' names, at most 8 bytes.
    pub wire: String,
    /// Bridge and rules.
    pub network: Network,
    /// Ids for machines with user namespaces of their own; nothing: root in a machine is root outside.
    pub users: Option<Ranges>,
    /// Why no machine is started, if none is to be; they can still be seen, stopped and removed.
    pub closed: Option<String>,
}

/// Machine containers on this machine.
#[derive(Debug)]
pub struct Local {
    config: LocalConfig,
    ready: OnceCell<()>,
    /// Held while an address is chosen, so that two machines never choose the same.
    choosing: Mutex<()>,
    /// The rules that were set last.
    rules: Mutex<AppliedRules>,
}

impl Local {
    /// A provider over what already exists in `config.dir`.
    pub fn new(config: LocalConfig) -> Self {
        Self { config, ready: OnceCell::new(), choosing: Mutex::new(()), rules: Mutex::default() }
    }

    fn load(&self, id: &str) -> Result<Option<Spec>, LocalError> {
        Spec::load(&self.config.dir.join(id).join("machine.json"))
    }

    fn found(&self, id: &str) -> Result<Spec, LocalError> {
        self.load(id)?.ok_or_else(|| LocalError::Unknown { id: id.to_owned() })
    }

    fn known(&self) -> impl Iterator<Item = Result<Spec, LocalError>> {
        let entries = fs::read_dir(&self.config.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| Spec::load(&entry.path().join("machine.json")).transpose())
    }

    /// Writes the machine down before anything of it runs, so that a kill in the middle leaves something to find; what is laid out
    /// by then, `ensure` lays out again and `remove` removes. One whose address cannot be read stops it: it might be chosen again.
    async fn create(&self, request: &MachineRequest) -> Result<Spec, LocalError> {
        let _held = self.choosing.lock().await;
        let network = &self.config.network;
        let known: Vec<Spec> = self.known().collect::<Result<_, LocalError>>()?;
        let taken: BTreeSet<Ipv4Addr> = known.iter().map(|spec| spec.address).collect();
        let users = self.config.users.map(|ranges| free_users(ranges, &known)).transpose()?;
        let free = network.subnet.hosts().skip(1).find(|address| !taken.contains(address));
        let address = free.ok_or(LocalError::Full { subnet: network.subnet })?;
        let spec = Spec {
            id: request.id.clone(),
            name: request.name.clone(),
            cluster: request.cluster.clone(),
            dir: self.config.dir.join(&request.id),
            lower: self.config.lower.clone(),
            seed: self.config.seed.clone(),
            agent: self.config.agent.clone(),
            cgroup: format!("{}/{}", self.config.cgroup, request.id),
            bridge: network.bridge.clone(),
            wire: format!("{}m{}", self.config.wire, u32::from(address) & 0xfff),
            address,
            prefix: network.subnet.prefix_len(),
            gateway: network.gateway(),
            wanted: true,
            restarts: Vec::new(),
            users,
            trial: false,
        };
        fs::create_dir_all(&spec.dir).map_err(LocalError::file(&spec.dir))?;
        spec.lay_out(&join_file(&request.join))?;
        spec.save()?;
        Ok(spec)
    }

    /// Whether the operator lets this machine run at all.
    fn permit(&self, spec: &Spec) -> Result<(), LocalError> {
        if let Some(why) = &self.config.closed {
            return Err(LocalError::Closed { why: why.clone() });
        }
        if self.config.users.is_some() && spec.users.is_none() {
            return Err(LocalError::SharesKernel);
        }
        Ok(())
    }

    /// Starts the first stage in a session of its own: the machine outlives the platform's process.
    async fn launch(&self, spec: &Spec) -> Result<(), LocalError> {
        self.permit(spec)?;
        self.ready.get_or_try_init(|| self.config.network.ensure()).await?;
        // The resolvers that machines may ask are those of today.
        *self.rules.lock().await = self.config.network.apply_rules().await?;
        self.clear(spec).await?;
        spec.refresh_resolvers()?;
        let console = spec.dir.join("console.log");
        let log =
            File::options().create(true).append(true).mode(0o640).open(&console).map_err(LocalError::file(&console))?;
        let mut child = Command::new("setsid")
            .arg(&self.config.launcher)
            .arg("machine-run")
            .arg(spec.file())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(LocalError::file(&self.config.launcher))?;
        self.began(spec, &mut child).await?;
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    /// Waits until the machine is found by its cgroup: asked again before that, another would be started over the same disk.
    async fn began(&self, spec: &Spec, child: &mut Child) -> Result<(), LocalError> {
        while !cgroup::is_populated(&spec.cgroup) {
            tokio::select! {
                _ = child.wait() => {
                    self.clear(spec).await?;
                    return Err(LocalError::Ended { console: spec.console() });
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(())
    }

    /// Ends what is left of an earlier life: processes, cgroups, and the wire, whose removal by the kernel is not at once.
    async fn clear(&self, spec: &Spec) -> Result<(), LocalError> {
        end(spec.cgroup.clone()).await?;
        run(&["ip", "link", "delete", &spec.wire]).await.ok();
        Ok(())
    }

    /// Removes a machine whose specification cannot be read: all of it is found by its id but the wire, which goes with the
    /// machine's namespace.
    async fn remove_unread(&self, id: &str) -> Result<Removal, LocalError> {
        end(format!("{}/{id}", self.config.cgroup)).await?;
        self.forget(id).await
    }

    /// Removes what a creation that broke off has left before the machine was written down: its join material.
    async fn forget(&self, id: &str) -> Result<Removal, LocalError> {
        delete_tree(&self.config.dir.join(id)).await?;
        Ok(Removal::Gone)
    }

    fn describe(&self, spec: &Spec) -> Machine {
        let state = match (cgroup::is_populated(&spec.cgroup), spec.wanted) {
            (true, _) => MachineState::Running,
            (false, false) => MachineState::Stopped,
            (false, true) => MachineState::Failed(spec.console()),
        };
        Machine { id: spec.id.clone(), name: spec.name.clone(), state, address: Some(spec.address.to_string()) }
    }

    async fn want(&self, id: &str, wanted: bool) -> Result<Spec, LocalError> {
        let mut spec = self.found(id)?;
        spec.wanted = wanted;
        spec.save()?;
        Ok(spec)
    }

    /// Ends a machine's processes without remembering it as stopped: `start` after the next boot of the platform.
    ///
    /// # Errors
    /// When its processes do not end.
    pub async fn halt(&self, id: &str) -> Result<(), ProviderError> {
        // What was done on purpose is no sign of a crash loop.
        let calm = Spec { restarts: Vec::new(), ..self.found(id)? };
        calm.save()?;
        Ok(self.clear(&calm).await?)
    }

    /// Ends machines that were made without user namespaces, where those are the rule now.
    ///
    /// # Errors
    /// When their processes do not end.
    pub async fn end_unisolated(&self) -> Result<(), ProviderError> {
        for spec in self.known().flatten() {
            if self.config.users.is_some() && spec.users.is_none() && cgroup::is_populated(&spec.cgroup) {
                self.halt(&spec.id).await?;
            }
        }
        Ok(())
    }

    /// Tries to make a machine with a user namespace, all but its wire and its agent, over the file system of `lower`.
    ///
    /// # Errors
    /// What this kernel, file system or surrounding container refuses.
    pub async fn try_isolation(&self, ranges: Ranges) -> Result<(), ProviderError> {
        let spec = self.trial(ranges);
        let tried = self.isolate(&spec).await;
        end(spec.cgroup.clone()).await?;
        fs::remove_dir_all(&spec.dir).ok();
        Ok(tried?)
    }

    fn trial(&self, ranges: Ranges) -> Spec {
        let id = "isolation-trial";
        Spec {
            id: id.to_owned(),
            name: id.to_owned(),
            cluster: String::new(),
            dir: self.config.dir.with_file_name(id),
            lower: self.config.lower.clone(),
            seed: self.config.lower.clone(),
            agent: self.config.launcher.clone(),
            cgroup: format!("{}/{id}", self.config.cgroup),
            bridge: String::new(),
            wire: String::new(),
            address: Ipv4Addr::LOCALHOST,
            prefix: 32,
            gateway: Ipv4Addr::LOCALHOST,
            wanted: false,
            restarts: Vec::new(),
            users: Some(ranges.trial()),
            trial: true,
        }
    }

    async fn isolate(&self, spec: &Spec) -> Result<(), LocalError> {
        end(spec.cgroup.clone()).await?;
        fs::remove_dir_all(&spec.dir).ok();
        fs::create_dir_all(&spec.dir).map_err(LocalError::file(&spec.dir))?;
        spec.lay_out(b"")?;
        spec.refresh_resolvers()?;
        spec.save()?;
        let mut command = Command::new(&self.config.launcher);
        let output = command.arg("machine-run").arg(spec.file()).stdin(Stdio::null()).output();
        let output = output.await.map_err(LocalError::file(&self.config.launcher))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        Err(LocalError::NotIsolated { said: lines.join(" | ") })
    }

    /// Takes bridge, rules and the machines' common cgroup away; for the end of an instance.
    pub async fn dismantle(&self) {
        self.config.network.remove().await;
        Cgroups::detect().prune(&self.config.cgroup);
    }
}

fn free_users(ranges: Ranges, known: &[Spec]) -> Result<Users, LocalError> {
    let taken = known.iter().filter_map(|spec| spec.users).collect();
    ranges.free(&taken).ok_or(LocalError::NoUsers)
}

/// Ends what runs in a machine's cgroups, and removes them.
async fn end(cgroup: String) -> Result<(), LocalError> {
    let id = cgroup.clone();
    let stopped = tokio::task::spawn_blocking(move || cgroup::stop(&cgroup, GRACE));
    stopped.await.map_err(|_| LocalError::Stuck { id })?
}

/// Deletes a directory and all below it, in a process of its own: whoever was root in the machine made the tree as deep and as full as they
/// liked, and a walk that recurses would end this process.
async fn delete_tree(dir: &Path) -> Result<(), LocalError> {
    let dir = dir.to_string_lossy();
    Ok(run(&["rm", "-rf", "--one-file-system", "--", &dir]).await.map(drop)?)
}

/// What the agent reads at its first start, and then removes.
fn join_file(join: &JoinMaterial) -> Vec<u8> {
    let text = json!({
        "server": join.server, "domain": join.domain, "ca_pem": join.ca_pem, "signing_key": join.signing_key,
        "token": join.token.expose_secret(),
    });
    text.to_string().into_bytes()
}

#[async_trait]
impl Provider for Local {
    fn kind(&self) -> &'static str {
        "local"
    }

    async fn ensure(&self, request: &MachineRequest) -> Result<Machine, ProviderError> {
        let spec = match self.load(&request.id)? {
            Some(spec) => spec,
            None => self.create(request).await?,
        };
        if spec.wanted && !cgroup::is_populated(&spec.cgroup) {
            self.launch(&spec).await?;
        }
        Ok(Machine { state: MachineState::Running, ..self.describe(&spec) })
    }

    async fn get(&self, id: &str) -> Result<Option<Machine>, ProviderError> {
        let spec = self.load(id)?;
        if spec.is_some() {
            let mut rules = self.rules.lock().await;
            *rules = self.config.network.keep_rules(&rules).await?;
        }
        Ok(spec.map(|spec| self.describe(&spec)))
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        let readable = self.known().filter_map(|spec| {
            // The others are not to suffer for it.
            spec.inspect_err(|error| tracing::warn!(error = describe(error), "a machine is left out")).ok()
        });
        Ok(readable.map(|spec| self.describe(&spec)).collect())
    }

    async fn stop(&self, id: &str) -> Result<(), ProviderError> {
        let spec = self.want(id, false).await?;
        Ok(self.clear(&spec).await?)
    }

    async fn start(&self, id: &str) -> Result<(), ProviderError> {
        let mut spec = self.found(id)?;
        let runs = cgroup::is_populated(&spec.cgroup);
        if runs && spec.wanted {
            return Ok(());
        }
        if !runs {
            // Before anything is counted: that it was not let run is no sign of a crash loop, and its console says nothing of it.
            self.permit(&spec)?;
        }
        if !runs && spec.wanted {
            // Nobody stopped it.
            crash_loop::note_start(&mut spec, crash_loop::now())?;
        }
        spec.wanted = true;
        spec.save()?;
        if !runs {
            self.launch(&spec).await?;
        }
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<Removal, ProviderError> {
        let spec = match self.load(id) {
            Ok(Some(spec)) => spec,
            Ok(None) => return Ok(self.forget(id).await?),
            Err(LocalError::Corrupt { .. }) => return Ok(self.remove_unread(id).await?),
            Err(error) => return Err(error.into()),
        };
        self.want(id, false).await?;
        self.clear(&spec).await?;
        // Its mounts lived in its own namespace and went with it: the directory holds nothing of anybody else's.
        delete_tree(&spec.dir).await?;
        Ok(Removal::Gone)
    }
}
