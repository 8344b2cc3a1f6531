//! How a machine comes into a cluster: one pasted line, or cloud-init; both fetch one script, which fetches the agent.
//!
//! The platform's CA travels inside the line, so the first byte from the network is already checked; so does the key that signs the
//! machine's parts. The join token travels in the
//! environment only: it is never an argument (anybody on a machine may read those), and the agent that stays running does not have it.

pub mod allocation;
mod script;

use node_protocol::path;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

pub use script::{InstallInput, install_script};

/// The environment variable that holds the token.
pub const TOKEN_VARIABLE: &str = "PILOTHOUSE_JOIN_TOKEN";

/// Where cloud-init puts what joining needs.
const CLOUD_INIT_DIR: &str = "/var/lib/pilothouse-join";

/// What a machine must know to join.
#[derive(Clone, Debug)]
pub struct JoinMaterial {
    /// The gateway, `address:port`.
    pub server: String,
    /// The installation's domain.
    pub domain: String,
    /// What to trust, PEM.
    pub ca_pem: String,
    /// Whose signature the machine's parts must have, `ed25519:…`.
    pub signing_key: String,
    /// The one-use token.
    pub token: SecretString,
}

/// A text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn script_url(portal_url: &str) -> String {
    quoted(&format!("{}{}", portal_url.trim_end_matches('/'), path::INSTALL_SCRIPT))
}

/// The line to paste on a machine, for a POSIX shell as root. It begins with a space, which keeps it out of most shells' history.
///
/// The CA is written by the shell's own `printf`, line by line, so nothing but curl is needed.
pub fn join_line(join: &JoinMaterial, portal_url: &str) -> String {
    let ca: Vec<String> =
        join.ca_pem.lines().filter(|line| !line.trim().is_empty()).map(|line| quoted(line.trim())).collect();
    format!(
        concat!(
            " ( [ \"$(id -u)\" = 0 ] || {{ echo 'run this as root: type \"sudo -i\" first, then run the join command again' >&2; exit 1; }}; ",
            "command -v curl >/dev/null || {{ echo 'curl is missing: install it (apt-get install -y curl), then run the join command again' >&2; exit 1; }}; ",
            "umask 077; export {variable}={token}; d=$(mktemp -d) || exit 1; trap 'rm -rf \"$d\"' EXIT; ",
            "printf '%s\\n' {ca} >\"$d/ca.pem\" && ",
            "curl -fsS --connect-timeout 10 --cacert \"$d/ca.pem\" -o \"$d/agent.sh\" {url} && sh \"$d/agent.sh\" \"$d/ca.pem\" {key} )"
        ),
        variable = TOKEN_VARIABLE,
        token = quoted(join.token.expose_secret()),
        ca = ca.join(" "),
        key = quoted(&join.signing_key),
        url = script_url(portal_url),
    )
}

/// The script cloud-init runs: as the pasted line, but patient, because a machine's network comes up when it likes.
fn cloud_init_script(portal_url: &str, signing_key: &str) -> String {
    format!(
        "#!/bin/sh
set -eu
umask 077
dir={CLOUD_INIT_DIR}
[ -f \"$dir/token\" ] || exit 0
tries=0
until curl -fsS --connect-timeout 5 --cacert \"$dir/ca.pem\" -o \"$dir/agent.sh\" {url}; do
  tries=$((tries + 1))
  [ \"$tries\" -lt 150 ] || {{ echo 'pilothouse: the platform did not answer; is this machine allowed to reach it?' >&2; exit 1; }}
  sleep 2
done
{TOKEN_VARIABLE}=$(cat \"$dir/token\")
export {TOKEN_VARIABLE}
sh \"$dir/agent.sh\" \"$dir/ca.pem\" {key}
rm -f \"$dir/token\"
",
        url = script_url(portal_url),
        key = quoted(signing_key),
    )
}

/// User-data for a machine with cloud-init. It is JSON, which is YAML too, behind cloud-init's own first line.
pub fn cloud_init(join: &JoinMaterial, portal_url: &str) -> String {
    let file = |name: &str, mode: &str, content: &str| json!({"content": content, "owner": "root:root", "path": format!("{CLOUD_INIT_DIR}/{name}"), "permissions": mode});
    let files = [
        file("ca.pem", "0644", &join.ca_pem),
        file("token", "0600", join.token.expose_secret()),
        file("join.sh", "0700", &cloud_init_script(portal_url, &join.signing_key)),
    ];
    let run = [["sh".to_owned(), format!("{CLOUD_INIT_DIR}/join.sh")]];
    format!("#cloud-config\n{:#}\n", json!({"runcmd": run, "write_files": files}))
}

#[cfg(test)]
mod tests;
