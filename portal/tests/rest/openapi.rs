//! The document: a change of the API shows as a change of the snapshot.

use crate::world::World;

#[test]
fn the_document_is_as_agreed() {
    let document = serde_json::to_string_pretty(&portal::openapi()).unwrap();
    insta::assert_snapshot!("openapi", document);
}

#[tokio::test]
async fn it_is_served_complete() {
    let world = World::new().await;
    let served = world.get("/openapi.json", "").await.json();
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served, serde_json::to_value(portal::openapi()).unwrap());
    let text = served.to_string();
    for (start, _) in text.match_indices("\"#/components/") {
        let end = start + 1 + text[start + 1..].find('"').unwrap();
        let pointer = text[start + 2..end].to_owned();
        assert!(served.pointer(&pointer).is_some(), "nothing at {pointer}");
    }
}
