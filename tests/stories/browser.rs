//! The portal's tour against a running platform: what a person sees is what really happens. From the setup link to a kubeconfig
//! that a real kubectl uses, and to a cluster that is gone.

use crate::chromium::Browser;
use crate::world::{World, ok};

const EMAIL: &str = "mira@example.com";
const PASSWORD: &str = "a long enough password";
const NAME: &str = "shop";

/// The whole of it, in one window.
pub fn tours(world: &World) {
    let dir = world.scratch.at("browser");
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let link = world.field("setup_url");
        let (origin, path) = link.split_at(link.find("/setup/").unwrap());
        let browser = Browser::open(&dir, origin).await;
        account(&browser, path).await;
        let page = create(&browser).await;
        get_in(&browser, world).await;
        browser.goto(&format!("{page}/join")).await;
        browser.click("Create join command").await;
        browser.sees("#line", "pilothouse_join_").await;
        delete(&browser, &page).await;
        at_once(&browser).await;
        browser.close().await;
    });
    let left = ok(&mut world.user(&["cluster", "list", "-o", "name"]));
    assert!(!left.contains(NAME), "{left}");
}

/// The setup link makes the owner, once; then signing out and in.
async fn account(browser: &Browser, link: &str) {
    browser.goto(link).await;
    browser.fill("Email", EMAIL).await;
    browser.fill("Display name", "Mira Okafor").await;
    browser.fill("Password", PASSWORD).await;
    browser.click("Create account").await;
    browser.at("/clusters", "").await;
    browser.find("[popovertarget=m-me]").await.click().await.unwrap();
    browser.click("Sign out").await;
    browser.at("/signin", "").await;
    browser.goto(link).await;
    let page = browser.driver.source().await.unwrap();
    assert!(!page.contains("Create account"), "the link works once");
    browser.goto("/signin").await;
    browser.fill("Email", EMAIL).await;
    browser.fill("Password", PASSWORD).await;
    browser.click("Sign in").await;
    browser.at("/clusters", "").await;
}

/// A cluster with a local machine; nothing loads the page again until the node is ready on it.
async fn create(browser: &Browser) -> String {
    browser.goto("/clusters/new").await;
    browser.fill("Name", NAME).await;
    browser.find("input[name=workers][value=local]").await.click().await.unwrap();
    // With a range of its own no control plane that was made ahead fits, and there are steps to be seen.
    browser.find("form details summary").await.click().await.unwrap();
    browser.fill("Pod CIDR", "10.200.0.0/16").await;
    browser.find("form button[type=submit]").await.click().await.unwrap();
    let page = browser.at("/clusters/cls_", "").await;
    browser.driver.execute("window.untouched = true", vec![]).await.unwrap();
    browser.sees("#steps", "Start etcd").await;
    browser.find("#steps li[data-state=done]").await;
    browser.sees("h1", "Ready").await;
    browser.sees("main", "The API server is reachable, and kubeconfigs work.").await;
    browser.sees("#nodes tbody", "Ready").await;
    let untouched: bool =
        browser.driver.execute("return window.untouched === true", vec![]).await.unwrap().convert().unwrap();
    assert!(untouched, "the page was loaded again");
    page
}

/// A cluster that was made ahead is there when its page is.
async fn at_once(browser: &Browser) {
    browser.goto("/clusters/new").await;
    browser.fill("Name", NAME).await;
    browser.find("input[name=workers][value=none]").await.click().await.unwrap();
    browser.find("form button[type=submit]").await.click().await.unwrap();
    let page = browser.at("/clusters/cls_", "").await;
    browser.sees("h1", "Ready").await;
    delete(browser, &page).await;
}

/// The file that the page gives, in the hands of a real kubectl.
async fn get_in(browser: &Browser, world: &World) {
    browser.click("Get kubeconfig").await;
    browser.at("/clusters/", "/kubeconfigs").await;
    browser.fill("Name", "laptop").await;
    browser.find("#kr option[value=admin]").await.click().await.unwrap();
    browser.click("Issue and download").await;
    let file = world.scratch.at(&format!("browser/downloads/{NAME}.kubeconfig"));
    browser.downloaded(&file, "apiVersion: v1").await;
    world.nodes(&file, "local-", 1);
    ok(&mut world.kubectl(&file, &["create", "configmap", "from-the-browser"]));
}

async fn delete(browser: &Browser, page: &str) {
    browser.goto(page).await;
    browser.click("Delete cluster").await;
    browser.fill(&format!("Type {NAME}"), NAME).await;
    browser.click(&format!("Delete {NAME}")).await;
    browser.sees("h1", &format!("{NAME} is deleted")).await;
    browser.click("Go to your clusters").await;
    browser.sees("main", "demo").await;
}
