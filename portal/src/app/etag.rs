//! Entity tags of rows (RFC 9110, section 8.8.3): what `If-Match` is compared with.
//!
//! A tag names a row and the version of what people may change in it. What is observed changes no tag.

use std::fmt::Display;

use migrations::{Cluster, Node, NodePool, Organization, Project};
use uuid::Uuid;

/// What has an entity tag.
pub trait Etag {
    /// Its entity tag.
    fn etag(&self) -> String;
}

impl Etag for Cluster {
    fn etag(&self) -> String {
        version(self.id.uuid(), self.generation)
    }
}

impl Etag for NodePool {
    fn etag(&self) -> String {
        version(self.id.uuid(), self.generation)
    }
}

/// All that people change of a node is that it is to go.
impl Etag for Node {
    fn etag(&self) -> String {
        version(self.id.uuid(), if self.deletion_requested_at.is_some() { 2 } else { 1 })
    }
}

impl Etag for Organization {
    fn etag(&self) -> String {
        fixed(self.id)
    }
}

impl Etag for Project {
    fn etag(&self) -> String {
        fixed(self.id)
    }
}

fn version(id: Uuid, generation: i64) -> String {
    format!("{}.{generation}", id.simple())
}

/// Of what never changes.
fn fixed(id: impl Display) -> String {
    format!("\"{id}.1\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_id_and_the_generation() {
        let id = Uuid::from_u128(7);
        assert_eq!(version(id, 3), format!("{:032x}.3", 7));
        assert_ne!(version(id, 3), version(id, 4));
        assert_ne!(version(id, 3), version(Uuid::from_u128(8), 3));
        assert_eq!(fixed("org_1"), "\"org_1.1\"");
    }
}
