//! A real portal on loopback with a real SQLite store, and a real browser in front of it. The test plays the provisioner.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use migrations::{ClusterReport, ExposeSecret, Kek, Kubeconfig, Store};
use portal::{AgentFiles, Capabilities, IssueError, Issuer, PortalConfig, RequestLimits};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::status::{ClusterState, Condition, ConditionStatus, KubeconfigEndpoint};
use tenant_controlplane::version::KubernetesVersion;
use thirtyfour::prelude::*;
use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// The longest any page may take to show what it should.
pub const PATIENCE: Duration = Duration::from_secs(20);

const FLAGS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Stands for the provisioner's signature; what is in the file is not the portal's concern.
struct Signer(Store);

#[async_trait]
impl Issuer for Signer {
    async fn kubeconfig(&self, kubeconfig: &Kubeconfig, _: KubeconfigEndpoint) -> Result<String, IssueError> {
        self.0.kubeconfigs().certify(kubeconfig.id, "0a", "<authority>").await.unwrap();
        Ok(format!("apiVersion: v1\nkind: Config\n# {}\n", kubeconfig.cluster))
    }
}

/// Everything a test needs, gone when it ends.
pub struct World {
    pub store: Store,
    pub url: String,
    pub driver: WebDriver,
    pub downloads: PathBuf,
    dir: tempfile::TempDir,
    tasks: Vec<JoinHandle<()>>,
    chromedriver: Child,
}

impl World {
    /// Starts a portal and a browser; `script` switches JavaScript on or off.
    pub async fn new(script: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek::load_or_create(&dir.path().join("kek")).unwrap();
        let store = Store::connect(&format!("sqlite://{}/db", dir.path().display()), kek).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = portal::app(config(&store, &url, dir.path()));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let binding = tokio::spawn(bind_kubeconfigs(store.clone()));
        let downloads = dir.path().join("downloads");
        let (chromedriver, driver) = browser(dir.path(), &downloads, script).await;
        World { store, url, driver, downloads, dir, tasks: vec![serving, binding], chromedriver }
    }

    /// Ends the browser, its driver and the portal.
    pub async fn close(mut self) {
        self.driver.clone().quit().await.unwrap();
        self.chromedriver.kill().await.unwrap();
        self.tasks.iter().for_each(JoinHandle::abort);
        self.store.close().await;
        drop(self.dir);
    }

