//! kube-apiserver: the one program that a tenant's people, nodes and controllers talk to.
//!
//! Everything it dials for its tenant inside the cluster (kubelets, pods, webhooks, aggregated APIs) goes through the gateway's tunnel by
//! the egress selector (KEP-1281), so a tenant cannot make it call into the host's network that way.
//!
//! It cannot stop without etcd: whoever stops both stops it first, or it hangs until it is killed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Files, flag};
use crate::addon::PROTECTED;
use crate::pki::{
    ClusterPki, KubeconfigAuthorities, LeafKind, client_trust_pem, kubelet_user, node_proxy_user, role_group,
};
use crate::status::AccessRole;

/// The binary's and the component's name.
pub const NAME: &str = "kube-apiserver";

/// The environment it runs with. Its heap is mostly long-lived caches, so a smaller growth between two collections saves memory for as long
/// as it lives, and costs processor time while it starts. At rest, with its controllers, it has 162, 182 or 207 MB of its own at 50, 75 or
/// 100; five that start at once on two cores need 12.4 CPU-seconds at 50, 11.2 at 100 and 10.1 at 200.
pub const ENV: &[(&str, &str)] = &[("GOGC", "75")];

/// Where to reach nodes and pods from, when it is not by plain dialing.
pub struct Egress<'a> {
    /// The gateway, `https://<label>.egress.<domain>:<port>`.
    pub url: &'a str,
    /// What signed the gateway's certificate, PEM.
    pub ca_pem: &'a str,
}

/// What differs between one API server and another.
pub struct Settings<'a> {
    /// The directory that holds [`files`].
    pub files: &'a str,
    /// The directory that holds [`client_files`].
    pub client_files: &'a str,
    /// The audit log's path; at most 75 MB are kept there in three files.
    pub audit_log: &'a str,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port to listen on.
    pub port: u16,
    /// The address it tells the cluster; for tenants the node-local one.
    pub advertise: IpAddr,
    /// The name it calls itself by in documents.
    pub external_name: &'a str,
    /// Who signs service-account tokens, an https URL.
    pub issuer: &'a str,
    /// etcd, `https://name:port`.
    pub etcd_url: &'a str,
    /// Services' addresses.
    pub service_cidr: Ipv4Net,
    /// Whether nodes and pods are reached through the tunnel; [`files`] must have been given the egress then.
    pub tunnel: bool,
    /// Whether it keeps the endpoints of the service `kubernetes` itself; tenants' are ours.
    pub publishes_endpoint: bool,
}

/// The flags, complete but for the binary's name.
pub fn flags(settings: &Settings<'_>) -> Vec<String> {
    let groups = [
        serving(settings),
        storage(settings),
        authentication(settings),
        service_accounts(settings),
        nodes(settings),
        limits(),
    ];
    groups.concat()
}

fn file(settings: &Settings<'_>, name: &str, file: &str) -> String {
    flag(name, format_args!("{}/{file}", settings.files))
}

fn serving(settings: &Settings<'_>) -> Vec<String> {
    vec![
        flag("bind-address", settings.bind),
        flag("secure-port", settings.port),
        flag("advertise-address", settings.advertise),
        flag("external-hostname", settings.external_name),
        file(settings, "tls-cert-file", "serving.crt"),
        file(settings, "tls-private-key-file", "serving.key"),
        flag("tls-min-version", "VersionTLS12"),
        flag("service-cluster-ip-range", settings.service_cidr),
    ]
}

fn storage(settings: &Settings<'_>) -> Vec<String> {
    vec![
        flag("etcd-servers", settings.etcd_url),
        file(settings, "etcd-cafile", "etcd-ca.crt"),
        file(settings, "etcd-certfile", "etcd-client.crt"),
        file(settings, "etcd-keyfile", "etcd-client.key"),
        file(settings, "encryption-provider-config", "encryption.json"),
        flag("event-ttl", "1h"),
    ]
}

