//! A span for each request, and its count; by the semantic conventions of HTTP servers.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use telemetry::TARGET;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// Around everything else. A valid `traceparent` of the client is followed, else the request begins a trace.
pub async fn trace_request(request: Request, next: Next) -> Response {
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = span(method, route.as_deref());
    let sent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    telemetry::accept(&span, sent);
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    record_status(&span, status);
    telemetry::metrics::count_request(method, route.as_deref().unwrap_or_default(), status);
    response
}

fn span(method: &'static str, route: Option<&str>) -> Span {
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    tracing::info_span!(
        target: TARGET,
        "HTTP request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    )
}

/// A method as the conventions want it: a word of the client's own is not written down.
fn method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or("_OTHER")
}

fn record_status(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}
