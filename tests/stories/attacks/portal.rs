//! Attacks on the portal: forms sent round the limits, a token used where only a session counts, live pages without end, and more of
//! everything than an organization may have.

use std::collections::BTreeMap;

use reqwest::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, StatusCode, redirect};

use crate::world::{World, fails, ok};

/// Writes in a minute, as `portal::RequestLimits` has them.
const WRITES: usize = 120;
/// Live pages of one person.
const STREAMS: usize = 8;

#[test]
fn story_attack_portal() {
    let Some(world) = World::up("portal") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let browser = Browser::signed_in(&world).await;
        tokens_open_no_page(&world, &browser).await;
        live_pages_are_bounded(&browser).await;
        forms_are_limited(&browser).await;
    });
    quotas_hold(&world);
    world.down();
}

/// A session at the portal's own address, as the setup link opens one.
struct Browser {
    client: Client,
    origin: String,
    cookie: String,
}

impl Browser {
    async fn signed_in(world: &World) -> Self {
        let link = ok(&mut world.command(&["admin", "setup-link"])).trim().to_owned();
        let origin = link[..link.find("/setup/").unwrap()].to_owned();
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        let form = [("email", "ana@example.com"), ("display_name", "Ana"), ("password", "a long enough password")];
        let answer = client.post(&link).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let line = answer.headers()[SET_COOKIE].to_str().unwrap();
        let cookie = line.split(';').next().unwrap().to_owned();
        Self { client, origin, cookie }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.origin)).header(COOKIE, &self.cookie)
    }
}

async fn tokens_open_no_page(world: &World, browser: &Browser) {
    let bearer = format!("Bearer {}", world.token);
    for path in ["/clusters", "/clusters/live", "/tokens", "/limits"] {
        let with_token = browser.client.get(format!("{}{path}", browser.origin)).header(AUTHORIZATION, &bearer);
        let answer = with_token.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(answer.headers()[LOCATION].to_str().unwrap().starts_with("/signin"), "{path}");
        assert_eq!(browser.get(path).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
}

async fn live_pages_are_bounded(browser: &Browser) {
    let mut open = Vec::new();
    let mut answers = BTreeMap::<u16, usize>::new();
    for _ in 0..3 * STREAMS {
        let answer = browser.get("/clusters/live").send().await.unwrap();
        *answers.entry(answer.status().as_u16()).or_default() += 1;
        if answer.status() == StatusCode::OK {
            open.push(answer);
        }
    }
    assert_eq!(answers, BTreeMap::from([(200, STREAMS), (429, 2 * STREAMS)]));
    drop(open);
    let mut tries = 0;
    // A connection that was cut is seen at the next write, or before.
    while browser.get("/clusters/live").send().await.unwrap().status() != StatusCode::OK {
        tries += 1;
        assert!(tries < 300, "closed pages give their places back");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// 400 forms at once: no more than a minute's limit (and what came back meanwhile) is carried out, and reading goes on.
async fn forms_are_limited(browser: &Browser) {
    let sends = (0..400).map(|number| {
        let form = [("name", format!("x{number}")), ("role", "viewer".to_owned()), ("lifetime", "86400".to_owned())];
        let request = browser.client.post(format!("{}/tokens", browser.origin)).header(COOKIE, &browser.cookie);
        tokio::spawn(async move { request.form(&form).send().await.unwrap().status() })
    });
    let mut answers = BTreeMap::<StatusCode, usize>::new();
    for send in sends.collect::<Vec<_>>() {
        *answers.entry(send.await.unwrap()).or_default() += 1;
    }
    assert_eq!(answers.values().sum::<usize>(), 400);
    let refused = answers.get(&StatusCode::TOO_MANY_REQUESTS).copied().unwrap_or_default();
    assert!(refused >= 400 - 2 * WRITES, "{answers:?}");
    // And the quota holds whatever the limit lets through.
    assert!(answers.get(&StatusCode::OK).copied().unwrap_or_default() <= 100, "{answers:?}");
    assert_eq!(browser.get("/tokens").send().await.unwrap().status(), StatusCode::OK);
}

/// The operator sets a limit while the platform runs; the user hears which, how many are used, and who can act.
fn quotas_hold(world: &World) {
    let set = |resource: &str, limit: &str| {
        ok(&mut world.command(&["admin", "quota", "set", "default", resource, limit]));
    };
    set("projects", "2");
    ok(&mut world.user(&["project", "create", "second"]));
    let (code, said) = fails(&mut world.user(&["project", "create", "third"]));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("2 of 2") && said.contains("platform operator"), "{said}");
    assert!(said.contains("QUOTA_REACHED"), "{said}");
    let shown = ok(&mut world.user(&["org", "quota"]));
    let projects = shown.lines().find(|line| line.starts_with("projects")).unwrap();
    assert_eq!(projects.split_whitespace().collect::<Vec<_>>(), ["projects", "2", "2"], "{shown}");
    set("projects", "3");
    ok(&mut world.user(&["project", "create", "third"]));
    let listed = ok(&mut world.command(&["admin", "quota", "list"]));
    assert!(listed.lines().any(|line| line.contains("projects") && line.contains("default")), "{listed}");
    let (_, said) = fails(&mut world.command(&["admin", "quota", "set", "nobody", "projects", "3"]));
    assert!(said.contains("no organization is called nobody"), "{said}");
}
