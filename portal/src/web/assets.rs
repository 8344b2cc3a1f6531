//! Files that never change while the program runs: stylesheet, icons, scripts. Embedded; named by content, so that a
//! browser keeps them for a year and asks again only after an update.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;
use serde::Deserialize;

use crate::error::Error;

#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// The first digits of every file's SHA-256.
static VERSIONS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let hash = |name: &str| Files::get(name).map(|file| hex(&file.metadata.sha256_hash()[..8])).unwrap_or_default();
    Files::iter().map(|name| (name.to_string(), hash(&name))).collect()
});

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The address of a static file, with its version.
pub fn url(name: &str) -> String {
    format!("/static/{name}?v={}", VERSIONS.get(name).map_or("", String::as_str))
}

/// The version a page was rendered with.
#[derive(Deserialize)]
pub struct Version {
    v: Option<String>,
}

/// `GET /static/{name}`: the file, 304 for a browser that has it, 404 for anything else.
pub async fn serve(
    Path(name): Path<String>,
    Query(asked): Query<Version>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let (file, version) = Files::get(&name).zip(VERSIONS.get(&name)).ok_or(Error::NoRoute)?;
    let tag = format!("\"{version}\"");
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let body = if fresh { Body::empty() } else { Body::from(file.data) };
    let keep = if asked.v.as_ref() == Some(version) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = body.into_response();
    *response.status_mut() = if fresh { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let fields = [
        (header::CONTENT_TYPE, kind(&name)),
        (header::CACHE_CONTROL, keep),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response.headers_mut().insert(header::ETAG, HeaderValue::from_str(&tag).map_err(Error::internal)?);
    Ok(response)
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
