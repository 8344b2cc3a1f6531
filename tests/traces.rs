//! One operation is one trace: what a client sends goes on over the request and the work it makes due to the reconcile, as a collector
//! of our own reads it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use migrations::{Actor, ExposeSecret, Kek, Kubeconfig, NewOwner, NewToken, Organization, Role, Store, User, WorkKind};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use portal::{AgentFiles, Capabilities, IssueError, Issuer, LocalMachines, PortalConfig, RequestLimits};
use provisioner::engine::{Engine, Outcome, Reconcile};
use provisioner::{LeaseOwner, ReconcileError, Tuning};
use telemetry::otlp::Export;
use tenant_controlplane::status::KubeconfigEndpoint;
use tenant_controlplane::version::KubernetesVersion;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);
const CREATE: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
const DELETE: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for all in request.into_inner().resource_spans {
            let resource = all.resource.unwrap_or_default().attributes;
            let service = text(&resource, "service.name");
            let spans = all.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a port that the system chooses.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TowerToHyperService::new(TraceServiceServer::new(self.clone()));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        format!("http://{address}")
    }

    fn span(&self, name: &str) -> Span {
        let all = self.0.lock().unwrap();
        let found = all.iter().find(|(_, span)| span.name == name);
        let names: Vec<&str> = all.iter().map(|(_, span)| span.name.as_str()).collect();
        found.unwrap_or_else(|| panic!("no span {name} among {names:?}")).1.clone()
    }
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key);
    match value.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Finds everything as it should be.
struct Satisfied(mpsc::UnboundedSender<Uuid>);

#[async_trait]
impl Reconcile for Satisfied {
    async fn reconcile(&self, _: WorkKind, id: Uuid) -> Result<Outcome, ReconcileError> {
        self.0.send(id).unwrap();
        Ok(Outcome::Done)
    }
}

struct NoIssuer;

#[async_trait]
impl Issuer for NoIssuer {
    async fn kubeconfig(&self, _: &Kubeconfig, _: KubeconfigEndpoint) -> Result<String, IssueError> {
        panic!("nobody asks for one")
    }
}

fn portal_on(store: &Store) -> axum::Router {
    portal::app(PortalConfig {
        store: store.clone(),
        public_url: "https://portal.test".into(),
        gateway_address: "192.0.2.7:8443".into(),
        domain: "pilothouse.internal".into(),
        platform_ca_pem: String::new(),
        versions: KubernetesVersion::known().to_vec(),
        agent: AgentFiles {
            path: "/nowhere".into(),
            sha256: String::new(),
            signing_key: "ed25519:a".into(),
            machine: "x86_64".into(),
        },
        capabilities: Capabilities { local: LocalMachines::Off, dns: false, ports: false },
        limits: RequestLimits::default(),
        issuer: Arc::new(NoIssuer),
    })
}

async fn owner(store: &Store) -> (User, Organization) {
    let setup = store.identity().create_setup_token().await.unwrap();
    let new = NewOwner { email: "a@b.c".into(), display_name: "A".into(), password_hash: "x".to_owned().into() };
    store.identity().complete_setup(setup.expose_secret(), new).await.unwrap()
}

async fn token(store: &Store, user: &User, organization: &Organization) -> String {
    let new = NewToken {
        organization: organization.id,
        user: user.id,
        name: "t".into(),
        role: Role::Owner,
        expires_at: None,
        actor: Actor::User(user.id),
    };
    store.identity().create_token(new).await.unwrap().1.expose_secret().to_owned()
}

/// Sends a request that is part of a client's trace.
async fn send(app: &axum::Router, token: &str, call: (&str, &str, &str), trace: (&str, &str)) -> serde_json::Value {
    let ((method, path, body), (trace, parent)) = (call, trace);
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = request.header("traceparent", format!("00-{trace}-{parent}-01"));
    let response = app.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    assert!(response.status().is_success(), "{method} {path}: {}", response.status());
    serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap_or_default()
}

async fn reconciled(store: &Store) {
    let (sender, mut begun) = mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let engine =
        Engine::new(store.clone(), Arc::new(Satisfied(sender)), LeaseOwner::new(Uuid::now_v7()), Tuning::default());
    let running = tokio::spawn(engine.run(cancel.clone()));
    tokio::time::timeout(PATIENCE, begun.recv()).await.unwrap().unwrap();
    cancel.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_and_its_reconcile_are_one_trace() {
    let collector = Collector::default();
    let export = Export::to(&collector.start().await, "under-test").unwrap();
    // The log has spans of its own inside of ours.
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(log).with(export.layer()).init();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("store.db").display());
    let store = Store::connect(&url, Kek::from_bytes(&[7; 32])).await.unwrap();
    let (user, organization) = owner(&store).await;
    let token = token(&store, &user, &organization).await;
    let project = store.identity().projects(organization.id).await.unwrap().remove(0).id;
    let app = portal_on(&store);

    let path = format!("/api/v1/projects/{project}/clusters");
    let cluster = send(&app, &token, ("POST", &path, r#"{"name": "demo"}"#), CREATE).await;
    let path = format!("/api/v1/clusters/{}", cluster["id"].as_str().unwrap());
    send(&app, &token, ("DELETE", &path, ""), DELETE).await;
    reconciled(&store).await;
    tokio::task::spawn_blocking(move || export.flush()).await.unwrap();

    let create = collector.span("POST /api/v1/projects/{prj}/clusters");
    assert_eq!((hex(&create.trace_id), hex(&create.parent_span_id)), (CREATE.0.into(), CREATE.1.into()));
    assert_eq!(text(&create.attributes, "http.route"), "/api/v1/projects/{prj}/clusters");
    assert_eq!(text(&create.attributes, "http.request.method"), "POST");
    assert!(text(&create.attributes, "http.response.status_code").starts_with('2'));
    let delete = collector.span("DELETE /api/v1/clusters/{cls}");
    let reconcile = collector.span("reconcile cluster");
    assert_eq!((&reconcile.trace_id, &reconcile.parent_span_id), (&create.trace_id, &create.span_id));
    let links: Vec<_> = reconcile.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone())).collect();
    assert_eq!(links, [(delete.trace_id, delete.span_id)], "merged work is linked");
    assert_eq!(text(&reconcile.attributes, "pilothouse.outcome"), "done");

    let all = format!("{:?}", collector.0.lock().unwrap());
    assert!(!all.contains(&token) && !all.contains("demo"), "neither secrets nor words of users");
    assert!(collector.0.lock().unwrap().iter().all(|(service, _)| service == "under-test"));
    ends_with_its_operation(&store, reconcile_id(&cluster)).await;
}

fn reconcile_id(cluster: &serde_json::Value) -> Uuid {
    cluster["id"].as_str().unwrap().parse::<tenant_controlplane::id::ClusterId>().unwrap().uuid()
}

/// A later visit is no part of a trace that has ended.
async fn ends_with_its_operation(store: &Store, id: Uuid) {
    store.work().due(WorkKind::Cluster, id).await.unwrap();
    let work = store.work().claim("me", PATIENCE, &[WorkKind::Cluster]).await.unwrap().unwrap();
    assert_eq!((work.id, work.traceparent), (id, None));
}
