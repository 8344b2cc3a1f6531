//! What pages keep without a browser: who may see them, what may be sent to them, and the headers they carry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use futures::StreamExt;
use migrations::{
    Actor, Cluster, ClusterReport, ExposeSecret, Kek, Kubeconfig, Member, NewCluster, NewOwner, NewPool, NewToken,
    Organization, PoolKind, PoolReport, Role, Secret, Store, User,
};
use portal::auth::session;
use portal::state::AppState;
use portal::{AgentFiles, Capabilities, Connection, IssueError, Issuer, PortalConfig, RequestLimits};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::{ClusterState, KubeconfigEndpoint, PoolState};
use tenant_controlplane::version::KubernetesVersion;
use tower::ServiceExt;

/// As the gateway hands requests on.
const BROWSER: Connection =
    Connection { address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), tls: true };

struct Signer;

#[async_trait]
impl Issuer for Signer {
    async fn kubeconfig(&self, _: &Kubeconfig, _: KubeconfigEndpoint) -> Result<String, IssueError> {
        Err(IssueError::NotReady)
    }
}

struct World {
    app: axum::Router,
    state: AppState,
    store: Store,
    user: User,
    home: Organization,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::limited(RequestLimits { reads: 100_000, writes: 100_000, cluster_creates: 100_000 }).await
    }

    async fn limited(limits: RequestLimits) -> Self {
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
            agent: AgentFiles {
                path: PathBuf::from("none"),
                sha256: "0".repeat(64),
                signing_key: "ed25519:a".into(),
                machine: "x86_64".into(),
            },
            capabilities: Capabilities { local: portal::LocalMachines::Off, dns: false, ports: false },
            limits,
            issuer: Arc::new(Signer),
        };
        let state = AppState::new(config.clone());
        World { app: portal::app(config), state, store, user, home, _dir: dir }
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

    /// Somebody else, with an organization that nobody else is a member of.
    async fn other(&self) -> Organization {
        let identity = self.store.identity();
        let link = identity.create_setup_token().await.unwrap();
        let password_hash = Secret::from("$argon2id$none".to_owned());
        let new = NewOwner { email: "eve@example.com".into(), display_name: "Eve".into(), password_hash };
        let (eve, _) = identity.complete_setup(link.expose_secret(), new).await.unwrap();
        identity.create_organization(eve.id, "other".parse().unwrap(), "Other", Actor::System).await.unwrap()
    }

    /// Gives the person this role.
    async fn becomes(&self, role: Role) {
        let place = Member { organization: self.home.id, user: self.user.id, role };
        self.store.identity().put_member(place, Actor::System).await.unwrap();
    }

    /// The cookie of a new session of the person, who has this role from now on.
    async fn session(&self, role: Role) -> String {
        self.becomes(role).await;
        let line = session::start(&self.state, self.user.id, &HeaderMap::new(), &BROWSER).await.unwrap();
        line.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    async fn token(&self) -> String {
        let new = NewToken {
            organization: self.home.id,
            user: self.user.id,
            name: "test".into(),
            role: Role::Owner,
            expires_at: None,
            actor: Actor::System,
        };
        let (_, secret) = self.store.identity().create_token(new).await.unwrap();
        format!("Bearer {}", secret.expose_secret())
    }

    async fn send(&self, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(BROWSER);
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, cookie: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap();
        read(self.send(request).await).await
    }

    async fn post(&self, path: &str, cookie: &str, form: &'static str) -> (StatusCode, String) {
        let request = Request::post(path)
            .header(header::COOKIE, cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        read(self.send(request).await).await
    }

    /// Opens a live page.
    async fn watch(&self, path: &str, cookie: &str) -> Response<Body> {
        self.send(Request::get(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap()).await
    }
}

async fn read(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// Every page for which somebody has to be signed in, with `x` for every id.
const PAGES: [&str; 19] = [
    "/clusters",
    "/clusters/live",
    "/clusters/new",
    "/clusters/cls_x",
    "/clusters/cls_x/live",
    "/clusters/cls_x/delete",
    "/clusters/cls_x/kubeconfigs",
    "/clusters/cls_x/join",
    "/clusters/cls_x/join/live",
    "/clusters/cls_x/pools/new",
    "/pools/np_x",
    "/nodes/nod_x",
    "/tokens",
    "/limits",
    "/operator/quotas",
    "/operator/quotas/org_x",
    "/account",
    "/audit",
    "/organizations/org_x/audit",
];
/// Forms for which nobody has to be.
const OPEN_FORMS: [&str; 3] = ["/signin", "/signout", "/preferences/theme"];

#[tokio::test]
async fn strangers_are_brought_to_the_sign_in_page_and_back() {
    let world = World::new().await;
    let token = world.token().await;
    for path in PAGES {
        // A token is for /api: on a page it is nobody's.
        for authorization in ["", &token, "Bearer nonsense", "Basic bm9ib2R5Om5v"] {
            let request = Request::get(path).header(header::AUTHORIZATION, authorization).body(Body::empty()).unwrap();
            let response = world.send(request).await;
            assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path} {authorization}");
            let to = response.headers()[header::LOCATION].to_str().unwrap();
            assert!(to.starts_with("/signin"), "{path} leads to {to}");
        }
    }
    let closed = |path: &&String| !OPEN_FORMS.contains(&path.as_str()) && !path.ends_with("/audit");
    for path in forms().iter().filter(closed) {
        let request = Request::post(path).header(header::AUTHORIZATION, &token);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = world.send(request.body(Body::from("name=x")).unwrap()).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(response.headers()[header::LOCATION], "/signin", "{path}");
    }
}

#[tokio::test]
async fn another_organizations_cluster_does_not_exist() {
    let world = World::new().await;
    let theirs = world.cluster(&world.other().await, "theirs").await;
    let token = world.session(Role::Owner).await;
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
    let token = world.session(Role::Viewer).await;
    let (status, page) = world.get(&format!("/clusters/{}", mine.id), &token).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Requires the editor role") && !page.contains("Delete mine?"));
    let (status, page) = world.post(&format!("/clusters/{}/delete", mine.id), &token, "name=mine").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{page}");
    assert!(page.contains("role") && page.starts_with("<!doctype html>"), "{page}");
    assert!(world.store.clusters().load(mine.id).await.unwrap().deletion_requested_at.is_none());
}

#[tokio::test]
async fn names_are_shown_and_never_run() {
    let world = World::new().await;
    let token = world.session(Role::Owner).await;
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
    let token = world.session(Role::Owner).await;
    let forms = forms();
    assert!(forms.len() > 10 && forms.contains("/signout") && forms.contains("/clusters/x/delete"), "{forms:?}");
    for path in forms {
        let request = Request::post(&path)
            .header(header::HOST, "portal.test")
            .header(header::COOKIE, &token)
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
    let token = world.session(Role::Owner).await;
    let mine = world.cluster(&world.home, "mine").await;
    for path in
        ["/signin".into(), "/clusters".into(), "/nowhere".into(), format!("/clusters/{}", mine.id), "/setup/x".into()]
    {
        let request = Request::get(&path).header(header::COOKIE, &token).body(Body::empty()).unwrap();
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
    assert!(page.contains("setup") && page.contains("eve@example.com"), "{page}");
    assert!(
        page.contains("pilothouse admin setup-link") && !page.contains("pilothouse up"),
        "only that makes a new one"
    );
    assert!(world.store.identity().user_by_email("eve@example.com").await.unwrap().is_none());
    // A name is not needed.
    let form = "email=eve%40example.com&password=a+long+enough+password";
    let (status, page) = world.post("/setup/not-the-token", "", form).await;
    assert!(status != StatusCode::UNPROCESSABLE_ENTITY && page.contains("eve@example.com"), "{status} {page}");
}

/// Pages cost as much as REST: nobody goes round the limits by sending forms, and another session is no way out.
#[tokio::test]
async fn page_posts_are_limited_like_rest() {
    let world = World::limited(RequestLimits { reads: 1000, writes: 5, cluster_creates: 2 }).await;
    let mine = world.cluster(&world.home, "mine").await;
    let (cookie, second) = (world.session(Role::Owner).await, world.session(Role::Owner).await);
    let path = format!("/clusters/{}/join", mine.id);
    let mut answers = Vec::new();
    for cookie in [&cookie, &second].into_iter().cycle().take(20) {
        answers.push(world.post(&path, cookie, "uses=1").await.0.as_u16());
    }
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 5, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 15, "{answers:?}");
    assert_eq!(world.store.join_tokens().list(world.home.id, mine.id).await.unwrap().len(), 5);
    let request = Request::post(&path).header(header::COOKIE, &cookie);
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from("uses=1"));
    let refused = world.send(request.unwrap()).await;
    assert!(refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() <= 13);
    let (_, page) = read(refused).await;
    assert!(page.starts_with("<!doctype html>") && page.contains("More than 5 writes per minute"), "{page}");
    assert_eq!(world.get(&path, &cookie).await.0, StatusCode::OK, "reading goes on");
    let rest = Request::post("/api/v1/me/tokens").header(header::COOKIE, &cookie).body(Body::empty()).unwrap();
    assert_eq!(world.send(rest).await.status(), StatusCode::TOO_MANY_REQUESTS, "one person is one caller everywhere");
}

/// The next event of a live page; `None` at its end.
async fn event(body: &mut axum::body::BodyDataStream) -> Option<String> {
    let mut text = String::new();
    while let Some(bytes) = body.next().await {
        text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        // A comment keeps the connection open and says nothing.
        if text.ends_with("\n\n") && text.contains("data:") {
            return Some(text);
        }
    }
    None
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(30), what).await.expect("it comes in time")
}

#[tokio::test]
async fn live_pages_of_one_person_are_bounded() {
    let world = World::new().await;
    let mine = world.cluster(&world.home, "mine").await;
    let (cookie, second) = (world.session(Role::Owner).await, world.session(Role::Owner).await);
    let path = format!("/clusters/{}/live", mine.id);
    let mut open = Vec::new();
    for number in 0..8 {
        let response = world.watch(if number % 2 == 0 { &path } else { "/clusters/live" }, &cookie).await;
        assert_eq!(response.status(), StatusCode::OK, "{number}");
        open.push(response);
    }
    for cookie in [&cookie, &second] {
        let refused = world.watch(&path, cookie).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        let (_, page) = read(refused).await;
        assert!(page.contains("You have 8 live pages open"), "{page}");
    }
    assert_eq!(
        world.get(&format!("/clusters/{}", mine.id), &cookie).await.0,
        StatusCode::OK,
        "the page itself is shown"
    );
    open.pop();
    assert_eq!(world.watch(&path, &second).await.status(), StatusCode::OK, "a closed page makes room");
}

#[tokio::test]
async fn a_live_page_ends_with_its_session() {
    let world = World::new().await;
    let mine = world.cluster(&world.home, "mine").await;
    let cookie = world.session(Role::Owner).await;
    let path = format!("/clusters/{}/live", mine.id);
    let mut body = world.watch(&path, &cookie).await.into_body().into_data_stream();
    assert!(soon(event(&mut body)).await.unwrap().contains("mine"));
    let leave = Request::post("/signout").header(header::COOKIE, &cookie).body(Body::empty()).unwrap();
    assert_eq!(world.send(leave).await.status(), StatusCode::SEE_OTHER);
    reported(&world, &mine, "secret of later").await;
    while let Some(text) = soon(event(&mut body)).await {
        assert!(!text.contains("secret of later"), "{text}");
    }
}

#[tokio::test]
async fn a_live_page_follows_the_role_of_now() {
    let world = World::new().await;
    let mine = world.cluster(&world.home, "mine").await;
    let cookie = world.session(Role::Owner).await;
    let path = format!("/clusters/{}/live", mine.id);
    let mut body = world.watch(&path, &cookie).await.into_body().into_data_stream();
    assert!(soon(event(&mut body)).await.unwrap().contains("/pools/new"));
    world.becomes(Role::Viewer).await;
    while soon(event(&mut body)).await.expect("the page goes on").contains("/pools/new") {}
}

async fn reported(world: &World, cluster: &Cluster, message: &str) {
    let report = ClusterReport {
        observed_generation: 1,
        state: ClusterState::Running,
        state_message: message.into(),
        conditions: Vec::new(),
        endpoint: None,
        problem: None,
    };
    world.store.clusters().report(cluster.id, report).await.unwrap();
}

/// A page of a pool in each of its states shows a word for it, and no state is unknown.
#[tokio::test]
async fn pools_are_shown_in_every_state() {
    let world = World::new().await;
    let mine = world.cluster(&world.home, "mine").await;
    let (name, kind, actor) = ("web".parse().unwrap(), PoolKind::Local, Actor::System);
    let new = NewPool { cluster: mine.id, organization: world.home.id, name, kind, count: 1, version: None, actor };
    let pool = world.store.pools().insert(new).await.unwrap();
    let cookie = world.session(Role::Owner).await;
    for state in PoolState::ALL {
        let report =
            PoolReport { observed_generation: 1, state: *state, state_message: "so it is".into(), problem: None };
        world.store.pools().report(pool.id, report).await.unwrap();
        for path in [format!("/pools/{}", pool.id), format!("/clusters/{}", mine.id)] {
            let (status, page) = world.get(&path, &cookie).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            let pools = page.split("id=\"pools\"").last().unwrap();
            let known = ["working", "ready", "attention", "deleting", "failed"];
            assert!(known.iter().any(|group| pools.contains(&format!("data-state=\"{group}\""))), "{state}: {page}");
            assert!(!page.contains("data-state=\"unknown\"") && page.contains("web"), "{state} {path}: {page}");
        }
    }
}

/// A pool that cannot be had leaves no cluster behind, and its name is free for the next try.
#[tokio::test]
async fn the_create_form_is_one_intent() {
    let world = World::new().await;
    let cookie = world.session(Role::Owner).await;
    let project = world.store.identity().projects(world.home.id).await.unwrap().remove(0).id;
    let holder = migrations::QuotaHolder::Organization(world.home.id);
    world.store.quotas().set(holder, migrations::Resource::NodePools, 0, Actor::System).await.unwrap();
    let form = |workers: &str| -> &'static str {
        Box::leak(format!("project={project}&name=shop&workers={workers}&count=1").into_boxed_str())
    };
    let (status, page) = world.post("/clusters", &cookie, form("byo")).await;
    assert_eq!(status, StatusCode::CONFLICT, "{page}");
    assert!(page.contains("0 of 0") && page.contains("the platform operator"), "{page}");
    assert!(world.store.clusters().all().await.unwrap().is_empty(), "nothing is made by halves");
    let (status, page) = world.post("/clusters", &cookie, form("none")).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "the name is free: {page}");
}

