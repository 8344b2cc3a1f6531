//! Requests that change things must not come from another site.
//!
//! tower-http's layer looks at `Sec-Fetch-Site` and `Origin` (as Go 1.25 does), so forms need no token. Its rejection
//! is rendered by [`crate::error_response`].

use tower_http::csrf::CsrfLayer;

/// The layer; the public address counts as the same site, also behind a proxy that rewrites `Host`.
pub fn layer(public_url: &str) -> CsrfLayer {
    CsrfLayer::new().add_trusted_origin(public_url).unwrap_or_else(|error| {
        tracing::warn!(%error, "the public address is no origin; only requests from the same host are accepted");
        CsrfLayer::new()
    })
}
