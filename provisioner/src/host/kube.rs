//! The real thing: a Kubernetes API over the `kube` client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::kube::api::{
    Api, DeleteParams, DynamicObject, EvictParams, ListParams, ObjectList, Patch, PatchParams, PostParams,
};
use ::kube::client::{Body, ClientBuilder};
use ::kube::core::Status;
use ::kube::runtime::watcher::{self, watcher};
use ::kube::{Client, Config};
use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;
use tenant_controlplane::render::CLUSTER_LABEL;
use tenant_controlplane::text::printable;

mod connector;
mod gather;

pub use connector::KubeConnector;
use gather::gather;

use super::bindings::{CLUSTER_ROLE_BINDING, RBAC, ROLE_BINDING, binds, note_users};
use super::bounded::{BoundedLayer, is_too_long};
use super::resources::kind;
use super::{
    ApiError, CALL_LIMIT, FIELD_MANAGER, Health, Kubernetes, LIST_LIMIT, Meta, NodeStatus, ObjectKey, PodInfo, Watch,
};
use crate::trace;

/// How long one probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection may take: a pod that is there answers or refuses at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Objects on one page of a list: of whole ones, and of metadata, which a tenant can make a quarter of a mebibyte each.
const PAGE: u32 = 100;
const METADATA_PAGE: u32 = 20;
/// Pages of one list: enough for [`LIST_LIMIT`] objects, also of the smaller ones.
const PAGES: usize = LIST_LIMIT / METADATA_PAGE as usize;
/// What may be missing from `/readyz` while we already work with the API server: all of them only fill in objects that neither the group
/// `system:masters` nor a `cluster-admin` needs. (Until flow control has its objects it goes by its built-in ones: all requests but those
/// of masters share one level, which has all the seats.)
const LATE_HOOKS: [&str; 3] = [
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
];

/// A Kubernetes API behind a client.
#[derive(Clone)]
pub struct KubeApi {
    client: Client,
    /// How long one call may take.
    limit: Duration,
}

/// The type of Secrets that Kubernetes fills with a token of a service account.
const TOKEN_SECRET: &str = "kubernetes.io/service-account-token";

impl KubeApi {
    /// Wraps a client.
    pub const fn new(client: Client) -> Self {
        Self { client, limit: CALL_LIMIT }
    }

    fn api(&self, key: &ObjectKey) -> Result<Api<DynamicObject>, ApiError> {
        let kind = kind(&key.api_version, &key.kind)?;
        Ok(match (&key.namespace, kind.namespaced) {
            (Some(namespace), true) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            (None, false) => Api::all_with(self.client.clone(), &kind.resource),
            _ => return Err(ApiError::Unknown(format!("{} {}", key.kind, key.name))),
        })
    }

    async fn call<T>(
        &self,
        verb: &str,
        what: &str,
        call: impl Future<Output = ::kube::Result<T>>,
    ) -> Result<T, ApiError> {
        let kind = what.split_once(' ').map_or(what, |(kind, _)| kind);
        let bounded = async {
            let answer = tokio::time::timeout(self.limit, call).await.map_err(|_| ApiError::Timeout)?;
            answer.map_err(|error| failed(verb, what, error))
        };
        trace::call(("kubernetes", kind, verb), bounded).await
    }

    /// One list, page by page; what `keep` makes of each object is kept.
    async fn pages<K, T, F>(
        &self,
        what: &str,
        page: impl Fn(ListParams) -> F,
        keep: impl Fn(K) -> T,
    ) -> Result<Vec<T>, ApiError>
    where
        K: Clone,
        F: Future<Output = ::kube::Result<ObjectList<K>>>,
    {
        let (mut kept, mut next) = (Vec::new(), ListParams::default());
        for _ in 0..PAGES {
            let found = self.call("list", what, page(next)).await?;
            kept.extend(found.items.into_iter().map(&keep));
            let token = found.metadata.continue_.filter(|token| !token.is_empty());
            let Some(token) = token else { return Ok(kept) };
            if kept.len() >= LIST_LIMIT {
                break;
            }
            next = ListParams::default().continue_token(&token);
        }
        Err(ApiError::TooLong(format!("list {what}")))
    }

    /// The objects of a kind, of one namespace or of all.
    fn all(&self, api_version: &str, name: &str, namespace: Option<&str>) -> Result<Api<DynamicObject>, ApiError> {
        let kind = kind(api_version, name)?;
        Ok(match namespace.filter(|_| kind.namespaced) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            None => Api::all_with(self.client.clone(), &kind.resource),
        })
    }

    /// Sends a plain GET; answers status and text.
    async fn plain(&self, path: &str) -> Result<(u16, String), ApiError> {
        let request =
            http::Request::get(path).body(Body::empty()).map_err(|error| ApiError::Client(Box::new(error)))?;
        let exchange = async {
            let answer = self.client.send(request).await?;
            let code = answer.status().as_u16();
            let body = answer.into_body().collect_bytes().await?;
            Ok::<_, ::kube::Error>((code, String::from_utf8_lossy(&body).into_owned()))
        };
        let answer = tokio::time::timeout(PROBE_LIMIT, exchange).await.map_err(|_| ApiError::Timeout)?;
        answer.map_err(|error| failed("GET", path, error))
    }
}

