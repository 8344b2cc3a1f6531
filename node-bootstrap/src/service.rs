//! The systemd unit, where systemd runs.
//!
//! `KillMode=process` and control groups of their own: the agent's death leaves the node's processes alone. Exit status 10 means
//! that starting again cannot help; any other end is tried again for ever, without the five times that systemd allows by default.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use node_linux::files::{self, FileError};
use node_linux::tool::{ToolError, run_blocking};

use crate::config::Paths;
use crate::init::FINAL;
use crate::ledger::Ledger;

/// The unit's name.
pub const UNIT: &str = "pilothouse-node.service";

/// Proxy settings that the service needs too.
const PROXY_VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"];

/// A service that could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// systemctl is missing, or refused.
    #[error(transparent)]
    Systemctl(#[from] ToolError),
}

/// True where systemd is the init system.
pub fn systemd_runs() -> bool {
    sd_notify::booted().unwrap_or(false)
}

/// The unit's text.
pub fn unit(program: &Path, environment: &Path) -> String {
    format!(
        "[Unit]\n\
         Description=Pilothouse node agent\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={} run\n\
         EnvironmentFile=-{}\n\
         KillMode=process\n\
         Delegate=yes\n\
         Restart=always\n\
         RestartSec=2\n\
         RestartPreventExitStatus={FINAL}\n\
         TimeoutStartSec=infinity\n\
         TimeoutStopSec=40\n\
         LimitNOFILE=1048576\n\
         LimitNPROC=infinity\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-900\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        program.display(),
        environment.display(),
    )
}

/// Installs the agent's program and unit, and starts it.
pub fn install(paths: &Paths) -> Result<(), ServiceError> {
    let program = paths.bin().join("pilothouse-node");
    let environment = paths.at("/etc/pilothouse/agent.env");
    let mut ledger = Ledger::load(&paths.ledger())?;
    ledger.installed.unit = Some(UNIT.to_owned());
    ledger.installed.files.extend([paths.unit(), program.clone(), environment.clone()]);
    ledger.installed.dirs.insert(paths.bin());
    ledger.save(&paths.ledger())?;
    install_program(&program)?;
    match proxy_environment(|name| std::env::var(name).ok()) {
        Some(text) => {
            files::make_dir(&paths.at("/etc/pilothouse"))?;
            files::write(&environment, text.as_bytes(), 0o600)?;
        }
        None => drop(files::remove(&environment)?),
    }
    files::write(&paths.unit(), unit(&program, &environment).as_bytes(), 0o644)?;
    start()
}

/// A unit that systemd never saw it reads when asked to start it; reading all units anew takes seconds on a slow machine.
fn start() -> Result<(), ServiceError> {
    systemctl(&["enable", "--no-reload", UNIT])?;
    let current = systemctl(&["show", "--property=NeedDaemonReload", UNIT])?.trim() == "NeedDaemonReload=no";
    // Before systemd 246 it may not find what it did not see before: then it is told to look.
    if !current || systemctl(&["restart", UNIT]).is_err() {
        systemctl(&["daemon-reload"])?;
        systemctl(&["restart", UNIT])?;
    }
    Ok(())
}

fn install_program(program: &Path) -> Result<(), FileError> {
    let own = PathBuf::from("/proc/self/exe");
    if fs::canonicalize(&own).is_ok_and(|own| own == program) {
        return Ok(());
    }
    if let Some(dir) = program.parent() {
        files::make_dir(dir)?;
    }
    let staged = program.with_extension("new");
    let copied = fs::copy(&own, &staged)
        .and_then(|_| fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&staged, program));
    copied.map_err(files::io("install", program))
}

fn proxy_environment(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let plain = |name: &&str| variable(name).filter(|value| !value.is_empty() && !value.contains(char::is_control));
    // In double quotes systemd takes everything as it stands but these two (systemd.exec(5)).
    let quoted = |value: String| value.replace('\\', "\\\\").replace('"', "\\\"");
    let lines = PROXY_VARIABLES.iter().filter_map(|name| Some(format!("{name}=\"{}\"\n", quoted(plain(name)?))));
    let text: String = lines.collect();
    (!text.is_empty()).then_some(text)
}

/// Runs systemctl and returns what it printed.
pub fn systemctl(args: &[&str]) -> Result<String, ToolError> {
    run_blocking(&[&["systemctl"][..], args].concat(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_leaves_the_nodes_processes_alone() {
        let text = unit(Path::new("/opt/pilothouse/bin/pilothouse-node"), Path::new("/etc/pilothouse/agent.env"));
        for line in [
            "KillMode=process",
            "Delegate=yes",
            "Type=notify",
            "Restart=always",
            "StartLimitIntervalSec=0",
            "RestartPreventExitStatus=10",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in:\n{text}");
        }
        assert!(text.contains("ExecStart=/opt/pilothouse/bin/pilothouse-node run"));
    }

    #[test]
    fn proxy_settings_reach_the_service() {
        let text = proxy_environment(|name| (name == "HTTPS_PROXY").then(|| "http://u:a\"b\\c@proxy:3128".into()));
        assert_eq!(text.as_deref(), Some("HTTPS_PROXY=\"http://u:a\\\"b\\\\c@proxy:3128\"\n"));
        assert!(proxy_environment(|_| Some("a\nExecStart=x".into())).is_none());
        assert!(proxy_environment(|_| None).is_none());
    }
}
