//! A Kubernetes API that is a map, for tests: it fails at any call it is told to, and pods come up by themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::bindings::{CLUSTER_ROLE_BINDING, RBAC, ROLE_BINDING, binds, note_users};
use super::{
    Announced, ApiError, Connector, Health, Kubernetes, Meta, NodeStatus, ObjectKey, PodInfo, Site, TenantConnection,
    Watch, WatchEvent,
};

/// Counts outward calls of everything in one test, and fails one of them.
#[derive(Debug, Default)]
pub struct FaultInjector {
    calls: AtomicUsize,
    fail_at: Mutex<Option<usize>>,
}

impl FaultInjector {
    /// Fails the `n`th call, once.
    pub fn fail_at(&self, n: usize) {
        *self.fail_at.lock().unwrap() = Some(n);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Whether this call is to fail.
    fn strikes(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut at = self.fail_at.lock().unwrap();
        let strikes = *at == Some(call);
        if strikes {
            *at = None;
        }
        strikes
    }
}

/// The API. Calls take effect even when they are told to fail: an answer can be lost.
pub struct Scripted {
    pub faults: Arc<FaultInjector>,
    pub objects: Mutex<BTreeMap<ObjectKey, Value>>,
    pub health: Mutex<Health>,
    pub reachable: Mutex<bool>,
    /// How many looks a namespace stays after its deletion.
    pub deletion_polls: AtomicUsize,
    /// Whether a webhook that cannot be called and fails closed stands before every write.
    pub webhook: AtomicBool,
    /// Whether writes are never answered.
    pub hangs: AtomicBool,
    /// Pods that a disruption budget keeps, by name; evicting others ends them.
    pub guarded: Mutex<Vec<String>>,
    /// Whether every etcd has reached its quota.
    pub full: AtomicBool,
    /// The authorization configuration in force.
    authorization: Mutex<String>,
    pods: watch::Sender<Vec<PodInfo>>,
    nodes: watch::Sender<Vec<NodeStatus>>,
}

impl Scripted {
    pub fn new(faults: Arc<FaultInjector>) -> Arc<Self> {
        Arc::new(Self {
            faults,
            objects: Mutex::default(),
            health: Mutex::new(Health::Ready),
            reachable: Mutex::new(true),
            deletion_polls: AtomicUsize::new(2),
            webhook: AtomicBool::default(),
            hangs: AtomicBool::default(),
            guarded: Mutex::default(),
            full: AtomicBool::default(),
            authorization: Mutex::default(),
            pods: watch::Sender::new(Vec::new()),
            nodes: watch::Sender::new(Vec::new()),
        })
    }

    pub fn set_nodes(&self, nodes: Vec<NodeStatus>) {
        self.nodes.send_replace(nodes);
    }

    /// An object that `manager` applied.
    pub fn put(&self, key: ObjectKey, labels: &Value, manager: &str) {
        let fields = json!([{"manager": manager, "operation": "Apply"}]);
        let metadata = json!({"name": key.name, "namespace": key.namespace, "labels": labels, "managedFields": fields});
        let object = json!({"apiVersion": key.api_version, "kind": key.kind, "metadata": metadata});
        self.objects.lock().unwrap().insert(key, object);
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().map(|key| format!("{} {}", key.kind, key.name)).collect()
    }

    /// Whether admission lets a write pass.
    fn admitted(&self, object: &Value) -> Result<(), ApiError> {
        if !self.webhook.load(Ordering::SeqCst) {
            return Ok(());
        }
        let what = format!("apply {} {}", object["kind"], object["metadata"]["name"]);
        let message = "Internal error occurred: failed calling webhook \"all.example.com\": no endpoints available";
        Err(ApiError::Rejected { what, code: 500, message: message.to_owned() })
    }

    fn struck(&self) -> Result<(), ApiError> {
        if self.faults.strikes() {
            return Err(ApiError::Unreachable("told to fail".into()));
        }
        Ok(())
    }

    fn watch<T: Clone + Send + Sync + 'static>(&self, sender: &watch::Sender<Vec<T>>) -> Watch<T> {
        let stream = futures::stream::unfold((sender.subscribe(), true), |(mut receiver, first)| async move {
            if !first && receiver.changed().await.is_err() {
                return None;
            }
            let all = receiver.borrow_and_update().clone();
            Some((Ok(WatchEvent::All(all)), (receiver, false)))
        });
        stream.boxed()
    }
}

