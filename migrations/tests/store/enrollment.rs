//! Machines join: with the right token, once, each with a name and a pod range of its own.

use std::collections::HashSet;

use migrations::*;
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::NodeState;

use crate::harness::*;

pub async fn wrong_tokens_are_refused_by_name(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let (token, secret) = tenant.join_token(cluster.id).await;
    let text = secret.expose_secret();
    let bent = format!("{}{}", &text[..text.len() - 1], if text.ends_with('A') { 'B' } else { 'A' });
    let api = text.replace("pilothouse_join_", "pilothouse_");
    for wrong in ["", "nonsense", bent.as_str(), &api, &text[..text.len() - 1]] {
        let refused = store.nodes().enroll(machine(wrong, "m1")).await;
        assert!(matches!(refused, Err(EnrollError::Unknown)), "{wrong}: {refused:?}");
    }
    let late = NewJoinToken { expires_at: hence(-1), ..tenant.new_join_token(cluster.id) };
    let (_, late) = store.join_tokens().create(late).await.unwrap();
    assert!(matches!(tenant.enroll(&late, "m1").await, Err(EnrollError::Expired)));
    store.join_tokens().revoke(org, token.id, tenant.actor).await.unwrap();
    assert!(matches!(tenant.enroll(&secret, "m1").await, Err(EnrollError::Revoked)));
    assert!(store.nodes().list(org, cluster.id).await.unwrap().is_empty(), "no row for a refused machine");
    let (_, secret) = tenant.join_token(cluster.id).await;
    let going = tenant.join_token(cluster.id).await.1;
    let pool = store.pools().list(org, cluster.id).await.unwrap()[0].id;
    store.pools().request_deletion(org, pool, tenant.actor).await.unwrap();
    assert!(matches!(tenant.enroll(&secret, "m1").await, Err(EnrollError::PoolDeleting)));
    store.clusters().request_deletion(org, cluster.id, tenant.actor).await.unwrap();
    assert!(matches!(tenant.enroll(&going, "m1").await, Err(EnrollError::ClusterDeleting)));
}

pub async fn the_same_machine_gets_the_same_node(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let cluster = tenant.cluster("demo").await;
    let (token, secret) = tenant.join_token(cluster.id).await;
    drain(store).await;
    let first = tenant.enroll(&secret, "m1").await.unwrap();
    assert_eq!((first.node.name.as_str(), first.node.state), ("web-01-example-com", NodeState::Joining));
    assert_eq!((first.cluster.id, first.pool.name.as_str()), (cluster.id, "byo"));
    assert_eq!(first.node.facts.os, "Debian 12");
    assert_eq!(first.node.machine_fingerprint.as_deref(), Some("m1"));
    assert!(drain(store).await.iter().any(|work| work.id == first.node.id.uuid()));
    let second = tenant.enroll(&secret, "m1").await.unwrap();
    assert_eq!(second.node.id, first.node.id);
    assert!(matches!(tenant.enroll(&secret, "m2").await, Err(EnrollError::UsedElsewhere)));
    let token = store.join_tokens().get(tenant.organization, token.id).await.unwrap();
    assert_eq!((token.uses, store.nodes().of_cluster(cluster.id).await.unwrap().len()), (1, 1));
    // A token for two machines, and a third.
    let two = NewJoinToken { max_uses: 2, ..tenant.new_join_token(cluster.id) };
    let (_, two) = store.join_tokens().create(two).await.unwrap();
    let (a, b) = (tenant.enroll(&two, "a").await.unwrap(), tenant.enroll(&two, "b").await.unwrap());
    assert!(a.node.id != b.node.id && a.node.name != b.node.name, "the host name is the same, the node names differ");
    assert_eq!(tenant.enroll(&two, "a").await.unwrap().node.id, a.node.id);
    assert!(matches!(tenant.enroll(&two, "c").await, Err(EnrollError::UsedUp)));
}

pub async fn a_removed_machine_stays_removed(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let (_, secret) = tenant.join_token(cluster.id).await;
    let node = tenant.enroll(&secret, "m1").await.unwrap().node;
    assert!(store.nodes().route(cluster.id, node.id).await.unwrap().is_some());
    store.nodes().request_deletion(org, node.id, tenant.actor).await.unwrap();
    assert!(matches!(tenant.enroll(&secret, "m1").await, Err(EnrollError::Removed)));
    assert!(store.nodes().route(cluster.id, node.id).await.unwrap().is_some(), "it can still be told to reset");
    store.nodes().mark_removed(node.id).await.unwrap();
    assert!(store.nodes().load(node.id).await.unwrap().removed);
    assert!(store.nodes().route(cluster.id, node.id).await.unwrap().is_none());
    store.nodes().purge(node.id).await.unwrap();
    assert!(matches!(tenant.enroll(&secret, "m1").await, Err(EnrollError::Removed)));
    let (_, fresh) = tenant.join_token(cluster.id).await;
    assert_ne!(tenant.enroll(&fresh, "m1").await.unwrap().node.id, node.id, "a new token is a new request");
}

