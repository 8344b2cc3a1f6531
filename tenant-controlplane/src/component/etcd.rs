//! etcd: a cluster's memory. One member, on a real disk, with fsync.
//!
//! Clients need a certificate of the cluster's etcd CA. The peer port listens on loopback only, since there are no peers; so does the one
//! for plain HTTP requests, because gRPC alone on its port is served faster and fairer. Health and metrics have a port of their own
//! without TLS, because kubelets' probes carry no certificate.

use std::net::{IpAddr, Ipv4Addr};

use super::{Files, flag};
use crate::pki::{ClusterPki, LeafKind};

/// The binary's and the component's name.
pub const NAME: &str = "etcd";

/// Where a tenant's pod has [`files`].
pub(crate) const POD_FILES: &str = "/etc/etcd";
/// Where a tenant's pod has its volume.
pub(crate) const POD_DATA: &str = "/var/lib/etcd";

/// What it reads once, at its start. Its own certificate and key it reads again for every connection it takes.
pub(crate) const READ_AT_START: &[&str] = &["ca.crt"];

/// The port clients use in tenants.
pub const CLIENT_PORT: u16 = 2379;
/// The port of health and metrics in tenants.
pub const HEALTH_PORT: u16 = 2381;

/// Whether etcd has reached its quota, as it answers `/health` (`{"health":"false","reason":"ALARM NOSPACE"}`); none for what is no such
/// answer.
pub fn is_full(health: &str) -> Option<bool> {
    let answer: serde_json::Value = serde_json::from_str(health).ok()?;
    let reason = answer["reason"].as_str().unwrap_or_default();
    answer["health"].as_str().map(|_| reason.contains("NOSPACE"))
}

const MIB: u64 = 1024 * 1024;
/// The volume a tenant's etcd asks for, bytes.
pub const VOLUME: u64 = 1024 * MIB;
/// Files of the write-ahead log that are kept, and one that is made ahead, of this size each.
const WAL_FILES: u64 = 3;
const WAL_FILE: u64 = 64 * MIB;
/// At its start etcd defragments when that gives back so much, bytes.
const DEFRAGMENT: u64 = 100 * MIB;
/// The most a tenant's etcd may hold, bytes: so much that log, data, and the copy it makes to defragment a full one fit its volume.
pub const QUOTA: u64 = (VOLUME - (WAL_FILES + 1) * WAL_FILE + DEFRAGMENT) / 2;
/// Said by the compiler: a full one can be defragmented where it is.
const _: () = assert!(QUOTA + (QUOTA - DEFRAGMENT) + (WAL_FILES + 1) * WAL_FILE <= VOLUME);
/// The most the host's own etcd may hold, bytes: what etcd itself takes for its default.
pub const HOST_QUOTA: u64 = 2048 * MIB;

/// What differs between one etcd and another.
pub struct Settings<'a> {
    /// The directory that holds [`files`].
    pub files: &'a str,
    /// The directory its data is in; made when missing.
    pub data: &'a str,
    /// The member's name.
    pub member: &'a str,
    /// The address to listen on for clients and health checks.
    pub bind: IpAddr,
    /// The port for clients.
    pub client_port: u16,
    /// The port for peers, on loopback.
    pub peer_port: u16,
    /// The port for HTTP requests with a client certificate (`etcdctl` does not need it), on loopback.
    pub http_port: u16,
    /// The port for `/readyz`, `/livez` and `/metrics`, without TLS.
    pub health_port: u16,
    /// Whether a write is on the disk before it is answered. `false` loses data at a power cut: for tests only.
    pub fsync: bool,
    /// At how many bytes it takes no more writes.
    pub quota: u64,
}

impl Settings<'_> {
    /// Those of a tenant's pod.
    pub(crate) const fn pod(fsync: bool) -> Self {
        Self {
            files: POD_FILES,
            data: POD_DATA,
            member: "etcd-0",
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            client_port: CLIENT_PORT,
            peer_port: 2380,
            http_port: 2382,
            health_port: HEALTH_PORT,
            fsync,
            quota: QUOTA,
        }
    }
}

/// The flags, complete but for the binary's name.
pub fn flags(settings: &Settings<'_>) -> Vec<String> {
    let Settings { files, member, bind, .. } = settings;
    let peer = format!("http://127.0.0.1:{}", settings.peer_port);
    let mut flags = vec![
        flag("name", member),
        flag("data-dir", format_args!("{}/data", settings.data)),
        flag("listen-client-urls", format_args!("https://{bind}:{}", settings.client_port)),
        flag("listen-client-http-urls", format_args!("https://127.0.0.1:{}", settings.http_port)),
        flag("advertise-client-urls", format_args!("https://etcd:{}", settings.client_port)),
        flag("cert-file", format_args!("{files}/server.crt")),
        flag("key-file", format_args!("{files}/server.key")),
        flag("trusted-ca-file", format_args!("{files}/ca.crt")),
        flag("client-cert-auth", true),
        flag("listen-peer-urls", &peer),
        flag("initial-advertise-peer-urls", &peer),
        flag("initial-cluster", format_args!("{member}={peer}")),
        // Alone, it has nobody to hear from: with short beats it elects itself in some 40 ms instead of 100 and more. Every beat costs
        // processor time for as long as it lives, so they are not shorter.
        flag("heartbeat-interval", 40),
        flag("election-timeout", 400),
        flag("listen-metrics-urls", format_args!("http://{bind}:{}", settings.health_port)),
        flag("enable-grpc-gateway", false),
        flag("auto-compaction-mode", "periodic"),
        flag("auto-compaction-retention", "30m"),
        flag("quota-backend-bytes", settings.quota),
        flag("bootstrap-defrag-threshold-megabytes", DEFRAGMENT / MIB),
        flag("max-wals", WAL_FILES),
        flag("snapshot-count", 10_000),
        flag("log-level", "warn"),
    ];
    flags.extend((!settings.fsync).then(|| flag("unsafe-no-fsync", true)));
    flags
}

/// The files it reads.
pub fn files(pki: &ClusterPki) -> Files {
    Files::new([
        ("server.crt", pki.cert(LeafKind::EtcdServing)),
        ("server.key", pki.key(LeafKind::EtcdServing)),
        ("ca.crt", &pki.etcd.trust_pem()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_etcd_says_so() {
        assert_eq!(is_full(r#"{"health":"true","reason":""}"#), Some(false));
        assert_eq!(is_full(r#"{"health":"false","reason":"ALARM NOSPACE"}"#), Some(true));
        assert_eq!(is_full(r#"{"health":"false","reason":"RAFT NO LEADER"}"#), Some(false));
        assert_eq!(is_full("404 page not found"), None);
        assert_eq!(is_full(r#"{"kind":"Status","code":503,"reason":"ServiceUnavailable"}"#), None);
    }
}