fn authentication(settings: &Settings<'_>) -> Vec<String> {
    vec![
        // Watched by the API server and looked at for every request: what leaves it is refused within a tenth of a second, also on
        // connections that are open.
        flag("client-ca-file", format_args!("{}/{CLIENT_CA}", settings.client_files)),
        file(settings, "authentication-config", "authentication.json"),
        // Watched as well.
        flag("authorization-config", format_args!("{}/{AUTHORIZATION}", settings.client_files)),
        flag("enable-admission-plugins", "NodeRestriction"),
        file(settings, "requestheader-client-ca-file", "front-proxy-ca.crt"),
        flag("requestheader-allowed-names", crate::pki::FRONT_PROXY_NAME),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        file(settings, "proxy-client-cert-file", "front-proxy-client.crt"),
        file(settings, "proxy-client-key-file", "front-proxy-client.key"),
        file(settings, "audit-policy-file", "audit-policy.json"),
        flag("audit-log-path", settings.audit_log),
        flag("audit-log-mode", "batch"),
        flag("audit-log-maxsize", 25),
        flag("audit-log-maxbackup", 2),
        flag("audit-log-maxage", 30),
    ]
}

fn service_accounts(settings: &Settings<'_>) -> Vec<String> {
    vec![
        flag("service-account-issuer", settings.issuer),
        // Older clients ask for a token for the in-cluster name; both are this cluster's alone, because the issuer and the key are.
        flag("api-audiences", format_args!("{},https://kubernetes.default.svc", settings.issuer)),
        file(settings, "service-account-signing-key-file", "service-account.key"),
        file(settings, "service-account-key-file", "service-account.pub"),
        flag("service-account-extend-token-expiration", false),
        // Whoever asks chooses the lifetime (TokenRequest), and a token outlives the kubeconfig that asked for it.
        flag("service-account-max-token-expiration", SERVICE_ACCOUNT_TOKEN_LIFE),
    ]
}

fn nodes(settings: &Settings<'_>) -> Vec<String> {
    let always = [
        file(settings, "kubelet-certificate-authority", "kubelet-ca.crt"),
        file(settings, "kubelet-client-certificate", "kubelet-client.crt"),
        file(settings, "kubelet-client-key", "kubelet-client.key"),
        // A node's InternalIP is unique in its cluster, and the gateway routes by it. By name first, the node proxy would ask DNS.
        flag("kubelet-preferred-address-types", "InternalIP,Hostname"),
    ];
    let tunnel =
        [file(settings, "egress-selector-config-file", "egress.json"), flag("enable-aggregator-routing", true)];
    let reconciler = flag("endpoint-reconciler-type", "none");
    let tunnel = tunnel.into_iter().filter(|_| settings.tunnel);
    always.into_iter().chain(tunnel).chain((!settings.publishes_endpoint).then_some(reconciler)).collect()
}

/// `goaway-chance` stays 0: behind a passthrough gateway a GOAWAY only costs a handshake and balances nothing. Without a watch
/// termination period a stopping server waits a minute for its watchers (measured: 61.8 s; with it 1.2 s).
fn limits() -> Vec<String> {
    vec![
        flag("profiling", false),
        flag("goaway-chance", 0),
        flag("shutdown-delay-duration", "0s"),
        flag("shutdown-watch-termination-grace-period", "1s"),
        flag("allow-privileged", true),
    ]
}

/// The files it reads; with an egress where nodes are reached through the tunnel.
pub fn files(pki: &ClusterPki, egress: Option<&Egress<'_>>) -> Files {
    let encryption = encryption(&pki.encryption_key);
    let own = Files::new([
        ("serving.crt", pki.cert(LeafKind::ApiServing)),
        ("serving.key", pki.key(LeafKind::ApiServing)),
        ("kubelet-ca.crt", &pki.kubelet.trust_pem()),
        ("kubelet-client.crt", pki.cert(LeafKind::ApiKubeletClient)),
        ("kubelet-client.key", pki.key(LeafKind::ApiKubeletClient)),
        ("front-proxy-ca.crt", &pki.front_proxy.trust_pem()),
        ("front-proxy-client.crt", pki.cert(LeafKind::FrontProxyClient)),
        ("front-proxy-client.key", pki.key(LeafKind::FrontProxyClient)),
        ("etcd-ca.crt", &pki.etcd.trust_pem()),
        ("etcd-client.crt", pki.cert(LeafKind::ApiEtcdClient)),
        ("etcd-client.key", pki.key(LeafKind::ApiEtcdClient)),
        ("service-account.key", &pki.sa_key_pem),
        ("service-account.pub", &pki.sa_public_pem),
        ("encryption.json", &encryption),
        ("authentication.json", &authentication_config().to_string()),
        ("audit-policy.json", &audit_policy().to_string()),
    ]);
    match egress {
        Some(egress) => own.and(egress_files(pki, egress)),
        None => own,
    }
}