#[tokio::test]
async fn limits_are_shown_with_what_is_used() {
    let world = World::new().await;
    world.cluster(&world.home, "mine").await;
    let theirs = world.other().await;
    let holder = migrations::QuotaHolder::Organization(world.home.id);
    world.store.quotas().set(holder, migrations::Resource::Clusters, 1, Actor::System).await.unwrap();
    let cookie = world.session(Role::Viewer).await;
    let (status, page) = world.get("/limits", &cookie).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    for words in ["Clusters", "Node pools", "API tokens", "Limit reached", "Within limit"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains(&theirs.id.to_string()));
}

/// An owner of the first organization sets another one's limit, and the log of that says so.
#[tokio::test]
async fn the_operator_sets_limits_of_every_organization() {
    let world = World::new().await;
    let theirs = world.other().await;
    let cookie = world.session(Role::Owner).await;
    let (_, limits) = world.get("/limits", &cookie).await;
    assert!(limits.contains("/operator/quotas"), "{limits}");
    let (_, list) = world.get("/operator/quotas", &cookie).await;
    let path = format!("/operator/quotas/{}", theirs.id);
    assert!(list.contains(&path) && list.contains("Other"), "{list}");
    let (status, page) = world.post(&path, &cookie, "resource=nodes&limit=7").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let limit = async || {
        let quotas = world.store.quotas().list(theirs.id.into()).await.unwrap();
        quotas.into_iter().find(|quota| quota.resource == migrations::Resource::Nodes).unwrap().limit
    };
    assert_eq!(limit().await, 7);
    for form in [
        "resource=nodes&limit=x",
        "resource=nodes&limit=1000001",
        "resource=organizations&limit=1",
        "resource=x&limit=1",
        "",
    ] {
        let (status, page) = world.post(&path, &cookie, form).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{form}: {page}");
    }
    assert_eq!(limit().await, 7, "what was refused changed nothing");
    let (status, _) = world.get(&format!("/operator/quotas/{}", uuid::Uuid::nil()), &cookie).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// To everybody else it is not there: to an owner of another organization, and to a lower role in the first.
#[tokio::test]
async fn nobody_but_the_operator_sees_all_organizations() {
    let world = World::new().await;
    let theirs = world.other().await;
    let (one, list) = (format!("/operator/quotas/{}", theirs.id), "/operator/quotas");
    let eve = world.store.identity().user_by_email("eve@example.com").await.unwrap().unwrap();
    // The setup link made her an owner of the first one too.
    let place = Member { organization: world.home.id, user: eve.id, role: Role::Viewer };
    world.store.identity().put_member(place, Actor::System).await.unwrap();
    let line = session::start(&world.state, eve.id, &HeaderMap::new(), &BROWSER).await.unwrap();
    let eve = line.to_str().unwrap().split(';').next().unwrap().to_owned();
    let admin = world.session(Role::Admin).await;
    for cookie in [&admin, &eve] {
        assert_eq!(world.get(list, cookie).await.0, StatusCode::NOT_FOUND);
        assert_eq!(world.get(&one, cookie).await.0, StatusCode::NOT_FOUND);
        assert_eq!(world.post(&one, cookie, "resource=nodes&limit=7").await.0, StatusCode::NOT_FOUND);
        assert!(!world.get("/limits", cookie).await.1.contains("/operator"));
    }
}
