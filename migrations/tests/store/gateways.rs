//! Gateways on one database: where each node's link is, and what becomes of the links of one that ended.

use std::net::SocketAddr;
use std::time::Duration;

use migrations::*;
use uuid::Uuid;

use crate::harness::*;

const MINUTE: Duration = Duration::from_secs(60);

fn gateway(instance: Uuid, port: u16) -> GatewayInfo {
    GatewayInfo { id: Uuid::now_v7(), instance, address: SocketAddr::from(([192, 0, 2, 1], port)) }
}

pub async fn a_link_is_where_it_last_came_up(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, cluster) = (&fixture.store, tenant.cluster("demo").await);
    let (_, secret) = tenant.join_token(cluster.id).await;
    let node = tenant.enroll(&secret, "m1").await.unwrap().node;
    let (one, two) = (gateway(Uuid::now_v7(), 1), gateway(Uuid::now_v7(), 2));
    for gateway in [one, two] {
        store.gateways().start(&gateway, MINUTE).await.unwrap();
    }
    store.nodes().set_link(node.id, one.id).await.unwrap();
    store.nodes().set_link(node.id, two.id).await.unwrap();
    assert!(!store.nodes().clear_link(node.id, Some(one.id)).await.unwrap(), "the newer link is at the other");
    assert!(store.nodes().load(node.id).await.unwrap().link_connected);
    let (pod_cidr, name) = (node.pod_cidr, node.name);
    let there = LinkedNode { name, pod_cidr, gateway: two.id, address: two.address };
    assert_eq!(store.gateways().links_elsewhere(cluster.id, one.id).await.unwrap(), [there]);
    assert_eq!(store.gateways().links_elsewhere(cluster.id, two.id).await.unwrap(), []);
    assert_eq!(store.gateways().links(two.id).await.unwrap(), [(cluster.id, node.id)]);
    assert_eq!(store.gateways().links(one.id).await.unwrap(), []);
    assert_eq!(store.nodes().link_gateway(node.id).await.unwrap(), Some(two.id));
}

pub async fn links_of_a_gateway_that_ended_are_down(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, cluster) = (&fixture.store, tenant.cluster("demo").await);
    let linked = async |machine: &str, gateway: Uuid| {
        let (_, secret) = tenant.join_token(cluster.id).await;
        let node = tenant.enroll(&secret, machine).await.unwrap().node.id;
        store.nodes().set_link(node, gateway).await.unwrap();
        node
    };
    let is_linked = async |node| store.nodes().load(node).await.unwrap().link_connected;
    let (one, two) = (gateway(Uuid::now_v7(), 1), gateway(Uuid::now_v7(), 2));
    store.gateways().start(&one, MINUTE).await.unwrap();
    let first = linked("m1", one.id).await;
    // Another instance's gateway changes nothing of it.
    store.gateways().start(&two, MINUTE).await.unwrap();
    let second = linked("m2", two.id).await;
    assert!(is_linked(first).await && is_linked(second).await);
    // The next process of the same instance, after one that was killed.
    let next = gateway(one.instance, 1);
    drain(store).await;
    store.gateways().start(&next, MINUTE).await.unwrap();
    assert_eq!(store.gateways().sweep().await.unwrap(), 1);
    assert!(!is_linked(first).await && is_linked(second).await);
    assert_eq!(drain(store).await[0].id, first.uuid(), "its node is looked at");
    assert!(!store.gateways().renew(one.id, MINUTE).await.unwrap(), "it has ended");
    // A lease that ended, found by whoever is alive.
    assert!(store.gateways().renew(two.id, Duration::ZERO).await.unwrap());
    assert_eq!(store.gateways().sweep().await.unwrap(), 1);
    assert_eq!(store.gateways().sweep().await.unwrap(), 0);
    assert!(!is_linked(second).await);
    store.nodes().set_link(second, next.id).await.unwrap();
    store.gateways().stop(next.id).await.unwrap();
    assert!(!is_linked(second).await);
}
