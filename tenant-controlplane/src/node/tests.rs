//! The texts are run by a real shell, with stand-ins for the commands they call.
#![expect(clippy::disallowed_methods, reason = "tests write files for a shell to run")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::*;

const TOKEN: &str = "pilothouse_join_01h455vb4pex5vsknk084sn02q_c2VjcmV0";
const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQWxsIHlvdXIgYmFzZTY0IGFyZSBiZWxvbmcgdG8gdXM\nAQID\n-----END CERTIFICATE-----\n";
const KEY: &str = "ed25519:jK2m6xguaoCYYy2O7hfkBNr28LDH1w5kjeruPEKbEgw=";
const PORTAL: &str = "https://192.0.2.1:8443/";

fn material() -> JoinMaterial {
    JoinMaterial {
        server: "192.0.2.1:8443".to_owned(),
        domain: "pilothouse.internal".to_owned(),
        ca_pem: CA.to_owned(),
        signing_key: KEY.to_owned(),
        token: TOKEN.into(),
    }
}

fn script(agent_sha256: &str, bin_dir: &Path) -> String {
    let machine = String::from_utf8(Command::new("uname").arg("-m").output().unwrap().stdout).unwrap();
    let input = InstallInput {
        portal_url: PORTAL,
        server: "192.0.2.1:8443",
        domain: "pilothouse.internal",
        agent_sha256,
        machine: machine.trim(),
    };
    install_script(&input).replace("/opt/pilothouse/bin", bin_dir.to_str().unwrap())
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A directory whose programs come before the machine's, with an `id` that says root and a `curl` that hands out `served`.
fn stage(served: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(dir.path().join("served"), served).unwrap();
    write_program(&bin.join("id"), "#!/bin/sh\necho 0\n");
    let curl = "#!/bin/sh\nprintf '%s\\n' \"$@\" >>\"$STAGE/curl\"\n\
                while [ $# -gt 0 ]; do case $1 in -o) cp \"$STAGE/served\" \"$2\"; shift;; \
                --cacert) cp \"$2\" \"$STAGE/ca\"; shift;; esac; shift; done\n";
    write_program(&bin.join("curl"), curl);
    dir
}

fn sh(dir: &Path, line: &str, arguments: &[&str]) -> Output {
    let path = format!("{}:/usr/bin:/bin", dir.join("bin").display());
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).arg("sh").args(arguments);
    command.env_clear().env("PATH", path).env("STAGE", dir).env("TMPDIR", dir).stdin(Stdio::null());
    command.output().unwrap()
}

fn syntax_is_right(dir: &Path, text: &str) {
    fs::write(dir.join("text"), text).unwrap();
    let out = Command::new("sh").arg("-n").arg(dir.join("text")).output().unwrap();
    assert!(out.status.success(), "{}\n{text}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn the_line_is_one_line_and_pins_the_ca() {
    let line = join_line(&material(), PORTAL);
    assert_eq!(line.lines().count(), 1);
    assert!(line.starts_with(' ') && line.contains("'https://192.0.2.1:8443/install/agent.sh'"), "{line}");
    assert!(line.contains("--cacert") && !line.contains(" -k ") && !line.contains("--insecure"), "{line}");
    assert!(!format!("{:?}", material()).contains(TOKEN));
}

#[test]
fn the_line_gives_the_script_the_token_and_the_ca_and_curl_neither() {
    let dir = stage(
        "cat \"$1\" >\"$STAGE/ca-seen\"; printf %s \"$PILOTHOUSE_JOIN_TOKEN\" >\"$STAGE/token\"; echo \"$*\" >\"$STAGE/arguments\"\n",
    );
    let out = sh(dir.path(), &join_line(&material(), PORTAL), &[]);
    assert!(out.status.success(), "{out:?}");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("token"), read("ca"), read("ca-seen")), (TOKEN.to_owned(), CA.to_owned(), CA.to_owned()));
    assert!(read("arguments").ends_with(&format!(" {KEY}\n")), "the key is pinned by the line");
    assert!(!read("arguments").contains(TOKEN) && !read("curl").contains(TOKEN));
    let left = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("tmp."));
    assert_eq!(left.count(), 0, "the line cleans up behind itself");
}