pub async fn a_token_for_one_machine_fills_its_row(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let cluster = tenant.cluster("demo").await;
    let pool = tenant.pool(cluster.id, "web").await;
    let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
    let new = NewJoinToken { pool: Some(pool.id), node: Some(node.id), ..tenant.new_join_token(cluster.id) };
    let (token, secret) = store.join_tokens().create(new.clone()).await.unwrap();
    assert_eq!((token.node, token.pool), (Some(node.id), pool.id));
    let enrolled = tenant.enroll(&secret, "m1").await.unwrap().node;
    assert_eq!((enrolled.id, &enrolled.name, enrolled.pod_cidr), (node.id, &node.name, node.pod_cidr));
    assert_eq!((enrolled.state, enrolled.pool), (NodeState::Joining, pool.id));
    let (_, secret) = store.join_tokens().create(new).await.unwrap();
    store.nodes().purge(node.id).await.unwrap();
    assert!(matches!(tenant.enroll(&secret, "m1").await, Err(EnrollError::Removed)));
}

pub async fn machines_at_once_get_names_and_ranges_of_their_own(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let new = NewJoinToken { max_uses: 12, ..tenant.new_join_token(cluster.id) };
    let (_, secret) = fixture.store.join_tokens().create(new).await.unwrap();
    let tasks = (0..12).map(|number| {
        let (store, secret) = (fixture.store.clone(), secret.clone());
        tokio::spawn(async move {
            store.nodes().enroll(machine(secret.expose_secret(), &format!("m{number}"))).await.unwrap().node
        })
    });
    let mut nodes = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        nodes.push(task.await.unwrap());
    }
    let names: HashSet<_> = nodes.iter().map(|node| node.name.clone()).collect();
    let mut ranges: Vec<_> = nodes.iter().map(|node| node.pod_cidr).collect();
    ranges.sort();
    let lowest: Vec<_> = (0..12).map(|third| format!("10.244.{third}.0/24").parse().unwrap()).collect();
    assert_eq!((names.len(), ranges), (12, lowest));
    // A range that came free is the next to be given.
    let gone = nodes.iter().find(|node| node.pod_cidr.to_string() == "10.244.3.0/24").unwrap();
    fixture.store.nodes().purge(gone.id).await.unwrap();
    let (_, secret) = tenant.join_token(cluster.id).await;
    assert_eq!(tenant.enroll(&secret, "next").await.unwrap().node.pod_cidr, gone.pod_cidr);
}

pub async fn a_full_pod_range_is_said_so(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let spec = ClusterSpec::new(Default::default());
    let spec = spec.with_networks("10.1.0.0/23".parse().unwrap(), "10.2.0.0/16".parse().unwrap()).unwrap();
    let cluster = fixture.store.clusters().insert(NewCluster { spec, ..tenant.new_cluster("demo") }).await.unwrap();
    let pool = tenant.pool(cluster.id, "web").await;
    for _ in 0..2 {
        fixture.store.nodes().insert_for_pool(pool.id).await.unwrap();
    }
    let message = is_conflict(fixture.store.nodes().insert_for_pool(pool.id).await);
    assert!(message.contains("pod CIDR of the cluster is exhausted"), "{message}");
    let (token, secret) = tenant.join_token(cluster.id).await;
    assert!(matches!(tenant.enroll(&secret, "m1").await, Err(EnrollError::NoPodRangeLeft)));
    let token = fixture.store.join_tokens().get(tenant.organization, token.id).await.unwrap();
    assert_eq!(token.uses, 0, "the token is not used up by a failure");
}