    pub async fn open(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.url)).await.unwrap();
    }

    /// The one element for a CSS selector, once it is there and can be seen.
    pub async fn find(&self, css: &str) -> WebElement {
        let found = self.driver.query(By::Css(css)).wait(PATIENCE, Duration::from_millis(50));
        found.and_displayed().first().await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Types into the field with this label.
    pub async fn fill(&self, label: &str, text: &str) {
        let label = self.driver.query(By::XPath(format!("//label[starts-with(normalize-space(.), '{label}')]")));
        let id = label.first().await.unwrap().attr("for").await.unwrap().unwrap();
        let field = self.find(&format!("#{id}")).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Clicks the button or link with these words.
    pub async fn click(&self, words: &str) {
        let path = format!("//*[self::a or self::button][contains(normalize-space(.), '{words}')]");
        let found = self.driver.query(By::XPath(path)).wait(PATIENCE, Duration::from_millis(50));
        let element = found.and_displayed().first().await.unwrap_or_else(|error| panic!("{words}: {error}"));
        element.scroll_into_view().await.unwrap();
        element.click().await.unwrap();
    }

    /// Waits until an element's text holds these words, without loading the page again.
    pub async fn sees(&self, css: &str, words: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut last = String::new();
        while tokio::time::Instant::now() < deadline {
            if let Ok(element) = self.driver.find(By::Css(css)).await {
                last = element.prop("textContent").await.unwrap_or_default().unwrap_or_default();
            }
            if last.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let page = self.driver.source().await.unwrap_or_default();
        panic!("{css} never said {words:?}; last: {last:?}\n{page}");
    }

    pub async fn path(&self) -> String {
        self.driver.current_url().await.unwrap().path().to_owned()
    }

    /// Waits for a path, given by its beginning and end.
    pub async fn at(&self, begin: &str, end: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let path = self.path().await;
            if path.starts_with(begin) && path.ends_with(end) {
                return path;
            }
            assert!(tokio::time::Instant::now() < deadline, "at {path}, not {begin}…{end}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What every page must keep: one h1, headings in order, a label for every field, ids used once, a title.
    pub async fn check_page(&self) {
        let script = r"
            const wrong = [];
            const seen = e => e.getClientRects().length > 0;
            const heads = [...document.querySelectorAll('h1,h2,h3,h4')].filter(e => seen(e) && !e.closest('dialog'));
            if (heads.filter(e => e.tagName === 'H1').length !== 1) wrong.push('not one h1');
            const main = heads.filter(e => e.closest('main'));
            main.reduce((last, e) => { const level = +e.tagName[1];
                if (level > last + 1) wrong.push(`h${last} then h${level}: ${e.textContent}`); return level; }, 0);
            for (const e of document.querySelectorAll('input:not([type=hidden]),select,textarea'))
                if (!e.labels.length && !e.ariaLabel) wrong.push(`no label: ${e.outerHTML}`);
            for (const e of document.querySelectorAll('button,a')) if (!(e.textContent.trim() || e.ariaLabel)) wrong.push(`no name: ${e.outerHTML}`);
            const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
            ids.filter((id, at) => ids.indexOf(id) !== at).forEach(id => wrong.push(`id twice: ${id}`));
            if (!document.title.includes('Pilothouse')) wrong.push('no title');
            if (document.documentElement.scrollWidth > innerWidth + 1) wrong.push(`wider than the window: ${document.documentElement.scrollWidth}`);
            return wrong;";
        let wrong: Vec<String> = self.driver.execute(script, vec![]).await.unwrap().convert().unwrap();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.path().await);
    }

    /// Looks at the page wide and as on a phone, and keeps pictures where PILOTHOUSE_PICTURES names a directory.
    pub async fn look(&self, name: &str) {
        for (width, height) in [(1600, 1000), (360, 740)] {
            self.window(serde_json::json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}))
                .await;
            self.check_page().await;
            if let Some(dir) = std::env::var_os("PILOTHOUSE_PICTURES") {
                self.pictures(Path::new(&dir), &format!("{name}-{width}")).await;
            }
        }
        self.window(serde_json::json!({"width": 1600, "height": 1000, "deviceScaleFactor": 1, "mobile": false})).await;
    }

    /// The whole page, light and dark.
    async fn pictures(&self, dir: &Path, name: &str) {
        for theme in ["light", "dark"] {
            let media = serde_json::json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
            self.cdp("Emulation.setEmulatedMedia", media).await;
            let picture = self.cdp("Page.captureScreenshot", serde_json::json!({"captureBeyondViewport": true})).await;
            let picture = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            std::fs::write(dir.join(format!("{name}-{theme}.png")), picture).unwrap();
        }
        self.cdp("Emulation.setEmulatedMedia", serde_json::json!({"features": []})).await;
    }

    /// Gives the page a window of this size; a real window cannot be as narrow as a phone.
    async fn window(&self, size: serde_json::Value) {
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
    }

    async fn cdp(&self, command: &str, params: serde_json::Value) -> serde_json::Value {
        let command = serde_json::json!({"cmd": command, "params": params});
        self.ask_driver("goog/cdp/execute", command).await["value"].take()
    }

    async fn ask_driver(&self, command: &str, body: serde_json::Value) -> serde_json::Value {
        let session = self.driver.session_id();
        let url = format!("http://127.0.0.1:{}/session/{session}/{command}", self.chromedriver_port());
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{command}: {}", answer.status());
        answer.json().await.unwrap()
    }

    /// What the browser complained about: scripts that threw, requests the policy refused.
    pub async fn complaints(&self) -> Vec<String> {
        let answer = self.ask_driver("se/log", serde_json::json!({"type": "browser"})).await;
        let entries = answer["value"].as_array().cloned().unwrap_or_else(|| panic!("{answer}"));
        // A page answered with 4xx is told by the browser too; forms sent wrong on purpose are no complaint.
        entries.iter().map(|entry| entry["message"].to_string()).filter(|text| !text.contains("status of 4")).collect()
    }

    fn chromedriver_port(&self) -> u16 {
        std::fs::read_to_string(self.dir.path().join("port")).unwrap().parse().unwrap()
    }

    pub async fn setup_link(&self) -> String {
        format!("/setup/{}", self.store.identity().create_setup_token().await.unwrap().expose_secret())
    }

    /// Reports a cluster as the provisioner would.
    pub async fn report(&self, id: ClusterId, state: ClusterState, message: &str) {
        let status = if state == ClusterState::Running { ConditionStatus::True } else { ConditionStatus::Unknown };
        let ready = Condition {
            kind: "Ready".into(),
            status,
            reason: "Test".into(),
            message: "Answers from outside in 21 ms.".into(),
            observed_generation: 1,
            last_transition_time: OffsetDateTime::now_utc(),
        };
        let report = ClusterReport {
            observed_generation: 1,
            state,
            state_message: message.into(),
            conditions: vec![ready],
            endpoint: Some("127.0.0.1:6443".into()),
            problem: None,
        };
        self.store.clusters().report(id, report).await.unwrap();
    }
}

fn config(store: &Store, url: &str, dir: &Path) -> PortalConfig {
    PortalConfig {
        store: store.clone(),
        public_url: url.to_owned(),
        gateway_address: "127.0.0.1:6443".into(),
        domain: "pilothouse.internal".into(),
        platform_ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
        versions: KubernetesVersion::known().to_vec(),
        agent: AgentFiles {
            path: dir.join("agent"),
            sha256: "0".repeat(64),
            signing_key: "ed25519:a".into(),
            machine: "x86_64".into(),
        },
        capabilities: Capabilities { local: portal::LocalMachines::Isolated, dns: false, ports: false },
        limits: RequestLimits { reads: 100_000, writes: 100_000, cluster_creates: 100_000 },
        issuer: Arc::new(Signer(store.clone())),
    }
}

/// Says of every issued kubeconfig that the cluster honors it, as the provisioner does.
async fn bind_kubeconfigs(store: Store) {
    let mut changes = store.changes();
    while let Ok(change) = changes.recv().await {
        let Some(cluster) = change.cluster else { continue };
        for kubeconfig in store.kubeconfigs().unbound(cluster).await.unwrap_or_default() {
            store.kubeconfigs().mark_bound(kubeconfig.id).await.unwrap();
        }
        for kubeconfig in store.kubeconfigs().with_authority(cluster).await.unwrap_or_default() {
            if kubeconfig.revoked_at.is_some() {
                store.kubeconfigs().mark_refused(kubeconfig.id).await.unwrap();
            }
        }
    }
}

async fn browser(dir: &Path, downloads: &Path, script: bool) -> (Child, WebDriver) {
    let mut chromedriver = Command::new("/usr/bin/chromedriver")
        .arg("--port=0")
        // Where Chromium keeps what belongs to no profile.
        .env("HOME", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(chromedriver.stdout.take().unwrap()).lines();
    let port = loop {
        let line = lines.next_line().await.unwrap().expect("chromedriver ended before it listened");
        if let Some(port) = line.strip_suffix('.').and_then(|line| line.rsplit("on port ").next()?.parse::<u16>().ok())
        {
            break port;
        }
    };
    // Somebody must read what it says, or its pipe fills up.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    std::fs::write(dir.join("port"), port.to_string()).unwrap();
    let mut capabilities = DesiredCapabilities::chrome();
    capabilities.set_binary("/usr/bin/chromium").unwrap();
    for flag in FLAGS {
        capabilities.add_arg(flag).unwrap();
    }
    capabilities.add_arg(&format!("--user-data-dir={}", dir.join("profile").display())).unwrap();
    let preferences = serde_json::json!({
        "download.default_directory": downloads,
        "profile.managed_default_content_settings.javascript": if script { 1 } else { 2 },
    });
    capabilities.add_experimental_option("prefs", preferences).unwrap();
    let log = serde_json::json!({"browser": "WARNING"});
    AsMut::<thirtyfour::Capabilities>::as_mut(&mut capabilities).set("goog:loggingPrefs", log).unwrap();
    let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities).await.unwrap();
    (chromedriver, driver)
}
