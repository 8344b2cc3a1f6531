//! A Kubernetes API that is a map, for tests: it fails at any call it is told to, and pods come up by themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{ApiError, Connector, Door, Health, Kubernetes, NodeFact, ObjectKey, PodFact, Seen, Watch};

/// Counts outward calls of everything in one test, and fails one of them.
#[derive(Debug, Default)]
pub struct Fate {
    calls: AtomicUsize,
    fail_at: Mutex<Option<usize>>,
}

impl Fate {
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
    pub fate: Arc<Fate>,
    pub objects: Mutex<BTreeMap<ObjectKey, Value>>,
    pub health: Mutex<Health>,
    pub reachable: Mutex<bool>,
    /// How many looks a namespace stays after its deletion.
    pub lingers: AtomicUsize,
    pods: watch::Sender<Vec<PodFact>>,
    nodes: watch::Sender<Vec<NodeFact>>,
}

impl Scripted {
    pub fn new(fate: Arc<Fate>) -> Arc<Self> {
        Arc::new(Self {
            fate,
            objects: Mutex::default(),
            health: Mutex::new(Health::Ready),
            reachable: Mutex::new(true),
            lingers: AtomicUsize::new(2),
            pods: watch::Sender::new(Vec::new()),
            nodes: watch::Sender::new(Vec::new()),
        })
    }

    pub fn set_nodes(&self, nodes: Vec<NodeFact>) {
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

    fn struck(&self) -> Result<(), ApiError> {
        if self.fate.strikes() {
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
            Some((Ok(Seen::All(all)), (receiver, false)))
        });
        stream.boxed()
    }
}

#[async_trait]
impl Kubernetes for Scripted {
    async fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let key = ObjectKey::of(object)?;
        super::resources::kind(&key.api_version, &key.kind)?;
        let mut stored = object.clone();
        if key.kind == "Service" && stored["spec"]["clusterIP"].is_null() {
            stored["spec"]["clusterIP"] = json!("100.64.128.9");
        }
        stored["metadata"]["managedFields"] = json!([{"manager": super::FIELD_MANAGER, "operation": "Apply"}]);
        self.objects.lock().unwrap().insert(key, stored.clone());
        self.struck().map(|()| stored)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, ApiError> {
        let found = {
            let mut objects = self.objects.lock().unwrap();
            let found = objects.get(key).cloned();
            let leaving = found.as_ref().is_some_and(|found| !found["metadata"]["deletionTimestamp"].is_null());
            let left = self.lingers.load(Ordering::SeqCst);
            if leaving && left == 0 {
                let namespace = Some(key.name.clone());
                objects.retain(|other, _| other != key && other.namespace != namespace);
                None
            } else {
                if leaving {
                    self.lingers.store(left - 1, Ordering::SeqCst);
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
            labels.split(',').all(|pair| {
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

    async fn delete(&self, key: &ObjectKey) -> Result<(), ApiError> {
        let mut objects = self.objects.lock().unwrap();
        if key.kind == "Namespace" {
            if let Some(namespace) = objects.get_mut(key) {
                namespace["metadata"]["deletionTimestamp"] = json!("2026-11-20T12:00:00Z");
            }
        } else {
            objects.remove(key);
        }
        self.struck()
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

    fn watch_pods(&self) -> Watch<PodFact> {
        self.watch(&self.pods)
    }

    fn watch_nodes(&self) -> Watch<NodeFact> {
        self.watch(&self.nodes)
    }
}

/// Leads every door to one tenant, and remembers which were opened.
pub struct ScriptedConnector {
    pub tenant: Arc<Scripted>,
    pub opened: Mutex<Vec<String>>,
}

impl Connector for ScriptedConnector {
    fn connect(&self, door: &Door) -> Result<Arc<dyn Kubernetes>, ApiError> {
        self.opened.lock().unwrap().push(door.address.clone());
        Ok(Arc::clone(&self.tenant) as Arc<dyn Kubernetes>)
    }
}
