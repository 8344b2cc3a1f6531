//! What pages keep without a browser: who may see them, what may be sent to them, and the headers they carry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use migrations::{
    Actor, Cluster, ExposeSecret, Kek, Kubeconfig, NewCluster, NewToken, Organization, Role, Store, User,
};
use portal::{AgentFiles, Capabilities, IssueError, Issuer, PortalConfig, RequestLimits};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::version::KubernetesVersion;
use tower::ServiceExt;

struct Signer;

#[async_trait]
impl Issuer for Signer {
    async fn kubeconfig(&self, _: ClusterId, _: &Kubeconfig) -> Result<String, IssueError> {
        Err(IssueError::NotReady)
    }
}

struct World {
    app: axum::Router,
    store: Store,
    user: User,
    home: Organization,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek::load_or_create(&dir.path().join("kek")).unwrap();
        let store = Store::connect(&format!("sqlite://{}/db", dir.path().display()), kek).await.unwrap();
        let (user, home) = store.identity().ensure_admin().await.unwrap();
        let config = PortalConfig {
            store: store.clone(),
            public_url: "https://portal.test".into(),
            gateway_address: "portal.test:443".into(),
            domain: "pilothouse.internal".into(),
            platform_ca_pem: String::new(),
            versions: KubernetesVersion::known().to_vec(),
            agent: AgentFiles { path: PathBuf::from("none"), sha256: "0".repeat(64), machine: "x86_64".into() },
            capabilities: Capabilities { local: false },
            limits: RequestLimits { reads: 100_000, writes: 100_000, cluster_creates: 100_000 },
            issuer: Arc::new(Signer),
        };
        World { app: portal::app(config), store, user, home, _dir: dir }
    }

    async fn cluster(&self, organization: &Organization, name: &str) -> Cluster {
        let project = self.store.identity().projects(organization.id).await.unwrap().remove(0);
        let new = NewCluster {
            project: project.id,
            organization: organization.id,
            name: name.parse().unwrap(),
            spec: ClusterSpec::new(KubernetesVersion::default()),
            actor: Actor::System,
        };
        self.store.clusters().insert(new).await.unwrap()
    }

    async fn token(&self, role: Role) -> String {
        let new = NewToken {
            organization: self.home.id,
            user: self.user.id,
            name: "test".into(),
            role,
            expires_at: None,
            actor: Actor::System,
        };
        let (_, secret) = self.store.identity().create_token(new).await.unwrap();
        format!("Bearer {}", secret.expose_secret())
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, token: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::AUTHORIZATION, token).body(Body::empty()).unwrap();
        read(self.send(request).await).await
    }

    async fn post(&self, path: &str, token: &str, form: &'static str) -> (StatusCode, String) {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        read(self.send(request).await).await
    }
}

