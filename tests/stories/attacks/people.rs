//! Attacks on a running platform: people. Guessing at passwords is slow and shows in the audit log, whether the account exists or
//! not; an entry that somebody took out of the database is found.

use std::process::Command;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};

use crate::world::{World, ok, text, until};

const OWNER: &str = "ana@example.com";
const PASSWORD: &str = "correct horse battery";

/// Somebody with a browser, and no cookies but those named.
struct Browser {
    client: Client,
    portal: String,
}

impl Browser {
    fn new(world: &World) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let pem = std::fs::read(world.field("ca_file")).unwrap();
        let client = Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
        let client = client.no_proxy().redirect(Policy::none()).timeout(Duration::from_secs(60)).build().unwrap();
        Self { client, portal: format!("https://{}", world.field("gateway")) }
    }

    /// The status, and the cookies that were set.
    async fn post(&self, path: &str, cookies: &str, form: &[(&str, &str)]) -> (StatusCode, String) {
        let pairs = form.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+").replace('@', "%40")));
        let request = self.client.post(format!("{}{path}", self.portal)).header("cookie", cookies);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(pairs.collect::<Vec<_>>().join("&")).send().await.unwrap();
        let set = answer.headers().get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
        let set = set.map(|line| line.split(';').next().unwrap()).collect::<Vec<_>>().join("; ");
        (answer.status(), set)
    }

    async fn sign_in(&self, cookies: &str, email: &str, password: &str) -> (StatusCode, String) {
        self.post("/signin", cookies, &[("email", email), ("password", password)]).await
    }
}

async fn guess(browser: &Browser, path: &str) {
    let owner = [("email", OWNER), ("display_name", "Ana"), ("password", PASSWORD)];
    let (status, cookies) = browser.post(path, "", &owner).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "set up");
    for account in [OWNER, "nobody@example.com"] {
        let mut answers = Vec::new();
        for _ in 0..12 {
            answers.push(browser.sign_in("", account, "wrong").await.0.as_u16());
        }
        let expected = [vec![401; 10], vec![429; 2]].concat();
        assert_eq!(answers, expected, "{account}: ten guesses, whether it exists or not");
    }
    assert_eq!(browser.sign_in("", OWNER, PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS, "also the right one");
    assert_eq!(browser.sign_in(&cookies, OWNER, PASSWORD).await.0, StatusCode::SEE_OTHER, "her own browser is let in");
}

#[test]
fn story_attack_people() {
    let Some(world) = World::up("people") else { return };
    let link = ok(&mut world.command(&["admin", "setup-link"]));
    let path = &link.trim()[link.find("/setup/").unwrap()..];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(guess(&Browser::new(&world), path));
    // Both are told of it, each in their own log.
    until("the guesses at Ana's account in her organization's log", || {
        let seen = ok(&mut world.user(&["audit", "list", "--action", "user.sign_in_refused"]));
        let refused = seen.lines().filter(|line| line.contains("anonymous")).count();
        if refused >= 13 && seen.contains("too many attempts") { Ok(()) } else { Err(seen) }
    });
    until("the guesses at nobody's account in the platform's log", || {
        let seen = ok(&mut world.command(&["admin", "audit", "--action", "user.sign_in_refused"]));
        assert!(!seen.contains("nobody"), "what was typed is not written: {seen}");
        if seen.lines().count() >= 12 { Ok(()) } else { Err(seen) }
    });
    let said = ok(&mut world.command(&["admin", "audit", "verify"]));
    assert!(said.contains(", 0 faults"), "{said}");
    // Somebody who can write the database takes out the traces.
    let sql = "DELETE FROM audit WHERE action='user.sign_in_refused' AND organization IS NOT NULL; SELECT changes();";
    let mut sqlite = Command::new("sqlite3");
    let removed = ok(sqlite.args(["-cmd", ".timeout 5000"]).arg(world.dir.join("pilothouse.db")).arg(sql));
    assert!(removed.trim().parse::<u32>().unwrap() >= 13, "{removed}");
    let output = world.command(&["admin", "audit", "verify"]).output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("entry aud_") && said.contains("were removed") && said.contains("2 faults"), "{said}");
    let doctor = text(&world.command(&["doctor"]).output().unwrap().stdout);
    assert!(doctor.contains("the audit log was changed behind the platform's back"), "{doctor}");
    world.down();
}
