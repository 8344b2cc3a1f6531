//! `run/ready.json`: what a running instance says of itself, for `status` and another `up`.

use std::time::Duration;

use anyhow::{Context, Result};
use migrations::Store;
use node_linux::files::write_secret;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::instance::Instance;
use crate::progress::Ready;

const FILE: &str = "run/ready.json";
/// Between two looks whether the owner account was created.
const LOOK: Duration = Duration::from_secs(1);

/// What the running instance said of itself.
pub fn read(instance: &Instance) -> Result<Ready> {
    let text = std::fs::read(instance.path(FILE)).context("the instance is not ready yet")?;
    serde_json::from_slice(&text).context("understand run/ready.json")
}

/// Only its owner reads it: the setup link makes an owner.
pub fn write(instance: &Instance, ready: &Ready) -> Result<()> {
    Ok(write_secret(&instance.path(FILE), &serde_json::to_vec(ready)?)?)
}

/// The instance is no longer ready, or not yet.
pub fn remove(instance: &Instance) {
    std::fs::remove_file(instance.path(FILE)).ok();
}

/// Names another setup link, or none, where the instance runs.
pub fn set_link(instance: &Instance, link: Option<String>) -> Result<()> {
    match read(instance) {
        Ok(ready) => write(instance, &Ready { setup_url: link, ..ready }),
        Err(_) => Ok(()),
    }
}

/// Waits until the owner account exists, then takes the link out: it opens nothing from then on.
pub async fn drop_used_link(instance: Instance, store: Store, cancel: CancellationToken) {
    // A database that is away for a while may have the account.
    while !matches!(store.identity().setup_needed().await, Ok(false)) {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = cancel.cancelled() => return,
        }
    }
    if let Err(error) = set_link(&instance, None) {
        warn!("the used setup link stays in {FILE}: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::{ExposeSecret, Kek, NewOwner};

    #[tokio::test]
    async fn a_setup_link_is_shown_only_until_it_was_used() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new("a", Some(dir.path().to_owned())).unwrap();
        set_link(&instance, Some("early".into())).unwrap();
        assert!(read(&instance).is_err(), "it does not run");
        instance.prepare().unwrap();
        write(&instance, &Ready::example(dir.path())).unwrap();
        let kek = Kek::load_or_create(&instance.path("kek")).unwrap();
        let store = Store::connect(&format!("sqlite://{}", instance.path("db").display()), kek).await.unwrap();

        let token = store.identity().create_setup_token().await.unwrap();
        set_link(&instance, Some("newer".into())).unwrap();
        let dropping = tokio::spawn(drop_used_link(instance.clone(), store.clone(), CancellationToken::new()));
        sleep(LOOK / 4).await;
        assert_eq!(read(&instance).unwrap().setup_url.as_deref(), Some("newer"));

        let owner = NewOwner {
            email: "ana@example.com".into(),
            display_name: "Ana".into(),
            password_hash: migrations::Secret::from("$argon2id$none".to_owned()),
        };
        store.identity().complete_setup(token.expose_secret(), owner).await.unwrap();
        dropping.await.unwrap();
        assert_eq!(read(&instance).unwrap().setup_url, None);
    }
}
