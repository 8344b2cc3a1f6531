//! One HTTP client for REST v1: the token in its header, problems as errors, lists followed to their end.
//!
//! A portal that is started again, a database that is away and a limit that is reached pass by: the call is sent again, a
//! few times. Every POST and PATCH carries an idempotency key, so that one whose answer was lost makes no twin.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api_types::{List, Problem};
use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::{CliError, Result};
use crate::progress::Screen;

/// How long an answer may take beyond the time it was asked to wait.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a call is sent again.
const RETRIES: u32 = 5;
/// The pause before the first retry; each is twice the one before, 15.5 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that the portal may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Items asked for per page; the server's own upper bound.
const PAGE: &str = "200";

/// Speaks to one portal.
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<SecretString>,
    /// Whether the portal has answered before: an address where nobody ever did is more likely wrong than away.
    met: AtomicBool,
    screen: Option<Screen>,
}

/// One request: method, path below `/api/v1`, query and body.
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<serde_json::Value>,
    /// Sent with every attempt, so that the call is carried out once.
    key: Option<String>,
    timeout: Duration,
    retries: u32,
}

/// What came instead of a good answer, and how long the portal asks to wait.
struct Refusal {
    error: CliError,
    pause: Option<Duration>,
}

impl Call {
    /// Reads something.
    pub fn get(path: impl Into<String>) -> Self {
        Call {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: None,
            key: None,
            timeout: DEFAULT_TIMEOUT,
            retries: RETRIES,
        }
    }

    /// Makes something.
    pub fn post(path: impl Into<String>, body: &impl Serialize) -> Result<Self> {
        Ok(Call { method: Method::POST, body: Some(json(body)?), key: Some(key()), ..Call::get(path) })
    }

    /// Changes something (JSON merge patch).
    pub fn patch(path: impl Into<String>, body: &impl Serialize) -> Result<Self> {
        Ok(Call { method: Method::PATCH, body: Some(json(body)?), key: Some(key()), ..Call::get(path) })
    }

    /// Takes something away.
    pub fn delete(path: impl Into<String>) -> Self {
        Call { method: Method::DELETE, ..Call::get(path) }
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Asks the server to hold its answer for up to this many seconds.
    pub fn wait(mut self, seconds: u64) -> Self {
        self.timeout += Duration::from_secs(seconds);
        self.query("wait", seconds.to_string())
    }

    /// Asks only whether it would work.
    pub fn validate_only(self, only: bool) -> Self {
        if only { self.query("validate_only", "true") } else { self }
    }

    /// Sends it once, for callers with a patience of their own.
    pub fn once(self) -> Self {
        Call { retries: 0, ..self }
    }
}

fn key() -> String {
    Uuid::now_v7().to_string()
}

fn json(body: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(body).map_err(|source| CliError::Print { source: source.into() })
}

impl Client {
    /// A client for `server` (no trailing slash) that trusts only `ca` (PEM) when one is given.
    ///
    /// # Errors
    /// The certificate authority cannot be read, or the address would carry the token in clear over a network.
    pub fn new(server: &str, ca: Option<&str>, token: Option<SecretString>) -> Result<Self> {
        refuse_clear_text(server)?;
        // Another part of the program may have chosen it already; either way it is set.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("pilothouse-cli/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none());
        if server.starts_with("http://") {
            // Clear text is for loopback only, and a proxy from the environment is somewhere else.
            builder = builder.no_proxy();
        }
        if let Some(pem) = ca {
            builder = builder.tls_certs_only(authorities(pem)?);
        }
        let http = builder.build().map_err(|source| unreachable(server, source, false))?;
        Ok(Client { http, server: server.to_owned(), token, met: AtomicBool::new(false), screen: None })
    }

    /// Reports retries there.
    pub fn telling(self, screen: Screen) -> Self {
        Client { screen: Some(screen), ..self }
    }

    /// Sends a call and reads the answer as `T`.
    pub async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let (status, body) = self.exchange(call).await?;
        serde_json::from_slice(&body)
            .map_err(|_| CliError::UnexpectedServer { server: self.server.clone(), status: status.as_u16() })
    }

    /// Sends a call whose answer may have no body; none then.
    pub async fn send_maybe<T: DeserializeOwned>(&self, call: Call) -> Result<Option<T>> {
        let (status, body) = self.exchange(call).await?;
        if body.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_slice(&body).map(Some);
        read.map_err(|_| CliError::UnexpectedServer { server: self.server.clone(), status: status.as_u16() })
    }

    /// Sends a call whose answer does not matter.
    pub async fn send_only(&self, call: Call) -> Result<()> {
        self.exchange(call).await.map(drop)
    }

