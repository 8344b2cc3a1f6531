//! How something is deleted.

/// How something is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deletion<'a> {
    /// The etag that the caller read, where it named one.
    pub if_match: Option<&'a str>,
    /// Whether nothing is waited for that may never come.
    pub force: bool,
}
