//! `/metrics` for Prometheus on a loopback port of its own (`up --metrics`): what the gateway counts, what waits for a reconcile, and
//! what the process counts itself.

use anyhow::Result;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use gateway::{Gateway, Kind, Refused, Snapshot};
use migrations::{Backlog, Store};
use telemetry::metrics::Exposition;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers scrapes until `cancel`.
pub async fn serve(listener: TcpListener, store: Store, gateway: Gateway, cancel: CancellationToken) -> Result<()> {
    let app = Router::new().route("/metrics", get(move || scrape(store.clone(), gateway.clone())));
    Ok(axum::serve(listener, app).with_graceful_shutdown(cancel.cancelled_owned()).await?)
}

async fn scrape(store: Store, gateway: Gateway) -> Response {
    match store.work().backlog().await {
        Ok(backlog) => ([(CONTENT_TYPE, FORMAT)], text(&gateway.counters(), &backlog)).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response(),
    }
}

fn text(connections: &Snapshot, backlog: &[Backlog]) -> String {
    let mut text = Exposition::of_process();
    write_connections(&mut text, connections);
    write_backlog(&mut text, backlog, OffsetDateTime::now_utc());
    text.into_text()
}

fn write_connections(text: &mut Exposition, connections: &Snapshot) {
    let opened = "pilothouse_gateway_connections_opened_total";
    text.head(opened, "counter", "Connections and streams that the gateway opened.");
    Kind::ALL.iter().for_each(|kind| text.sample(opened, &[("kind", kind.name())], connections.opened(*kind)));
    let open = "pilothouse_gateway_connections";
    text.head(open, "gauge", "Connections and streams that are open at the gateway.");
    Kind::ALL.iter().for_each(|kind| text.sample(open, &[("kind", kind.name())], connections.live(*kind)));
    let refused = "pilothouse_gateway_connections_refused_total";
    text.head(refused, "counter", "Connections and streams that the gateway refused.");
    Refused::ALL.iter().for_each(|why| text.sample(refused, &[("reason", why.name())], connections.refused(*why)));
}

fn write_backlog(text: &mut Exposition, backlog: &[Backlog], now: OffsetDateTime) {
    text.head("pilothouse_work_due", "gauge", "What is due for a reconcile and held by nobody.");
    for one in backlog {
        text.sample("pilothouse_work_due", &[("kind", &one.kind.to_string())], one.due);
    }
    text.head("pilothouse_work_oldest_due_seconds", "gauge", "How long the oldest of it has been due.");
    for one in backlog {
        let age = one.oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64().max(0.0));
        text.sample("pilothouse_work_oldest_due_seconds", &[("kind", &one.kind.to_string())], age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::testing::World;
    use migrations::WorkKind;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_scrape_reads_the_gateway_and_the_backlog() {
        let world = World::new().await;
        // The cluster of this world is due too.
        world.store.work().due(WorkKind::Node, Uuid::now_v7()).await.unwrap();
        let (listener, cancel) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let served = tokio::spawn(serve(listener, world.store.clone(), world.gateway.clone(), cancel.clone()));
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], FORMAT);
        let text = answer.text().await.unwrap();
        for line in [
            "pilothouse_work_due{kind=\"cluster\"} 1",
            "pilothouse_work_due{kind=\"node\"} 1",
            "pilothouse_work_due{kind=\"node_pool\"} 0",
            "pilothouse_work_oldest_due_seconds{kind=\"node_pool\"} 0",
            "pilothouse_gateway_connections{kind=\"link\"} 0",
            "pilothouse_gateway_connections_refused_total{reason=\"handshake\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        cancel.cancel();
        served.await.unwrap().unwrap();
    }
}
