//! A real browser for a story: Chromium by way of its driver, in a process namespace of its own, so that nothing of it outlives
//! the story, however that ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use thirtyfour::prelude::*;
use tokio::time::Instant;

/// The longest any page may take to show what it should.
const PATIENCE: Duration = Duration::from_secs(300);
const GLANCE: Duration = Duration::from_millis(100);

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

/// One window.
pub struct Browser {
    pub driver: WebDriver,
    origin: String,
    _processes: Processes,
}

/// The driver and everything it started.
struct Processes(Child);

impl Drop for Processes {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts the driver on a port of its choice. `unshare` ends with the story, and its namespace with it.
fn driver(home: &Path) -> (Processes, u16) {
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "slave", "/usr/bin/chromedriver", "--port=0"])
        // Where Chromium keeps what belongs to no profile.
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let processes = Processes(child);
    let port = lines.find_map(|line| line.strip_suffix('.')?.rsplit("on port ").next()?.parse().ok());
    // Somebody must read what it says, or its pipe fills up.
    std::thread::spawn(move || lines.for_each(drop));
    (processes, port.expect("chromedriver ended before it listened"))
}

impl Browser {
    /// Opens a window whose profile and downloads lie in `dir`. The platform's certificate is its own: the browser is told to
    /// go on, as a person would be asked.
    pub async fn open(dir: &Path, origin: &str) -> Self {
        let (processes, port) = driver(dir);
        let mut capabilities = DesiredCapabilities::chrome();
        capabilities.set_binary("/usr/bin/chromium").unwrap();
        capabilities.accept_insecure_certs(true).unwrap();
        for flag in FLAGS {
            capabilities.add_arg(flag).unwrap();
        }
        capabilities.add_arg(&format!("--user-data-dir={}", dir.join("profile").display())).unwrap();
        let preferences = serde_json::json!({ "download.default_directory": dir.join("downloads") });
        capabilities.add_experimental_option("prefs", preferences).unwrap();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities).await.unwrap();
        driver.set_window_rect(0, 0, 1600, 1000).await.unwrap();
        Self { driver, origin: origin.to_owned(), _processes: processes }
    }

    /// Ends the window and the driver.
    pub async fn close(self) {
        self.driver.quit().await.unwrap();
    }

    pub async fn goto(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.origin)).await.unwrap();
    }

    /// The one element for a CSS selector, once it is there and can be seen.
    pub async fn find(&self, css: &str) -> WebElement {
        let found = self.driver.query(By::Css(css)).wait(PATIENCE, GLANCE);
        found.and_displayed().first().await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Types into the field with this label.
    pub async fn fill(&self, label: &str, text: &str) {
        let path = format!("//label[starts-with(normalize-space(.), '{label}')]");
        let label = self.driver.query(By::XPath(path)).wait(PATIENCE, GLANCE).first().await.unwrap();
        let field = self.find(&format!("#{}", label.attr("for").await.unwrap().unwrap())).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Clicks the button or link with these words.
    pub async fn click(&self, words: &str) {
        let path = format!("//*[self::a or self::button][contains(normalize-space(.), '{words}')]");
        let found = self.driver.query(By::XPath(path)).wait(PATIENCE, GLANCE);
        let element = found.and_displayed().first().await.unwrap_or_else(|error| panic!("{words}: {error}"));
        element.scroll_into_view().await.unwrap();
        element.click().await.unwrap();
    }

    /// Waits until an element's text holds these words, without loading the page again.
    pub async fn sees(&self, css: &str, words: &str) {
        let end = Instant::now() + PATIENCE;
        let mut last = String::new();
        while !last.contains(words) {
            assert!(Instant::now() < end, "{css} never said {words:?}; last: {last:?}");
            tokio::time::sleep(GLANCE).await;
            if let Ok(element) = self.driver.find(By::Css(css)).await {
                last = element.prop("textContent").await.unwrap_or_default().unwrap_or_default();
            }
        }
    }

    /// Waits for a path, given by its beginning and end.
    pub async fn at(&self, begin: &str, end: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = self.driver.current_url().await.unwrap().path().to_owned();
            if path.starts_with(begin) && path.ends_with(end) {
                return path;
            }
            assert!(Instant::now() < deadline, "at {path}, not {begin}…{end}");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits for a download to be whole: the browser makes the file first and fills it then.
    pub async fn downloaded(&self, file: &Path, begin: &str) {
        let end = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(file).is_ok_and(|text| text.starts_with(begin)) {
            assert!(Instant::now() < end, "{} never came", file.display());
            tokio::time::sleep(GLANCE).await;
        }
    }
}
