//! What wraps things: the list envelope and the links of an item.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a collection. There are no top-level arrays, so that fields can be added later.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items of this page, oldest first; at most `limit` of them.
    pub items: Vec<T>,
    /// Pass as `cursor` to get the next page; null on the last page. Opaque.
    pub next_cursor: Option<String>,
}

/// Addresses of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Links {
    /// The REST URL of this resource.
    #[serde(rename = "self")]
    pub this: String,
    /// Its page in the portal, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portal: Option<String>,
}