/// Our error for kube's.
fn failed(verb: &str, what: &str, error: ::kube::Error) -> ApiError {
    match error {
        ::kube::Error::Api(status) => {
            ApiError::Rejected { what: format!("{verb} {what}"), code: status.code, message: status_message(&status) }
        }
        other if is_too_long(&other) => ApiError::TooLong(format!("{verb} {what}")),
        other => ApiError::Unreachable(Box::new(other)),
    }
}

/// What a status says: its message, and causes that it leaves out, such as which disruption budget keeps a pod.
fn status_message(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let more = causes.filter(|cause| !status.message.contains(cause));
    let all: Vec<&str> = std::iter::once(status.message.as_str()).chain(more).collect();
    printable(&all.join(" "))
}

/// What is not there needs no deletion.
fn unless_gone<T>(ended: Result<T, ApiError>) -> Result<(), ApiError> {
    match ended {
        Ok(_) | Err(ApiError::Rejected { code: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Reads `/readyz?verbose`: one line per check, `[+]name ok` or `[-]name failed: …`.
fn read_health(code: u16, text: &str) -> Health {
    if code == 200 {
        return Health::Ready;
    }
    let failing: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next()).collect();
    match failing.as_slice() {
        [] => Health::Starting(format!("/readyz answered {code}")),
        missing if missing.iter().all(|hook| LATE_HOOKS.contains(hook)) => Health::Serving,
        missing => Health::Starting(printable(&format!("waiting for {}", missing.join(", ")))),
    }
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    printable(&cause.to_string())
}

#[async_trait]
impl Kubernetes for KubeApi {
    async fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let key = ObjectKey::of(object)?;
        let api = self.api(&key)?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let what = format!("{} {}", key.kind, key.name);
        let applied = self.call("apply", &what, api.patch(&key.name, &params, &Patch::Apply(object))).await;
        applied.map(|object| value(&object))
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, ApiError> {
        let what = format!("{} {}", key.kind, key.name);
        let found = self.call("get", &what, self.api(key)?.get_opt(&key.name)).await?;
        Ok(found.as_ref().map(value))
    }

    async fn list(&self, api_version: &str, name: &str) -> Result<Vec<Value>, ApiError> {
        self.select(api_version, name, None, "").await
    }

    async fn metadata(
        &self,
        api_version: &str,
        name: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Meta>, ApiError> {
        let api = self.all(api_version, name, namespace)?;
        let page = async |next: ListParams| api.list_metadata(&next.labels(labels).limit(METADATA_PAGE)).await;
        self.pages(name, page, |object| Meta::of(object.metadata)).await
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ApiError> {
        let what = format!("{} {}", key.kind, key.name);
        Ok(self.call("get", &what, self.api(key)?.get_metadata_opt(&key.name)).await?.is_some())
    }

    async fn select(
        &self,
        api_version: &str,
        name: &str,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let api = self.all(api_version, name, namespace)?;
        let page = async |next: ListParams| api.list(&next.labels(labels).limit(PAGE)).await;
        self.pages(name, page, |object| value(&object)).await
    }

    async fn bindings_of(&self, users: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<ObjectKey>>, ApiError> {
        let mut bindings = BTreeMap::new();
        for kind in [CLUSTER_ROLE_BINDING, ROLE_BINDING] {
            let api = self.all(RBAC, kind, None)?;
            let page = async |next: ListParams| api.list(&next.limit(PAGE)).await;
            let found = self.pages(kind, page, |object| binds(kind, &value(&object), users)).await?;
            note_users(&mut bindings, found.into_iter().flatten());
        }
        Ok(bindings)
    }

    async fn token_secrets(&self) -> Result<Vec<Meta>, ApiError> {
        let api = self.all("v1", "Secret", None)?;
        let fields = format!("type={TOKEN_SECRET}");
        let page = async |next: ListParams| api.list_metadata(&next.fields(&fields).limit(METADATA_PAGE)).await;
        self.pages("Secret", page, |object| Meta::of(object.metadata)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ApiError> {
        let api = self.api(key)?;
        let params = DeleteParams::background();
        match self.call("delete", &format!("{} {}", key.kind, key.name), api.delete(&key.name, &params)).await {
            Ok(_) | Err(ApiError::Rejected { code: 404, .. }) => Ok(()),
            // A namespace that is being deleted already answers 409.
            Err(ApiError::Rejected { code: 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn end(&self, key: &ObjectKey) -> Result<(), ApiError> {
        let (api, now) = (self.api(key)?, DeleteParams::default().grace_period(0));
        let what = format!("{} {}", key.kind, key.name);
        unless_gone(self.call("delete", &what, api.delete(&key.name, &now)).await)
    }

    async fn release(&self, key: &ObjectKey) -> Result<(), ApiError> {
        let (api, none) = (self.api(key)?, serde_json::json!({"metadata": {"finalizers": null}}));
        let what = format!("{} {}", key.kind, key.name);
        let params = PatchParams::default();
        unless_gone(self.call("patch", &what, api.patch_metadata(&key.name, &params, &Patch::Merge(&none))).await)
    }

    async fn denies(&self, user: &str) -> Result<bool, ApiError> {
        let non_resource_attributes = Some(NonResourceAttributes { path: Some("/".into()), verb: Some("get".into()) });
        let spec =
            SubjectAccessReviewSpec { user: Some(user.to_owned()), non_resource_attributes, ..Default::default() };
        let (api, review) = (Api::all(self.client.clone()), SubjectAccessReview { spec, ..Default::default() });
        let answer = self.call("create", "SubjectAccessReview", api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.and_then(|status| status.denied) == Some(true))
    }

    async fn would_take(&self, object: &Value) -> Result<(), ApiError> {
        let key = ObjectKey::of(object)?;
        let (api, params) = (self.api(&key)?, PatchParams::apply(FIELD_MANAGER).force().dry_run());
        let what = format!("{} {}", key.kind, key.name);
        self.call("apply", &what, api.patch_metadata(&key.name, &params, &Patch::Apply(object))).await.map(|_| ())
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<Meta>, ApiError> {
        let there = format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed");
        let api = Api::<Pod>::all(self.client.clone());
        let page = async |next: ListParams| api.list_metadata(&next.fields(&there).limit(METADATA_PAGE)).await;
        self.pages("Pod", page, |pod| Meta::of(pod.metadata)).await
    }

    async fn ask_pod(&self, pod: &ObjectKey, port: u16, path: &str) -> Result<(u16, String), ApiError> {
        let namespace = pod.namespace.as_deref().unwrap_or_default();
        self.plain(&format!("/api/v1/namespaces/{namespace}/pods/{}:{port}/proxy{path}", pod.name)).await
    }

    async fn evict(&self, namespace: &str, pod: &str) -> Result<(), ApiError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let what = format!("Pod {namespace}/{pod}");
        match self.call("evict", &what, pods.evict(pod, &EvictParams::default())).await {
            Ok(_) | Err(ApiError::Rejected { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn health(&self) -> Health {
        match self.plain("/readyz?verbose").await {
            Ok((code, text)) => read_health(code, &text),
            Err(ApiError::Unreachable(error)) => Health::Down(deepest(&*error)),
            Err(error) => Health::Down(error.to_string()),
        }
    }

    async fn answers(&self) -> Result<(), ApiError> {
        match self.plain("/version").await? {
            (200, _) => Ok(()),
            (code, text) => {
                let (what, message) = ("GET /version".to_owned(), printable(&text));
                Err(ApiError::Rejected { what, code, message })
            }
        }
    }

    fn watch_pods(&self) -> Watch<PodInfo> {
        let config = watcher::Config::default().labels(CLUSTER_LABEL);
        let events = watcher(Api::<Pod>::all(self.client.clone()), config);
        gather(events, PodInfo::of, |pod: &Pod| pod.metadata.uid.clone()).boxed()
    }

    fn watch_nodes(&self) -> Watch<NodeStatus> {
        let config = watcher::Config::default().page_size(PAGE);
        let events = watcher(Api::<Node>::all(self.client.clone()), config);
        gather(events, |node| Some(NodeStatus::of(node)), |node: &Node| node.metadata.uid.clone()).boxed()
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> ApiError {
    ApiError::Client(Box::new(error))
}

/// A client that reads no more than it should.
fn bounded(config: Config) -> Result<Client, ApiError> {
    let builder = ClientBuilder::try_from(config).map_err(unusable)?;
    Ok(builder.with_layer(&BoundedLayer::default()).build())
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_read_check_by_check() {
        let late = "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n";
        let later = format!("[-]poststarthook/priority-and-fairness-config-producer failed: reason withheld\n{late}");
        let early = "[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n";
        assert_eq!(read_health(200, "ok"), Health::Ready);
        assert_eq!((read_health(500, late), read_health(500, &later)), (Health::Serving, Health::Serving));
        assert!(matches!(read_health(500, early), Health::Starting(what) if what.contains("etcd, poststarthook")));
        assert!(matches!(read_health(401, "Unauthorized"), Health::Starting(_)));
    }
}