#[test]
fn the_line_tells_who_is_not_root_what_to_do() {
    let dir = stage("");
    write_program(&dir.path().join("bin/id"), "#!/bin/sh\necho 1000\n");
    let out = sh(dir.path(), &join_line(&material(), PORTAL), &[]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("sudo -i"), "{out:?}");
    assert!(!dir.path().join("curl").exists(), "nothing was fetched");
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An agent that notes how it was called and with which token.
const AGENT: &str = "#!/bin/sh\necho \"$* token=${PILOTHOUSE_JOIN_TOKEN:-none}\" >>\"$STAGE/calls\"\n";

#[test]
fn the_script_installs_the_checked_agent_and_joins() {
    let dir = stage(AGENT);
    let (ca, bin) = (dir.path().join("ca.pem"), dir.path().join("opt/bin"));
    fs::write(&ca, CA).unwrap();
    let log = dir.path().join("log");
    let text = script(&sha256(AGENT), &bin).replace("/var/log/pilothouse-node.log", log.to_str().unwrap());
    let out = sh(dir.path(), &format!("export PILOTHOUSE_JOIN_TOKEN={TOKEN}\n{text}"), &[ca.to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    let calls = wait_for_calls(dir.path(), 2);
    let join =
        format!("join --server 192.0.2.1:8443 --domain pilothouse.internal --ca-file {} token={TOKEN}", ca.display());
    assert_eq!(calls[0], join);
    // By a line with a signing key the agent is told to trust nothing else.
    fs::remove_file(dir.path().join("calls")).unwrap();
    sh(dir.path(), &format!("export PILOTHOUSE_JOIN_TOKEN={TOKEN}\n{text}"), &[ca.to_str().unwrap(), KEY]);
    let pinned = wait_for_calls(dir.path(), 2);
    assert!(pinned[0].ends_with(&format!("{} --signing-key {KEY} token={TOKEN}", ca.display())), "{pinned:?}");
    assert!(calls[1] == "run token=none" || calls[1] == "install-service token=none", "{calls:?}");
    assert_eq!(fs::metadata(bin.join("pilothouse-node")).unwrap().permissions().mode() & 0o777, 0o755);
}

/// The background start is a process of its own: its line comes when it comes.
fn wait_for_calls(dir: &Path, wanted: usize) -> Vec<String> {
    for _ in 0..500 {
        let calls = fs::read_to_string(dir.join("calls")).unwrap_or_default();
        if calls.lines().count() >= wanted {
            return calls.lines().map(str::to_owned).collect();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the agent was not called {wanted} times");
}

#[test]
fn the_script_refuses_another_agent() {
    let dir = stage("something else");
    let (ca, bin) = (dir.path().join("ca.pem"), dir.path().join("opt/bin"));
    fs::write(&ca, CA).unwrap();
    let text = format!("export PILOTHOUSE_JOIN_TOKEN={TOKEN}\n{}", script(&sha256(AGENT), &bin));
    let out = sh(dir.path(), &text, &[ca.to_str().unwrap()]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("checksum differs"), "{out:?}");
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 0, "nothing is left");
}

#[test]
fn the_script_wants_a_token() {
    let dir = stage(AGENT);
    let out = sh(dir.path(), &script(&sha256(AGENT), &dir.path().join("opt")), &["/dev/null"]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("no join token"), "{out:?}");
}

#[test]
fn a_script_cut_short_does_nothing() {
    let (dir, whole) = (stage(AGENT), script(&sha256(AGENT), Path::new("/nowhere")));
    syntax_is_right(dir.path(), &whole);
    let cut = whole.rsplit_once("main \"$@\"").unwrap().0;
    assert!(sh(dir.path(), cut, &[]).status.success());
    assert!(!dir.path().join("calls").exists() && !dir.path().join("curl").exists());
}

#[test]
fn cloud_init_holds_files_and_runs_the_script() {
    let text = cloud_init(&material(), PORTAL);
    assert!(text.starts_with("#cloud-config\n"));
    let value: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
    let files = value["write_files"].as_array().unwrap();
    let modes: Vec<&str> = files.iter().map(|file| file["permissions"].as_str().unwrap()).collect();
    assert_eq!(modes, ["0644", "0600", "0700"]);
    assert_eq!((files[0]["content"].as_str(), files[1]["content"].as_str()), (Some(CA), Some(TOKEN)));
    let join = files[2]["content"].as_str().unwrap();
    assert!(!join.contains(TOKEN) && join.contains(&format!("\"$dir/ca.pem\" '{KEY}'\n")), "{join}");
    syntax_is_right(stage("").path(), join);
    assert_eq!(value["runcmd"][0][1], "/var/lib/pilothouse-join/join.sh");
}