    /// Reads a whole collection, page after page.
    pub async fn list<T: DeserializeOwned>(&self, path: &str, filters: &[(&'static str, String)]) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut call = Call::get(path).query("limit", PAGE);
            for (name, value) in filters {
                call = call.query(name, value.clone());
            }
            if let Some(cursor) = cursor.take() {
                call = call.query("cursor", cursor);
            }
            let page: List<T> = self.send(call).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(items),
            }
        }
    }

    async fn exchange(&self, call: Call) -> Result<(StatusCode, Vec<u8>)> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=call.retries {
            let Refusal { error, pause: asked } = match self.attempt(&call).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            let wait = asked.unwrap_or(pause);
            if !error.passes() || wait > LONGEST_PAUSE {
                return Err(error);
            }
            if let Some(screen) = &self.screen {
                screen.say(&format!("  … {error}; retrying ({attempt} of {})", call.retries));
            }
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        self.attempt(&call).await.map_err(|refusal| refusal.error)
    }

    fn met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    async fn attempt(&self, call: &Call) -> Result<(StatusCode, Vec<u8>), Refusal> {
        let lost = |source| Refusal { error: unreachable(&self.server, source, self.met()), pause: None };
        let answer = self.request(call)?.send().await.map_err(lost)?;
        self.met.store(true, Ordering::Relaxed);
        let status = answer.status();
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.bytes().await.map_err(lost)?;
        if status.is_success() {
            return Ok((status, body.to_vec()));
        }
        Err(Refusal { error: self.refusal(status, &body), pause: pause.map(Duration::from_secs) })
    }

    fn request(&self, call: &Call) -> Result<reqwest::RequestBuilder> {
        let token = self.token.as_ref().ok_or_else(|| CliError::NoToken { server: self.server.clone() })?;
        let url = format!("{}/api/v1{}", self.server, call.path);
        let mut request = self.http.request(call.method.clone(), url).timeout(call.timeout).query(&call.query);
        request = request.bearer_auth(token.expose_secret());
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        Ok(if let Some(body) = &call.body { request.json(body) } else { request })
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> CliError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => CliError::Refused(Box::new(problem)),
            Err(_) => CliError::UnexpectedServer { server: self.server.clone(), status: status.as_u16() },
        }
    }
}

impl From<CliError> for Refusal {
    fn from(error: CliError) -> Self {
        Refusal { error, pause: None }
    }
}

fn authorities(pem: &str) -> Result<Vec<Certificate>> {
    let found = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
    if found.is_empty() {
        return Err(CliError::usage(
            "the CA file contains no PEM certificate",
            "Pass the ca_file from the last line of `pilothouse up`.",
        ));
    }
    Ok(found)
}

fn refuse_clear_text(server: &str) -> Result<()> {
    let url = reqwest::Url::parse(server).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match url.as_ref().map(reqwest::Url::scheme) {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        Some("http") => Err(CliError::usage(
            format!("{server} would send the token in clear text"),
            "Use the https:// address of the portal.",
        )),
        _ => Err(CliError::usage(
            format!("{server:?} is not a portal URL"),
            "Use the form https://pilothouse.example.com or https://192.0.2.10:6443.",
        )),
    }
}

/// Whether somebody was there and closed the connection: a portal that is being stopped.
fn hung_up(error: &(dyn Error + 'static)) -> bool {
    let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| closed.contains(&error.kind())) {
            return true;
        }
        // What an I/O error wraps is not its source but the source's parent.
        let wrapped = io.and_then(std::io::Error::get_ref).map(|error| error as &(dyn Error + 'static));
        next = wrapped.or_else(|| error.source());
    }
    false
}

/// `met`: whether the portal has answered before.
fn unreachable(server: &str, source: reqwest::Error, met: bool) -> CliError {
    // The address is told once, by our own text; its query may be long.
    let source = source.without_url();
    let is_unknown_ca = format!("{source:?}").contains("UnknownIssuer");
    let lasting = is_unknown_ca
        || source.is_timeout()
        || source.is_builder()
        || (source.is_connect() && !met && !hung_up(&source));
    let next = if is_unknown_ca {
        "Its certificate is signed by an unknown CA: pass --ca-file or set PILOTHOUSE_CA_FILE."
    } else if source.is_timeout() {
        "No response in time; check with `pilothouse status` that it is running, then try again."
    } else {
        "Check the URL (--server, PILOTHOUSE_SERVER) and that the portal is running."
    };
    CliError::Unreachable { server: server.to_owned(), next: next.into(), lasting, source: source.into() }
}