pub async fn a_cluster_that_lost_too_many_nodes_gets_no_more_for_a_day(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, cluster) = (&fixture.store, tenant.cluster("demo").await);
    let pool = tenant.pool(cluster.id, "web").await;
    let join = async |fingerprint: &str| {
        let (_, secret) = tenant.join_token(cluster.id).await;
        tenant.enroll(&secret, fingerprint).await
    };
    store.nodes().purge(join("one").await.unwrap().node.id).await.unwrap();
    let copied = "INSERT INTO node_tombstones (node, cluster, name, removed_at, until)";
    let more = if fixture.is_sqlite() {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) {copied}
             SELECT randomblob(16), cluster, name || i, removed_at, until FROM node_tombstones, n"
        )
    } else {
        format!(
            "{copied} SELECT gen_random_uuid(), cluster, name || i, removed_at, until FROM node_tombstones, generate_series(2, 4000) i"
        )
    };
    fixture.meddle(&more).await;
    assert_eq!(store.tombstones().recent(cluster.id).await.unwrap().len() as u64, Tombstones::RECENT);
    assert!(matches!(join("two").await, Err(EnrollError::TooManyRemoved)));
    let message = is_conflict(store.nodes().insert_for_pool(pool.id).await);
    assert!(message.contains("within the last 25 hours"), "{message}");
    fixture.meddle(&format!("UPDATE node_tombstones SET removed_at = removed_at - {}", 25 * 3_600_000 + 1)).await;
    assert!(
        store.tombstones().recent(cluster.id).await.unwrap().is_empty(),
        "no certificate of theirs is good any more"
    );
    join("two").await.unwrap();
}

pub async fn links_and_heartbeats(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, nodes) = (&fixture.store, fixture.store.nodes());
    let cluster = tenant.cluster("demo").await;
    let (_, secret) = tenant.join_token(cluster.id).await;
    let node = tenant.enroll(&secret, "m1").await.unwrap().node;
    drain(store).await;
    let gateway = uuid::Uuid::now_v7();
    nodes.set_link(node.id, gateway).await.unwrap();
    assert_eq!(drain(store).await[0].id, node.id.uuid());
    let up = nodes.load(node.id).await.unwrap();
    assert!(up.link_connected && up.last_seen_at >= node.last_seen_at);
    nodes.set_link(node.id, gateway).await.unwrap();
    nodes.record_heartbeat(node.id).await.unwrap();
    assert!(drain(store).await.is_empty(), "heartbeats are no work");
    let facts = NodeInfo { kubelet_version: "v1.36.3".to_owned(), ..up.facts.clone() };
    let report = NodeReport {
        state: NodeState::Ready,
        state_message: "Ready".to_owned(),
        problem: None,
        facts: Some(facts.clone()),
        last_seen_at: None,
    };
    nodes.report(node.id, report.clone()).await.unwrap();
    let ready = nodes.load(node.id).await.unwrap();
    assert_eq!((ready.state, &ready.facts), (NodeState::Ready, &facts));
    assert!(ready.last_seen_at.is_some() && ready.link_connected);
    nodes.report(node.id, NodeReport { facts: None, ..report }).await.unwrap();
    assert_eq!(nodes.load(node.id).await.unwrap(), ready);
    assert!(nodes.clear_link(node.id, Some(gateway)).await.unwrap());
    assert_eq!(drain(store).await[0].id, node.id.uuid());
    assert!(!nodes.load(node.id).await.unwrap().link_connected);
    assert!(!nodes.clear_link(node.id, Some(gateway)).await.unwrap(), "it is down");
    nodes.purge(node.id).await.unwrap();
    nodes.set_link(node.id, gateway).await.unwrap();
    assert!(!nodes.clear_link(node.id, Some(gateway)).await.unwrap());
}

pub async fn a_removed_nodes_name_is_nobodys_for_a_while(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let join = async |fingerprint: &str| {
        let (_, secret) = tenant.join_token(cluster.id).await;
        tenant.enroll(&secret, fingerprint).await.unwrap().node
    };
    let first = join("one").await;
    fixture.store.nodes().purge(first.id).await.unwrap();
    assert_eq!(fixture.store.nodes().removed_names(cluster.id).await.unwrap(), [first.name.to_string()]);
    let second = join("two").await;
    assert_ne!(second.name, first.name, "certificates in the first one's name may still be shown");
    assert!(second.name.as_str().starts_with(first.name.as_str()));
    fixture.store.nodes().purge(second.id).await.unwrap();
    fixture.store.clusters().purge(cluster.id).await.unwrap();
    assert_eq!(fixture.store.nodes().removed_names(cluster.id).await.unwrap(), Vec::<String>::new());
}

