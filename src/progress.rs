//! What a person sees while something long runs: named steps with their times, on standard error and, for whoever waits in
//! another process, as JSON lines in the data directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::platform::machines;
use crate::screen::Screen;

/// One thing worth telling.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step began.
    Begin {
        /// What is being done.
        title: String,
    },
    /// A step ended well.
    Done {
        /// What was done.
        title: String,
        /// How long it took.
        seconds: f64,
    },
    /// Something in between that a waiting person wants to know.
    Note {
        /// The sentence.
        text: String,
    },
    /// How a long step goes on; the next one takes its place.
    Working {
        /// The sentence, what is left included.
        text: String,
        /// How much of the step is done, of one, where that is known.
        share: Option<f64>,
    },
    /// The instance answers.
    Ready(Ready),
    /// It does not, and why.
    Failed {
        /// The whole chain of causes, outermost first.
        why: String,
    },
}

/// What `up` hands over at its end; the last line of `--output json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// The portal over plain HTTP on loopback.
    pub portal_url: String,
    /// `address:port` of the gateway.
    pub gateway: String,
    /// The CA that signed the gateway's certificate.
    pub ca_file: PathBuf,
    /// The one-use link that makes the first owner, until there is one.
    pub setup_url: Option<String>,
    /// The instance.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its process.
    pub pid: u32,
    /// From the start of `up` until the portal answered.
    pub portal_seconds: f64,
    /// From the start of `up` until the host was ready for clusters.
    pub ready_seconds: f64,
    /// How many control planes are kept running for clusters to come.
    #[serde(default)]
    pub spares: u8,
    /// What local machines it offers, and what keeps them from this machine.
    #[serde(default)]
    pub local_machines: machines::Mode,
}

#[cfg(test)]
impl Ready {
    /// What a first `up` hands over, its setup link included.
    pub fn example(dir: &Path) -> Self {
        Self {
            portal_url: "http://127.0.0.1:8480".into(),
            gateway: "192.0.2.1:8443".into(),
            ca_file: dir.join("ca.crt"),
            setup_url: Some("http://127.0.0.1:8480/setup/x".into()),
            name: "a".into(),
            data_dir: dir.to_owned(),
            pid: 1,
            portal_seconds: 0.0,
            ready_seconds: 0.0,
            spares: 0,
            local_machines: machines::Mode::default(),
        }
    }
}

/// Where events go.
#[derive(Debug)]
pub struct Progress {
    screen: Screen,
    file: Option<Mutex<File>>,
}

impl Progress {
    /// Events go to standard error only.
    pub fn to_terminal() -> Self {
        Self { screen: Screen::new(), file: None }
    }

    /// Events go to standard error and, one JSON object a line, to a fresh file at `path` that only its owner reads: the last
    /// event carries the set-up link.
    pub fn to_file(path: &Path) -> Result<Self> {
        std::fs::remove_file(path).ok();
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        let file = Mutex::new(file.with_context(|| format!("write {}", path.display()))?);
        Ok(Self { screen: Screen::new(), file: Some(file) })
    }

    /// Tells one event.
    pub fn tell(&self, event: &Event) {
        show(&self.screen, event);
        let Some(file) = &self.file else { return };
        let (Ok(mut file), Ok(mut line)) = (file.lock(), serde_json::to_string(event)) else { return };
        line.push('\n');
        file.write_all(line.as_bytes()).ok();
    }

    /// Tells a sentence.
    pub fn note(&self, text: impl Into<String>) {
        self.tell(&Event::Note { text: text.into() });
    }

    /// Runs one step and tells its beginning, its end and its time; a failure carries the step's title.
    pub async fn step<T, E: Into<anyhow::Error>>(
        &self,
        title: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        self.tell(&Event::Begin { title: title.to_owned() });
        let begun = Instant::now();
        let outcome = work.await.map_err(Into::into).with_context(|| title.to_owned())?;
        self.tell(&Event::Done { title: title.to_owned(), seconds: begun.elapsed().as_secs_f64() });
        Ok(outcome)
    }
}

/// Shows an event to a person; nothing of the last one, which is printed in the form asked for.
pub fn show(screen: &Screen, event: &Event) {
    match event {
        Event::Begin { title } => screen.line(&format!("  … {title}")),
        Event::Done { title, seconds } => screen.line(&format!("  ✔ {title} ({seconds:.1} s)")),
        Event::Note { text } => screen.line(&format!("    {text}")),
        Event::Working { text, share } => screen.working(text, *share),
        Event::Ready(_) | Event::Failed { .. } => {}
    }
}
