//! Operations and waiting for them.

use crate::world::{Things, World};
use axum::body::Body;
use axum::http::Request;
use migrations::{Outcome, Role, StepState, StepUpdate};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tenant_controlplane::id::OperationId;

/// What the provisioner does to an operation, after a moment in which the request is already waiting.
async fn end(world: &World, operation: &str, outcome: Outcome) {
    let (operation, operations): (OperationId, _) = (operation.parse().unwrap(), world.store.operations());
    tokio::time::sleep(Duration::from_millis(150)).await;
    let update = StepUpdate { key: "etcd", title: "Start etcd", state: StepState::Done, message: "" };
    operations.step(operation, update).await.unwrap();
    operations.finish(operation, outcome).await.unwrap();
}

#[tokio::test]
async fn a_wait_ends_with_the_operation_or_with_the_time() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/operations/{op}?wait=1");
    let started = Instant::now();
    let answer = world.get(&path, &token).await.json();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_ne!(answer["state"], "succeeded");
    let started = Instant::now();
    let path = things.path("/operations/{op}?wait=60");
    let (answer, ()) = tokio::join!(world.get(&path, &token), end(&world, &things.ids["op"], Outcome::Succeeded));
    assert!(started.elapsed() < Duration::from_secs(10));
    let answer = answer.json();
    assert_eq!((answer["state"].as_str(), answer["percent"].as_u64()), (Some("succeeded"), Some(100)));
    assert_eq!(answer["steps"][0]["title"], "Start etcd");
}

#[tokio::test]
async fn create_can_wait_too() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let clusters = things.path("/projects/{prj}/clusters");
    let begun = world.call("POST", &clusters, &token, json!({"name": "one"})).await;
    assert_eq!(begun.status.as_u16(), 202);
    let operation = begun.json()["operation_id"].as_str().unwrap().to_owned();
    assert_eq!(begun.header("location"), format!("/api/v1/operations/{operation}"));
    assert_eq!((begun.json()["state"].as_str(), begun.header("etag").is_empty()), (Some("pending"), false));
    let request = Request::post(format!("/api/v1{clusters}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("prefer", "wait=1")
        .body(Body::from(json!({"name": "two"}).to_string()));
    let answer = world.send(request.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (202, "wait=1"));
}

#[tokio::test]
async fn delete_waited_for_ends_with_nothing() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let token = world.token(&things.ana, &things.organization, Role::Owner).await;
    let path = things.path("/clusters/{cls}?wait=30");
    let purged = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let row = world.store.clusters().load(things.cluster).await.unwrap();
            if row.deletion_requested_at.is_some() {
                return world.store.clusters().purge(things.cluster).await.unwrap();
            }
        }
    };
    let (answer, ()) = tokio::join!(world.call("DELETE", &path, &token, Value::Null), purged);
    assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
    assert_eq!(world.get(&things.path("/clusters/{cls}"), &token).await.code(), "NOT_FOUND");
    let target = things.path("/operations?target={cls}");
    let operations = world.get(&target, &token).await.json();
    assert_eq!((operations["items"][0]["kind"].as_str()), Some("cluster.delete"));
    assert_eq!((operations["items"][0]["state"].as_str()), Some("succeeded"));
}
