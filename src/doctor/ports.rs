//! The two ports: answered where the instance runs, free where it does not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use node_linux::surroundings::is_taken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Check;
use crate::instance::Record;
use crate::up::{GATEWAY, PORTAL};

/// A local answer that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks about the gateway's and the portal's port of an instance, or about those that a first `up` would take.
pub async fn ports(record: Option<&Record>, running: bool) -> Check {
    match record {
        Some(record) if running => answered(record).await,
        Some(record) => free(record.listen, record.portal, true),
        None => free(GATEWAY, PORTAL, false),
    }
}

async fn answered(record: &Record) -> Check {
    let log = "see `pilothouse logs`; start it again: pilothouse down, then pilothouse up";
    if !timeout(PATIENCE, speaks_http(record.portal)).await.unwrap_or(false) {
        return Check::fail("ports", format!("nobody answers at the portal's {}", record.portal), log);
    }
    let gateway = match record.listen.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), record.listen.port()),
        _ => record.listen,
    };
    match timeout(PATIENCE, TcpStream::connect(gateway)).await {
        Ok(Ok(_)) => Check::pass("ports", format!("portal {} and gateway {} answer", record.portal, record.listen)),
        _ => Check::fail("ports", format!("nobody answers at the gateway's {}", record.listen), log),
    }
}

/// A connection may be taken by the kernel for a process that hangs: only an answer counts.
async fn speaks_http(portal: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(portal).await else { return false };
    let asked = stream.write_all(b"GET /signin HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    let mut begin = [0; 5];
    asked.is_ok() && stream.read_exact(&mut begin).await.is_ok() && &begin == b"HTTP/"
}

/// `kept`: kubeconfigs carry the gateway's port, so it cannot give way to another one.
fn free(gateway: SocketAddr, portal: SocketAddr, kept: bool) -> Check {
    match (is_taken(gateway), is_taken(portal)) {
        (true, _) if kept => Check::fail(
            "ports",
            format!("another process has the gateway's {gateway}, which kubeconfigs carry"),
            format!(
                "end it (ss -ltnp 'sport = :{}' names it), or choose another: pilothouse up --listen",
                gateway.port()
            ),
        ),
        (false, false) => Check::pass("ports", format!("{gateway} and {portal} are free")),
        (held, _) => {
            let port = if held { gateway } else { portal };
            Check::warn("ports", format!("{port} is taken"), "nothing to do: `up` takes a free port instead")
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn a_port_that_others_hold_counts_by_what_depends_on_it() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let held = (held.local_addr().unwrap(), held);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        assert_eq!(free(any, any, true).status, Verdict::Pass);
        assert_eq!(free(held.0, any, true).status, Verdict::Fail);
        assert_eq!(free(held.0, any, false).status, Verdict::Warn);
        assert_eq!(free(any, held.0, true).status, Verdict::Warn);
    }

    #[tokio::test]
    async fn a_process_that_hangs_is_no_portal() {
        let hung = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let portal = hung.local_addr().unwrap();
        assert!(!timeout(Duration::from_millis(50), speaks_http(portal)).await.unwrap_or(false));
        let (answer, ()) = tokio::join!(speaks_http(portal), async {
            // The first visitor is still in the queue.
            for _ in 0..2 {
                let (mut stream, _) = hung.accept().await.unwrap();
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.ok();
            }
        });
        assert!(answer);
    }
}