async fn read(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn strangers_are_brought_to_the_sign_in_page_and_back() {
    let world = World::new().await;
    for path in
        ["/clusters", "/clusters/new", "/clusters/cls_x", "/clusters/cls_x/live", "/clusters/cls_x/join", "/tokens"]
    {
        let response = world.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        let to = response.headers()[header::LOCATION].to_str().unwrap();
        assert!(to.starts_with("/signin"), "{path} leads to {to}");
    }
}

#[tokio::test]
async fn another_organizations_cluster_does_not_exist() {
    let world = World::new().await;
    let other = world.store.identity();
    let other =
        other.create_organization(world.user.id, "other".parse().unwrap(), "Other", Actor::System).await.unwrap();
    let theirs = world.cluster(&other, "theirs").await;
    let token = world.token(Role::Owner).await;
    for tail in ["", "/live", "/kubeconfigs", "/join", "/join/live", "/delete", "/pools/new"] {
        let (status, page) = world.get(&format!("/clusters/{}{tail}", theirs.id), &token).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{tail}");
        assert!(!page.contains("theirs"), "{tail}");
    }
    for (tail, form) in
        [("/delete", "name=theirs"), ("/join", "uses=1"), ("/kubeconfigs", "role=view"), ("/pools", "name=a&kind=byo")]
    {
        let (status, _) = world.post(&format!("/clusters/{}{tail}", theirs.id), &token, form).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{tail}");
    }
    assert!(world.store.clusters().load(theirs.id).await.unwrap().deletion_requested_at.is_none());
}

#[tokio::test]
async fn viewers_see_what_they_may_not_do_and_why() {
    let world = World::new().await;
    let mine = world.cluster(&world.home, "mine").await;
    let token = world.token(Role::Viewer).await;
    let (status, page) = world.get(&format!("/clusters/{}", mine.id), &token).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Needs the role editor") && !page.contains("Delete mine?"));
    let (status, page) = world.post(&format!("/clusters/{}/delete", mine.id), &token, "name=mine").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{page}");
    assert!(page.contains("role") && page.starts_with("<!doctype html>"), "{page}");
    assert!(world.store.clusters().load(mine.id).await.unwrap().deletion_requested_at.is_none());
}

#[tokio::test]
async fn names_are_shown_and_never_run() {
    let world = World::new().await;
    let token = world.token(Role::Owner).await;
    let form = "project=PRJ&name=%3Cscript%3Ealert(1)%3C/script%3E&workers=none";
    let project = world.store.identity().projects(world.home.id).await.unwrap().remove(0).id;
    let form: &'static str = Box::leak(form.replace("PRJ", &project.to_string()).into_boxed_str());
    let (status, page) = world.post("/clusters", &token, form).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{page}");
    assert!(!page.contains("<script>alert") && page.contains("&#60;script&#62;alert"), "{page}");
}

#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let world = World::new().await;
    let token = world.token(Role::Owner).await;
    let forms = forms();
    assert!(forms.len() > 10 && forms.contains("/signout") && forms.contains("/clusters/x/delete"), "{forms:?}");
    for path in forms {
        let request = Request::post(&path)
            .header(header::HOST, "portal.test")
            .header(header::AUTHORIZATION, &token)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "cross-site")
            .header(header::ORIGIN, "https://evil.example");
        let response = world.send(request.body(Body::from("theme=dark")).unwrap()).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
    }
}

/// Where the forms of all templates lead, with `x` for every id.
fn forms() -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/templates")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for rest in text.split(" action=\"").skip(1) {
            let action = rest.split('"').next().unwrap();
            let plain = action.split("{{").map(|part| part.split_once("}}").map_or(part, |(_, after)| after));
            forms.insert(plain.collect::<Vec<_>>().join("x"));
        }
    }
    forms
}

#[tokio::test]
async fn pages_allow_nothing_foreign_and_nothing_inline() {
    let world = World::new().await;
    let token = world.token(Role::Owner).await;
    let mine = world.cluster(&world.home, "mine").await;
    for path in
        ["/signin".into(), "/clusters".into(), "/nowhere".into(), format!("/clusters/{}", mine.id), "/setup/x".into()]
    {
        let request = Request::get(&path).header(header::AUTHORIZATION, &token).body(Body::empty()).unwrap();
        let response = world.send(request).await;
        if response.status() == StatusCode::SEE_OTHER {
            continue;
        }
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store", "{path}");
        let (_, page) = read(response).await;
        assert!(!page.contains("style=") && !page.contains(" onclick") && !page.contains("http://"), "{path}");
        assert!(!page.contains("https://") || path.contains("cls_"), "{path}: nothing is loaded from elsewhere");
    }
}

#[tokio::test]
async fn static_files_are_kept_by_browsers_and_found_only_by_name() {
    let world = World::new().await;
    let (_, page) = world.get("/signin", "").await;
    let at = page.find("/static/pilothouse.css").unwrap();
    let path = page[at..].split('"').next().unwrap().to_owned();
    let response = world.send(Request::get(&path).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let tag = response.headers()[header::ETAG].clone();
    let again = Request::get(&path).header(header::IF_NONE_MATCH, tag).body(Body::empty()).unwrap();
    assert_eq!(world.send(again).await.status(), StatusCode::NOT_MODIFIED);
    for wrong in ["/static/nothing.css", "/static/..%2fCargo.toml", "/static/"] {
        assert_eq!(world.send(Request::get(wrong).body(Body::empty()).unwrap()).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_wrong_set_up_link_makes_nobody_an_owner() {
    let world = World::new().await;
    let form = "email=eve%40example.com&display_name=Eve&password=a+long+enough+password";
    let (status, page) = world.post("/setup/not-the-token", "", form).await;
    assert!(status.is_client_error(), "{status}");
    assert!(page.contains("set-up") && page.contains("eve@example.com"), "{page}");
    assert!(world.store.identity().user_by_email("eve@example.com").await.unwrap().is_none());
}