/// Whom it believes and whom it refuses, apart from its other files because it changes with every file kubeconfig and every removed node:
/// no pod is restarted for that. `dir` is where the server finds them.
pub fn client_files(pki: &ClusterPki, authorities: &KubeconfigAuthorities, removed: &RemovedNodes, dir: &str) -> Files {
    Files::new([
        (CLIENT_CA, &client_trust_pem(&pki.client, authorities)),
        (AUTHORIZATION, &authorization_config(removed, dir).to_string()),
        (WEBHOOK, &webhook_kubeconfig().to_string()),
    ])
}

fn egress_files(pki: &ClusterPki, egress: &Egress<'_>) -> Files {
    Files::new([
        ("egress.json", &egress_config(egress.url).to_string()),
        ("egress-ca.crt", egress.ca_pem),
        ("egress-client.crt", pki.cert(LeafKind::Egress)),
        ("egress-client.key", pki.key(LeafKind::Egress)),
    ])
}

// Keys in the objects below stand in alphabetical order, so that their text is the same whichever order the JSON library keeps.

/// Secrets rest encrypted in etcd; nothing was ever written in clear, so nothing need be readable in clear.
fn encryption(key: &[u8; 32]) -> Zeroizing<String> {
    let key = Zeroizing::new(STANDARD.encode(key));
    let providers = json!([{"secretbox": {"keys": [{"name": "key1", "secret": key.as_str()}]}}]);
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"providers": providers, "resources": ["secrets"]}],
    });
    Zeroizing::new(config.to_string())
}

