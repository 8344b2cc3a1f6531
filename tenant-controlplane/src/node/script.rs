//! The script a joining machine runs: fetch the agent, check it, start it. The agent does the rest and knows how to undo it.

use node_protocol::path;

use super::{TOKEN_VARIABLE, quoted};

/// What the script carries; nothing of it is a secret.
#[derive(Clone, Copy, Debug)]
pub struct InstallInput<'a> {
    /// Where the portal answers, `https://…`.
    pub portal_url: &'a str,
    /// The gateway, `address:port`.
    pub server: &'a str,
    /// The installation's domain.
    pub domain: &'a str,
    /// The agent's SHA-256, lower-case hex.
    pub agent_sha256: &'a str,
    /// What `uname -m` says on machines the agent was built for.
    pub machine: &'a str,
}

/// Everything is inside `main`, called on the last line, so that a script cut short does nothing.
const BODY: &str = r#"
fail() {
  echo "pilothouse: $1" >&2
  exit 1
}

check() {
  [ "$(id -u)" = 0 ] || fail 'this must run as root: type "sudo -i" first'
  [ "$(uname -s)" = Linux ] || fail "this machine runs $(uname -s); only Linux can join"
  [ "$(uname -m)" = "$machine" ] || fail "this machine is $(uname -m); the agent is built for $machine"
  [ -n "${PILOTHOUSE_JOIN_TOKEN:-}" ] || fail 'no join token: paste the whole line from the cluster page again'
  [ -r "$ca" ] || fail 'no CA file: paste the whole line from the cluster page again'
  for tool in curl sha256sum setsid; do
    command -v "$tool" >/dev/null || fail "$tool is missing: install it and run the join command again"
  done
}

download() {
  curl -fsS --connect-timeout 10 --retry 5 --cacert "$ca" -o "$1" "$agent_url" || fail "cannot fetch the agent from $agent_url"
  echo "$agent_sha256  $1" | sha256sum -c - >/dev/null 2>&1 || {
    rm -f "$1"
    fail 'the fetched agent is not the expected one (checksum differs): nothing was installed; try again'
  }
}

install_agent() {
  mkdir -p "$bin_dir"
  download "$bin_dir/.pilothouse-node.new"
  chmod 0755 "$bin_dir/.pilothouse-node.new"
  mv -f "$bin_dir/.pilothouse-node.new" "$agent"
}

start_agent() {
  unset PILOTHOUSE_JOIN_TOKEN
  if [ -d /run/systemd/system ]; then
    "$agent" install-service
  else
    (umask 077; setsid "$agent" run </dev/null >>/var/log/pilothouse-node.log 2>&1 &)
    echo 'pilothouse: no systemd here; the agent runs in the background and logs to /var/log/pilothouse-node.log'
    echo "pilothouse: after a reboot start it with: $agent run"
  fi
}

main() {
  ca=${1:-}
  # A line of before there were signatures has no key: the agent then takes the platform's first.
  key=${2:-}
  check
  install_agent
  "$agent" join --server "$server" --domain "$domain" --ca-file "$ca" ${key:+--signing-key "$key"}
  start_agent
  echo "pilothouse: done; check the status with: $agent status"
}

main "$@"
"#;

/// The script's text, for POSIX sh. Its arguments are the CA file and the key that signs the parts; the token comes in the environment.
pub fn install_script(input: &InstallInput<'_>) -> String {
    let url = format!("{}{}", input.portal_url.trim_end_matches('/'), path::AGENT);
    let head = [
        ("server", input.server),
        ("domain", input.domain),
        ("agent_url", &url),
        ("agent_sha256", input.agent_sha256),
        ("machine", input.machine),
        ("bin_dir", "/opt/pilothouse/bin"),
    ];
    let variables: String = head.iter().map(|(name, text)| format!("{name}={}\n", quoted(text))).collect();
    format!(
        "#!/bin/sh
# Makes this machine a node of a Pilothouse cluster: fetches the agent and starts it.
# Usage: {TOKEN_VARIABLE}=… sh agent.sh CA-FILE [SIGNING-KEY]
set -eu
umask 022
{variables}agent=$bin_dir/pilothouse-node
{BODY}"
    )
}