#[async_trait]
impl Kubernetes for Scripted {
    async fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let key = ObjectKey::of(object)?;
        super::resources::kind(&key.api_version, &key.kind)?;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.admitted(object)?;
        let mut stored = object.clone();
        if key.kind == "Service" && stored["spec"]["clusterIP"].is_null() {
            stored["spec"]["clusterIP"] = json!("100.64.128.9");
        }
        stored["metadata"]["managedFields"] = json!([{"manager": super::FIELD_MANAGER, "operation": "Apply"}]);
        let mut objects = self.objects.lock().unwrap();
        if let Some(known) = objects.get(&key).filter(|_| key.kind == "Node") {
            // As the real one: what others wrote stays.
            let cordoned = stored["spec"].take();
            stored = known.clone();
            stored["spec"] = cordoned;
        }
        objects.insert(key, stored.clone());
        drop(objects);
        self.struck().map(|()| stored)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, ApiError> {
        let found = {
            let mut objects = self.objects.lock().unwrap();
            let found = objects.get(key).cloned();
            let terminating = found.as_ref().is_some_and(|found| !found["metadata"]["deletionTimestamp"].is_null());
            let left = self.deletion_polls.load(Ordering::SeqCst);
            let kept = found.as_ref().is_some_and(|found| !found["metadata"]["finalizers"].is_null());
            if terminating && left == 0 && !kept {
                let namespace = Some(key.name.clone());
                objects.retain(|other, _| other != key && other.namespace != namespace);
                None
            } else {
                if terminating {
                    self.deletion_polls.store(left.saturating_sub(1), Ordering::SeqCst);
                }
                found
            }
        };
        self.struck().map(|()| found)
    }

    async fn list(&self, api_version: &str, kind: &str) -> Result<Vec<Value>, ApiError> {
        let objects = self.objects.lock().unwrap();
        let of_kind = objects.iter().filter(|(key, _)| key.kind == kind && key.api_version == api_version);
        let found = of_kind.map(|(_, object)| object.clone()).collect();
        self.struck().map(|()| found)
    }