pub async fn a_removal_is_in_writing_longer_than_everything_else(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let cluster = tenant.cluster("demo").await;
    let pki = pki(&cluster);
    store.pki().put_new(cluster.id, &pki).await.unwrap();
    let join = async |fingerprint: &str| {
        let (_, secret) = tenant.join_token(cluster.id).await;
        tenant.enroll(&secret, fingerprint).await.unwrap().node
    };
    let (told, reset) = (join("told").await, join("reset").await);
    let (purged, last) = (join("purged").await, join("last").await);
    for node in [&told, &reset, &purged, &last] {
        assert_eq!(store.tombstones().get(node.id).await.unwrap(), None);
    }
    let mut changes = store.changes();
    let fence = tenant.cluster("fence").await;
    while soon(changes.recv()).await.unwrap().cluster != Some(fence.id) {}
    store.tombstones().write(told.id).await.unwrap();
    // Other news of the fence may still be on their way.
    let is_its = |change: &Change| (change.kind, change.id) == (ChangeKind::Node, told.id.uuid());
    while !is_its(&soon(changes.recv()).await.unwrap()) {}
    assert_eq!(store.tombstones().recent(cluster.id).await.unwrap(), [told.name.to_string()].into());
    store.nodes().mark_removed(reset.id).await.unwrap();
    store.nodes().purge(purged.id).await.unwrap();
    let first = store.tombstones().get(told.id).await.unwrap().unwrap();
    assert_eq!((first.node, first.cluster, first.name.as_str()), (told.id, cluster.id, told.name.as_str()));
    let unrefused = async || store.tombstones().unrefused(cluster.id).await.unwrap();
    assert!(unrefused().await.contains(&first));
    store.tombstones().mark_refused(told.id).await.unwrap();
    while !is_its(&soon(changes.recv()).await.unwrap()) {}
    let first = store.tombstones().get(told.id).await.unwrap().unwrap();
    assert!(first.refused_at.is_some() && !unrefused().await.contains(&first));
    assert_eq!(store.tombstones().refused_since(hence(-60)).await.unwrap(), [(cluster.id, told.id)].into());
    assert!(store.tombstones().refused_since(hence(60)).await.unwrap().is_empty());
    store.tombstones().mark_refused(told.id).await.unwrap();
    store.tombstones().write(told.id).await.unwrap();
    store.nodes().purge(told.id).await.unwrap();
    assert_eq!(store.tombstones().get(told.id).await.unwrap(), Some(first), "twice is once");
    let nobody = tenant_controlplane::id::NodeId::from_uuid(cluster.id.uuid());
    assert_eq!(is_missing(store.tombstones().write(nobody).await), "node");
    let label = cluster.id.suffix();
    assert_eq!(store.tombstones().cluster(&label).await.unwrap(), None, "it is there itself");
    store.clusters().purge(cluster.id).await.unwrap();
    let left = store.tombstones().cluster(&label).await.unwrap().unwrap();
    assert_eq!((left.cluster, left.link_trust_pem), (cluster.id, pki.link.trust_pem()));
    for node in [&told, &reset, &purged, &last] {
        assert!(store.tombstones().get(node.id).await.unwrap().is_some(), "they outlive the cluster");
    }
    let days = |days: i64| hence(days * 86_400);
    store.delete_expired(days(31)).await.unwrap();
    assert!(store.tombstones().get(last.id).await.unwrap().is_some(), "as long as any certificate");
    store.delete_expired(days(46)).await.unwrap();
    assert_eq!(store.tombstones().get(last.id).await.unwrap(), None);
    assert_eq!(store.tombstones().cluster(&label).await.unwrap(), None);
}

pub async fn a_configuration_is_exchanged_only_against_the_one_seen(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let nodes = fixture.store.nodes();
    let cluster = tenant.cluster("demo").await;
    let (_, secret) = tenant.join_token(cluster.id).await;
    let node = tenant.enroll(&secret, "m1").await.unwrap().node;
    assert_eq!(node.config, ConfigVersion::default());
    assert!(nodes.set_config(node.id, (0, 1), "a").await.unwrap());
    assert!(!nodes.set_config(node.id, (0, 1), "b").await.unwrap(), "somebody was there first");
    assert!(nodes.set_config(node.id, (1, 9), "b").await.unwrap());
    let row = nodes.load(node.id).await.unwrap();
    assert_eq!(row.config, ConfigVersion { generation: 9, digest: "b".to_owned() });
    assert_eq!(row.updated_at, node.updated_at, "it is no news of the node");
    nodes.order_registration(node.id).await.unwrap();
    let row = nodes.load(node.id).await.unwrap();
    assert_eq!((row.registration.number, row.config.generation), (1, 9));
    assert!(row.registration.ordered_at.is_some());
}

pub async fn what_stands_is_told_at_once(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let nodes = fixture.store.nodes();
    let cluster = tenant.cluster("demo").await;
    let join = async |fingerprint: &str| {
        let (_, secret) = tenant.join_token(cluster.id).await;
        tenant.enroll(&secret, fingerprint).await.unwrap().node.id
    };
    let (stays, removed, gone) = (join("a").await, join("b").await, join("c").await);
    nodes.mark_removed(removed).await.unwrap();
    nodes.purge(gone).await.unwrap();
    let standing = nodes.standing().await.unwrap();
    assert_eq!((standing.clusters, standing.nodes), ([cluster.id].into(), [stays].into()));
}
