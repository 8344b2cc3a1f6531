//! The instance's own network namespace and the wire into it. Nothing here touches the machine's own firewall or routes
//! beyond two routes that lead into the wire.

use std::path::Path;

use crate::error::{DuringStep, Result};
use node_linux::tool::{run, succeeds};

use crate::site::Site;

/// The name of the host's end of the wire, inside the namespace.
pub const UPLINK: &str = "uplink";

/// Makes the namespace and the wire, or completes what it finds of them. Runs any number of times, also after one that was killed.
pub async fn ensure(site: &Site) -> Result<()> {
    ensure_namespace(&site.netns()).await?;
    connect(site).await.during("wire the host's network namespace")?;
    for range in [site.addresses.pods(), site.addresses.services()] {
        let via = site.addresses.inside().to_string();
        run(&["ip", "route", "replace", &range.to_string(), "via", &via]).await?;
    }
    Ok(())
}

/// Pins a new network namespace to a file, unless a living one is pinned there.
async fn ensure_namespace(file: &Path) -> Result<()> {
    let name = file.to_string_lossy().into_owned();
    if succeeds(&["nsenter", &format!("--net={name}"), "true"]).await {
        return Ok(());
    }
    let parent = file.parent().during("the namespace's file has a directory")?;
    std::fs::create_dir_all(parent)?;
    std::fs::write(file, "")?;
    run(&["unshare", &format!("--net={name}"), "true"]).await.during("make a network namespace; are you root?")?;
    Ok(())
}

async fn connect(site: &Site) -> Result<()> {
    let netns = site.netns().to_string_lossy().into_owned();
    let wire = site.addresses.wire();
    let outside = format!("{}/30", site.addresses.outside());
    let inside = format!("{}/30", site.addresses.inside());
    if inside_namespace(site, &["ip", "link", "show", UPLINK]).await.is_err() {
        // One that leads into a namespace that is lost.
        run(&["ip", "link", "delete", &wire]).await.ok();
        run(&["ip", "link", "add", &wire, "type", "veth", "peer", "name", UPLINK, "netns", &netns]).await?;
    }
    run(&["ip", "address", "replace", &outside, "dev", &wire]).await?;
    run(&["ip", "link", "set", &wire, "up"]).await?;
    for order in [
        vec!["ip", "link", "set", "lo", "up"],
        vec!["ip", "address", "replace", &inside, "dev", UPLINK],
        vec!["ip", "link", "set", UPLINK, "up"],
        vec!["ip", "route", "replace", "default", "via", &site.addresses.outside().to_string()],
        vec!["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
    ] {
        inside_namespace(site, &order).await?;
    }
    Ok(())
}

/// Runs a tool inside the instance's network namespace.
pub async fn inside_namespace(site: &Site, argv: &[&str]) -> Result<String> {
    let enter = format!("--net={}", site.netns().display());
    let mut all = vec!["nsenter", enter.as_str(), "--"];
    all.extend(argv);
    Ok(run(&all).await?)
}

/// Takes the wire and the namespace away. Routes go with the wire.
pub async fn remove(site: &Site) {
    run(&["ip", "link", "delete", &site.addresses.wire()]).await.ok();
    let netns = site.netns();
    run(&["umount", "--lazy", &netns.to_string_lossy()]).await.ok();
    std::fs::remove_file(&netns).ok();
    std::fs::remove_dir(site.run_dir()).ok();
}