    async fn select(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let objects = self.objects.lock().unwrap();
        let of_kind = objects.iter().filter(|(key, _)| key.kind == kind && key.api_version == api_version);
        let within = of_kind.filter(|(key, _)| namespace.is_none() || key.namespace.as_deref() == namespace);
        let carries = |object: &Value| {
            labels.split(',').filter(|pair| !pair.is_empty()).all(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                object["metadata"]["labels"][name] == value
            })
        };
        let found = within.filter(|(_, object)| carries(object)).map(|(_, object)| {
            // As the real one: objects in a list do not say what they are.
            let mut object = object.clone();
            object.as_object_mut().unwrap().retain(|name, _| name != "kind" && name != "apiVersion");
            object
        });
        let found = found.collect();
        self.struck().map(|()| found)
    }

    async fn bindings_of(&self, users: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<ObjectKey>>, ApiError> {
        let mut bindings = BTreeMap::new();
        for kind in [CLUSTER_ROLE_BINDING, ROLE_BINDING] {
            let found = self.select(RBAC, kind, None, "").await?;
            note_users(&mut bindings, found.iter().flat_map(|binding| binds(kind, binding, users)));
        }
        Ok(bindings)
    }

    async fn token_secrets(&self) -> Result<Vec<Meta>, ApiError> {
        let secrets = self.select("v1", "Secret", None, "").await?;
        let tokens = secrets.into_iter().filter(|secret| secret["type"] == "kubernetes.io/service-account-token");
        Ok(tokens.map(|secret| Meta::of(serde_json::from_value(secret["metadata"].clone()).unwrap())).collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ApiError> {
        self.admitted(&json!({"kind": key.kind, "metadata": {"name": key.name}}))?;
        let mut objects = self.objects.lock().unwrap();
        let kept = objects.get(key).is_some_and(|object| !object["metadata"]["finalizers"].is_null());
        if key.kind == "Namespace" || kept {
            if let Some(terminating) = objects.get_mut(key) {
                terminating["metadata"]["deletionTimestamp"] = json!("2026-11-20T12:00:00Z");
            }
        } else {
            objects.remove(key);
        }
        self.struck()
    }

    async fn metadata(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Meta>, ApiError> {
        Ok(self.select(api_version, kind, namespace, labels).await?.iter().map(meta).collect())
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ApiError> {
        Ok(self.get(key).await?.is_some())
    }

    async fn end(&self, key: &ObjectKey) -> Result<(), ApiError> {
        self.objects.lock().unwrap().remove(key);
        self.struck()
    }

    async fn release(&self, key: &ObjectKey) -> Result<(), ApiError> {
        let mut objects = self.objects.lock().unwrap();
        if objects.get(key).is_some_and(|object| !object["metadata"]["deletionTimestamp"].is_null()) {
            objects.remove(key);
        }
        drop(objects);
        self.struck()
    }

    async fn denies(&self, user: &str) -> Result<bool, ApiError> {
        self.admitted(&json!({"kind": "SubjectAccessReview", "metadata": {}}))?;
        let denies = self.authorization.lock().unwrap().contains(&format!("\\\"{user}\\\""));
        self.struck().map(|()| denies)
    }

    async fn would_take(&self, object: &Value) -> Result<(), ApiError> {
        self.admitted(object)?;
        self.struck()
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<Meta>, ApiError> {
        let pods = self.list("v1", "Pod").await?;
        let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        Ok(pods.iter().filter(|pod| pod["spec"]["nodeName"] == node && !ended(pod)).map(meta).collect())
    }

    async fn ask_pod(&self, _: &ObjectKey, _: u16, _: &str) -> Result<(u16, String), ApiError> {
        self.struck()?;
        Ok(match self.full.load(Ordering::SeqCst) {
            true => (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned()),
            false => (200, r#"{"health":"true","reason":""}"#.to_owned()),
        })
    }

    async fn evict(&self, namespace: &str, pod: &str) -> Result<(), ApiError> {
        if self.guarded.lock().unwrap().iter().any(|name| name == pod) {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
            return Err(ApiError::Rejected { what: format!("evict {pod}"), code: 429, message });
        }
        self.delete(&ObjectKey::namespaced("v1", "Pod", namespace, pod)).await
    }

    async fn health(&self) -> Health {
        match self.struck() {
            Ok(()) => self.health.lock().unwrap().clone(),
            Err(_) => Health::Down("told to fail".to_owned()),
        }
    }

    async fn answers(&self) -> Result<(), ApiError> {
        self.struck()?;
        if *self.reachable.lock().unwrap() { Ok(()) } else { Err(ApiError::Timeout) }
    }

    fn watch_pods(&self) -> Watch<PodInfo> {
        self.watch(&self.pods)
    }

    fn watch_nodes(&self) -> Watch<NodeStatus> {
        self.watch(&self.nodes)
    }
}

/// The metadata of an object as the real one has it; tests leave out what they do not need.
fn meta(object: &Value) -> Meta {
    let mut metadata = object["metadata"].clone();
    for owner in metadata["ownerReferences"].as_array_mut().into_iter().flatten() {
        for field in ["apiVersion", "uid"] {
            owner.as_object_mut().unwrap().entry(field).or_insert_with(|| json!(""));
        }
    }
    Meta::of(serde_json::from_value(metadata).unwrap())
}

/// Connects every client to one tenant, and remembers which were created.
pub struct ScriptedConnector {
    pub tenant: Arc<Scripted>,
    pub mounted: Arc<Mounted>,
    /// Where to, and whether as one of `system:masters`.
    pub opened: Mutex<Vec<(String, bool)>>,
    /// Whether somebody took the platform's own binding away.
    pub unbound: Arc<AtomicBool>,
}

impl ScriptedConnector {
    pub fn new(tenant: Arc<Scripted>, host: Arc<Scripted>) -> Self {
        let mounted = Arc::new(Mounted { host, read: Mutex::default(), deaf: AtomicBool::default() });
        Self { tenant, mounted, opened: Mutex::default(), unbound: Arc::default() }
    }
}

/// The Secrets that tenants' API servers read, as the kubelet mounts them.
pub struct Mounted {
    host: Arc<Scripted>,
    /// By namespace: the pod as it was when the Secret was read last, and what was read.
    read: Mutex<HashMap<String, (Value, Value)>>,
    /// Whether the kubelet does not hear of touches.
    pub deaf: AtomicBool,
}

impl Mounted {
    /// One of its files: the Secret is read when the pod starts, again after the pod was touched, and not before.
    fn file(&self, site: &Site, name: &str) -> String {
        let namespace = format!("ph-{}", site.server_name.split('.').next().unwrap());
        let objects = self.host.objects.lock().unwrap();
        let own = || objects.iter().filter(|(key, _)| key.namespace.as_ref() == Some(&namespace));
        let touched = own().find(|(key, _)| key.kind == "Pod").map(|(_, pod)| pod.clone()).unwrap_or_default();
        let secret = own().find(|(key, _)| key.name == "client-authorities").map(|(_, secret)| secret);
        let mut all = self.read.lock().unwrap();
        let is_read = |(seen, _): &(Value, Value)| *seen == touched || self.deaf.load(Ordering::SeqCst);
        if !all.get(&namespace).is_some_and(is_read) {
            all.insert(namespace.clone(), (touched, secret.map(|secret| secret["data"].clone()).unwrap_or_default()));
        }
        let data = all[&namespace].1[name].as_str().unwrap_or_default();
        let data = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
        String::from_utf8(data).unwrap()
    }
}

#[async_trait]
impl Connector for ScriptedConnector {
    async fn announced(&self, site: &Site) -> Result<Announced, ApiError> {
        self.tenant.struck()?;
        let certificates = x509_parser::pem::Pem::iter_from_buffer(self.mounted.file(site, "client-ca.crt").as_bytes())
            .map(Result::unwrap)
            .collect::<Vec<_>>();
        Ok(certificates.iter().map(|pem| pem.parse_x509().unwrap().subject().as_raw().to_vec()).collect())
    }

    fn connect(&self, connection: &TenantConnection) -> Result<Arc<dyn Kubernetes>, ApiError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(connection.identity.cert_pem.as_bytes()).unwrap();
        let is_master = pem.parse_x509().unwrap().subject().to_string().contains("system:masters");
        self.opened.lock().unwrap().push((connection.site.address.clone(), is_master));
        if is_master {
            return Ok(Arc::clone(&self.tenant) as Arc<dyn Kubernetes>);
        }
        let (tenant, mounted, unbound) = (&self.tenant, &self.mounted, &self.unbound);
        let (tenant, mounted, unbound) = (Arc::clone(tenant), Arc::clone(mounted), Arc::clone(unbound));
        Ok(Arc::new(Bound { tenant, mounted, unbound, site: connection.site.clone() }))
    }
}

/// The tenant as one sees it whose rights come from a binding.
struct Bound {
    tenant: Arc<Scripted>,
    mounted: Arc<Mounted>,
    site: Site,
    unbound: Arc<AtomicBool>,
}

impl Bound {
    fn allowed(&self) -> Result<&Scripted, ApiError> {
        if self.unbound.load(Ordering::SeqCst) {
            return Err(ApiError::Rejected { what: "call".to_owned(), code: 403, message: "forbidden".to_owned() });
        }
        Ok(&self.tenant)
    }
}

#[async_trait]
impl Kubernetes for Bound {
    async fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        self.allowed()?.apply(object).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, ApiError> {
        self.allowed()?.get(key).await
    }

    async fn list(&self, api_version: &str, kind: &str) -> Result<Vec<Value>, ApiError> {
        self.allowed()?.list(api_version, kind).await
    }

    async fn select(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, ApiError> {
        self.allowed()?.select(api_version, kind, namespace, labels).await
    }

    async fn bindings_of(&self, users: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<ObjectKey>>, ApiError> {
        self.allowed()?.bindings_of(users).await
    }

    async fn token_secrets(&self) -> Result<Vec<Meta>, ApiError> {
        self.allowed()?.token_secrets().await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ApiError> {
        self.allowed()?.delete(key).await
    }

    async fn metadata(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Meta>, ApiError> {
        self.allowed()?.metadata(api_version, kind, namespace, labels).await
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ApiError> {
        self.allowed()?.exists(key).await
    }

    async fn end(&self, key: &ObjectKey) -> Result<(), ApiError> {
        self.allowed()?.end(key).await
    }

    async fn release(&self, key: &ObjectKey) -> Result<(), ApiError> {
        self.allowed()?.release(key).await
    }

    async fn denies(&self, user: &str) -> Result<bool, ApiError> {
        let tenant = self.allowed()?;
        *tenant.authorization.lock().unwrap() = self.mounted.file(&self.site, "authorization.json");
        tenant.denies(user).await
    }

    async fn would_take(&self, object: &Value) -> Result<(), ApiError> {
        self.allowed()?.would_take(object).await
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<Meta>, ApiError> {
        self.allowed()?.pods_on(node).await
    }

    async fn ask_pod(&self, pod: &ObjectKey, port: u16, path: &str) -> Result<(u16, String), ApiError> {
        self.allowed()?.ask_pod(pod, port, path).await
    }

    async fn evict(&self, namespace: &str, pod: &str) -> Result<(), ApiError> {
        self.allowed()?.evict(namespace, pod).await
    }

    async fn health(&self) -> Health {
        self.tenant.health().await
    }

    async fn answers(&self) -> Result<(), ApiError> {
        self.tenant.answers().await
    }

    fn watch_pods(&self) -> Watch<PodInfo> {
        self.tenant.watch_pods()
    }

    fn watch_nodes(&self) -> Watch<NodeStatus> {
        self.tenant.watch_nodes()
    }
}
