//! containerd's configuration (version 3) and how it is started.

use std::fmt::Write;

use crate::child::ChildSpec;
use crate::spec::NodeSpec;

/// CAP_SYS_RESOURCE, bit 24 (capabilities(7)): without it nobody may lower an oom_score_adj, and pods would not start.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// The longest directory for shim sockets that containerd takes: a unix socket's path has 108 bytes.
const SHIM_SOCKET_DIR_MAX: usize = 42;

/// What the agent never uses; leaving it out starts faster and keeps machine-global paths alone.
const DISABLED: [&str; 9] = [
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.differ.v1.erofs",
    "io.containerd.mount-handler.v1.erofs",
    "io.containerd.image-verifier.v1.bindir",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
];

/// True when the process whose `/proc/…/status` this is may not use CAP_SYS_RESOURCE.
pub fn lacks_sys_resource(proc_status: &str) -> bool {
    let line = proc_status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    mask.is_some_and(|mask| mask & CAP_SYS_RESOURCE == 0)
}

/// True in a user namespace, by the text of `/proc/self/uid_map` (user_namespaces(7)): what a capability says there holds for what the
/// namespace owns only, and an oom_score_adj may not be lowered.
pub fn in_user_namespace(uid_map: &str) -> bool {
    let words: Vec<&str> = uid_map.split_whitespace().collect();
    !words.is_empty() && words != ["0", "0", "4294967295"]
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text of `containerd.toml`.
pub fn config(spec: &NodeSpec, restrict_oom: bool) -> String {
    let layout = &spec.layout;
    let path = |path: std::path::PathBuf| quoted(&path.to_string_lossy());
    let disabled: Vec<String> = DISABLED.iter().map(|plugin| quoted(plugin)).collect();
    let mut text = String::new();
    let mut line = |content: String| {
        let _ = writeln!(text, "{content}");
    };
    line("version = 3".into());
    line(format!("root = {}", path(layout.containerd.clone())));
    line(format!("state = {}", path(layout.run.join("containerd"))));
    line(format!("disabled_plugins = [{}]", disabled.join(", ")));
    line("imports = []".into());
    line(format!("[grpc]\naddress = {}", path(layout.containerd_socket())));
    line(format!("[ttrpc]\naddress = {}", path(layout.run.join("containerd.sock.ttrpc"))));
    line(format!("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = {}", quoted(&spec.sandbox_image)));
    line("[plugins.\"io.containerd.cri.v1.runtime\"]".into());
    line(format!("restrict_oom_score_adj = {restrict_oom}"));
    // A pod's network namespace under containerd's own state: two nodes on one kernel never meet in /run/netns.
    line("netns_mounts_under_state_dir = true".into());
    line(format!("[plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [{}]", path(layout.bin.clone())));
    line(format!("conf_dir = {}", path(layout.cni_conf())));
    // No plugin run for `lo`: quicker, and nothing is left in libcni's machine-wide cache.
    line("use_internal_loopback = true".into());
    line("[plugins.\"io.containerd.cri.v1.runtime\".containerd]\ndefault_runtime_name = \"runc\"".into());
    line("[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]".into());
    line("runtime_type = \"io.containerd.runc.v2\"".into());
    line(format!("runtime_path = {}", path(layout.program("containerd-shim-runc-v2"))));
    line("[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]".into());
    line(format!("BinaryName = {}", path(layout.program("runc"))));
    line(format!("Root = {}", path(layout.run.join("runc"))));
    line("SystemdCgroup = false".into());
    line("[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true".into());
    let sockets = layout.run.join("s");
    if sockets.as_os_str().len() <= SHIM_SOCKET_DIR_MAX {
        line(format!("[plugins.\"io.containerd.shim.v1.manager\"]\nsocket_dir = {}", path(sockets)));
    }
    text
}

/// The containerd process.
pub fn child(spec: &NodeSpec, config: &str) -> ChildSpec {
    let layout = &spec.layout;
    let file = layout.etc.join("containerd.toml");
    let args = vec!["--config".to_owned(), file.to_string_lossy().into_owned()];
    let mut contents = vec![config];
    contents.extend(spec.proxy.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    let mut child = ChildSpec::new("containerd", spec, args, &contents);
    child.env.extend(spec.proxy.iter().cloned());
    child
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn the_configuration_names_only_the_nodes_own_places() {
        let text = config(&sample(), true);
        for wanted in [
            "version = 3",
            "root = \"/s/containerd\"",
            "state = \"/r/containerd\"",
            "sandbox = \"pilothouse.internal/pause:3.10\"",
            "restrict_oom_score_adj = true",
            "netns_mounts_under_state_dir = true",
            "BinaryName = \"/s/bin/runc\"",
            "Root = \"/r/runc\"",
            "conf_dir = \"/s/cni/net.d\"",
            "socket_dir = \"/r/s\"",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in:\n{text}");
        }
        for machine_wide in ["/run/containerd", "/etc/cni", "/opt/containerd", "/var/run/nri"] {
            assert!(!text.contains(machine_wide), "{machine_wide} is another's");
        }
    }

    #[test]
    fn a_long_run_directory_leaves_the_shims_where_containerd_puts_them() {
        let mut spec = sample();
        spec.layout.run = format!("/run/{}", "x".repeat(40)).into();
        assert!(!config(&spec, false).contains("socket_dir"));
    }

    #[test]
    fn the_missing_capability_is_seen() {
        assert!(lacks_sys_resource("Name: x\nCapEff:\t000001fffeffffff\n"));
        assert!(!lacks_sys_resource("CapEff:\t000001ffffffffff\n"));
        assert!(!lacks_sys_resource(""), "unknown: leave containerd's default");
    }

    #[test]
    fn a_user_namespace_is_seen_by_its_ids() {
        assert!(!in_user_namespace("         0          0 4294967295\n") && !in_user_namespace(""));
        assert!(in_user_namespace("         0 1879048192      65536\n"));
    }
}