/// Who may come without a certificate: health checks, and nobody else (KEP-4633).
fn authentication_config() -> Value {
    json!({
        "anonymous": {"conditions": [{"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}], "enabled": true},
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
    })
}

/// Names of nodes that were removed, for as long as certificates in these names last.
pub type RemovedNodes = BTreeSet<String>;

/// The most nodes in one expression: of one, 100,000 characters are parsed at most (cel-go's `ExpressionSizeCodePointLimit`), and a node
/// takes up to 168.
/// The longest lifetime of a service account's token.
const SERVICE_ACCOUNT_TOKEN_LIFE: &str = "24h";
const NODES_PER_EXPRESSION: usize = 500;

/// Who may do what: nodes what they run needs, everybody else what roles say (KEP-3221). Before that come refusals that no role inside the
/// cluster lifts: of removed nodes everything, of role `edit` the secrets of Kubernetes' own namespaces.
///
/// Why not an authority for each node in the client-CA bundle, as kubeconfigs have: a machine would join seconds later, when every API server
/// has taken its authority up, each handshake would name every living node's, and renewal would need the authorities' keys kept. Names cost
/// nothing before a removal, and are forgotten a day after it.
fn authorization_config(removed: &RemovedNodes, dir: &str) -> Value {
    let names: Vec<&String> = removed.iter().collect();
    let nodes = names.chunks(NODES_PER_EXPRESSION).enumerate();
    let nodes = nodes.map(|(n, nodes)| refusal(&format!("removed-nodes-{n}"), &removed_nodes(nodes), dir));
    let refusals = nodes.chain([refusal("edit-protected-secrets", &protected_secrets(), dir)]);
    let usual = [json!({"name": "node", "type": "Node"}), json!({"name": "rbac", "type": "RBAC"})];
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "authorizers": refusals.chain(usual).collect::<Vec<_>>(),
        "kind": "AuthorizationConfiguration",
    })
}

/// What is refused, and the words it is refused with: CEL over a SubjectAccessReview's spec, of which all fields are there.
struct Refused {
    condition: String,
    message: String,
}

fn removed_nodes(nodes: &[&String]) -> Refused {
    let users: Vec<String> = nodes.iter().flat_map(|node| [kubelet_user(node), node_proxy_user(node)]).collect();
    Refused {
        condition: format!("request.user in {}", json!(users)),
        message: "'this node was removed: ' + request.user".to_owned(),
    }
}

/// Lists of all namespaces hold those of the protected ones.
fn protected_secrets() -> Refused {
    let namespaces: Vec<&str> = PROTECTED.iter().copied().chain([""]).collect();
    let condition = format!(
        "'{}' in request.groups && has(request.resourceAttributes) && request.resourceAttributes.group == '' && \
         request.resourceAttributes.resource == 'secrets' && request.resourceAttributes.namespace in {}",
        role_group(AccessRole::Edit),
        json!(namespaces)
    );
    let message = "'role edit reads secrets namespace by namespace, and none of those of Kubernetes: name a namespace of \
                   your own, or use a kubeconfig of role admin'";
    Refused { condition, message: message.to_owned() }
}

/// A webhook that is never called: where its first condition is false it has no opinion; where it is true the second one fails, and
/// `failurePolicy` refuses (match conditions of AuthorizationConfiguration). The API server answers 500 with the error's words, as after
/// every authorizer that denies with an error; nothing but a webhook that is called denies with 403.
fn refusal(name: &str, refused: &Refused, dir: &str) -> Value {
    // There is no such key: the error says so.
    let fails = format!("{{'': false}}[{}]", refused.message);
    let webhook = json!({
        "connectionInfo": {"kubeConfigFile": format!("{dir}/{WEBHOOK}"), "type": "KubeConfigFile"},
        "failurePolicy": "Deny",
        "matchConditionSubjectAccessReviewVersion": "v1",
        "matchConditions": [{"expression": refused.condition}, {"expression": fails}],
        "subjectAccessReviewVersion": "v1",
        "timeout": "1s",
    });
    json!({"name": name, "type": "Webhook", "webhook": webhook})
}

/// Where the webhook is, which is never called: nowhere. The configuration must name one.
fn webhook_kubeconfig() -> Value {
    json!({
        "apiVersion": "v1",
        "clusters": [{"cluster": {"server": "https://127.0.0.1:1"}, "name": "nowhere"}],
        "contexts": [{"context": {"cluster": "nowhere", "user": "nobody"}, "name": "nowhere"}],
        "current-context": "nowhere",
        "kind": "Config",
        "users": [{"name": "nobody", "user": {}}],
    })
}

/// Who did what and when, without bodies; health checks are left out.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/livez*", "/readyz*", "/healthz*"]},
            {"level": "Metadata"},
        ],
    })
}

/// All but etcd through the gateway: nodes, pods, services, and whatever a tenant names by its URL. The paths are those inside a tenant's pod: only it has a tunnel.
fn egress_config(url: &str) -> Value {
    let path = |name: &str| format!("{POD_FILES}/{name}");
    let tls = json!({
        "caBundle": path("egress-ca.crt"),
        "clientCert": path("egress-client.crt"),
        "clientKey": path("egress-client.key"),
    });
    let cluster = json!({"proxyProtocol": "HTTPConnect", "transport": {"tcp": {"tlsConfig": tls, "url": url}}});
    json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "egressSelections": [
            {"connection": &cluster, "name": "cluster"},
            // Webhooks that are named by a URL go by this word: the gateway refuses what is not the tenant's own.
            {"connection": &cluster, "name": "controlplane"},
            {"connection": {"proxyProtocol": "Direct"}, "name": "etcd"},
        ],
        "kind": "EgressSelectorConfiguration",
    })
}

/// Where a tenant's pod has [`files`].
pub(crate) const POD_FILES: &str = "/etc/kubernetes/apiserver";
/// Where a tenant's pod has [`client_files`].
pub(crate) const POD_CLIENT_FILES: &str = "/etc/kubernetes/client-authorities";
/// Who may do what.
const AUTHORIZATION: &str = "authorization.json";
/// The kubeconfig of the webhooks that refuse and are never called.
const WEBHOOK: &str = "nowhere.kubeconfig";
/// The bundle of the authorities that vouch for clients.
const CLIENT_CA: &str = "client-ca.crt";
