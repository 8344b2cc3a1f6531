//! The bench as a client: REST with a token of its own, and the bundle's kubectl.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bundle::{Bundle, Version};
use migrations::Store;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tenant_controlplane::status::ClusterState;
use tokio::process::Command;
use tokio::time::sleep;

use crate::admin;
use crate::instance::Instance;
use crate::options::InstanceArgs;
use crate::ready;

/// How long the platform may take to be at rest.
const RESTED: Duration = Duration::from_secs(120);

/// A client of one instance.
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
    /// The project that clusters are made in.
    pub project: String,
    /// The bundle's kubectl.
    pub kubectl: PathBuf,
    scratch: PathBuf,
    store: Store,
    /// How many control planes the platform keeps ready.
    spares: usize,
}

impl Api {
    /// Makes a token and finds the default project.
    pub async fn open(args: &InstanceArgs) -> Result<Self> {
        let instance = Instance::new(&args.name, args.data_dir.clone())?;
        let (record, store) = admin::open(args).await?;
        let token = admin::make_token(args, 1).await?;
        let kubectl = Bundle::locate(Version::default())?.program("kubectl")?;
        let scratch = instance.path("run/bench");
        std::fs::create_dir_all(&scratch)?;
        let base = format!("http://{}/api/v1", record.portal);
        let mut api = Self {
            http: reqwest::Client::builder().no_proxy().build()?,
            base,
            token,
            project: String::new(),
            kubectl,
            scratch,
            store,
            spares: ready::read(&instance)?.spares.into(),
        };
        let me = api.get("/me").await?;
        let organization = text(&me["organizations"][0]["organization_id"])?;
        let projects = api.get(&format!("/organizations/{organization}/projects")).await?;
        api.project = text(&projects["items"][0]["id"])?;
        Ok(api)
    }

    /// Waits until the platform is at rest: it has all the control planes that it keeps ready, of which it gives the number. As many as
    /// there are after two minutes must do.
    pub async fn rested(&self) -> Result<usize> {
        let end = Instant::now() + RESTED;
        loop {
            let spares = self.store.spares().list().await?;
            let running = spares.iter().filter(|spare| spare.state == ClusterState::Running).count();
            if running >= self.spares || Instant::now() > end {
                return Ok(running);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// `GET` that must succeed.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// `POST` that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `DELETE` that must succeed.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, None).await
    }

    /// Asks for a cluster, as the only one of a caller of its own: a person is held to a few a minute, and a bench would
    /// measure that. Also says when it asked.
    pub async fn cluster(&self, name: &str) -> Result<(Value, Instant)> {
        let caller = self.post("/me/tokens", json!({ "name": "bench", "expires_in_seconds": 3600 })).await?;
        let (path, token) = (format!("/projects/{}/clusters", self.project), text(&caller["secret"])?);
        let begun = Instant::now();
        let made = self.call_as(&token, (Method::POST, &path, Some(json!({ "name": name })))).await?;
        Ok((made, begun))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        self.call_as(&self.token, (method, path, body)).await
    }

    async fn call_as(&self, token: &str, (method, path, body): (Method, &str, Option<Value>)) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| format!("call {path}; does the instance run?"))?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        if status == StatusCode::NO_CONTENT || text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("understand the answer of {path}"))
    }

    /// Waits until an operation has ended well and returns it.
    pub async fn finished(&self, operation: &str) -> Result<Value> {
        for _ in 0..20 {
            let now = self.get(&format!("/operations/{operation}?wait=30")).await?;
            match now["state"].as_str() {
                Some("succeeded") => return Ok(now),
                Some("failed" | "cancelled") => bail!("operation {operation} ended: {now}"),
                _ => {}
            }
        }
        bail!("operation {operation} is still running after ten minutes")
    }

    /// Issues a kubeconfig and writes it to a file that only root reads.
    pub async fn kubeconfig(&self, cluster: &str) -> Result<PathBuf> {
        let issued =
            self.post(&format!("/clusters/{cluster}/kubeconfigs"), json!({ "name": "bench", "role": "admin" })).await?;
        let path = self.scratch.join(format!("{cluster}.kubeconfig"));
        node_linux::files::write_secret(&path, text(&issued["kubeconfig"])?.as_bytes())?;
        Ok(path)
    }

    /// Runs kubectl until it succeeds, at most for `limit`.
    pub async fn kubectl_until(&self, kubeconfig: &Path, args: &[&str], limit: Duration) -> Result<String> {
        let end = tokio::time::Instant::now() + limit;
        loop {
            let output = Command::new(&self.kubectl)
                .arg("--kubeconfig")
                .arg(kubeconfig)
                .args(args)
                .stdin(Stdio::null())
                .output()
                .await?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            if tokio::time::Instant::now() > end {
                bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Deletes a cluster and waits until it is gone.
    pub async fn remove(&self, cluster: &str) -> Result<()> {
        let going = self.delete(&format!("/clusters/{cluster}")).await?;
        self.finished(&text(&going["operation_id"])?).await?;
        Ok(())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.scratch).ok();
        std::io::stdout().flush().ok();
    }
}

/// A field that must be a text.
pub fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("the answer lacks a field that it should have")?.to_owned())
}
