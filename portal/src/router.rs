//! The whole table of routes, and the layers around it.
//!
//! From the outside in: the trace, the error response (request id, log line, shape of errors), panics, time, size, same-site, the audit log of
//! refusals; then for REST the guard (credentials, limits, trying out, sending twice), and for pages their admission
//! (session, limits); then the routes.

use crate::api::middleware::{Rules, check_request};
use crate::auth::csrf;
use crate::error_response::render_error;
use crate::state::AppState;
use crate::{api, audit, install, trace, web};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use std::any::Any;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

const LARGEST_BODY: usize = 1024 * 1024;
/// More than the longest wait, so that only what hangs is cut off.
const LONGEST_REQUEST: Duration = Duration::from_secs(90);

/// Everything the portal serves.
pub fn build(state: AppState) -> Router {
    let (rest, document) = api::routes().split_for_parts();
    let rules = Rules::new(state.clone(), &document);
    let rest = rest.route_layer(from_fn_with_state(rules, check_request));
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let served = move || async move { ([(CONTENT_TYPE, "application/json")], document) };
    let routes = rest
        .route(&format!("{}/openapi.json", api::ROOT), get(served))
        .merge(install::routes())
        .merge(web::routes(&state));
    let routes = routes.layer(from_fn_with_state(state.clone(), audit::refusals));
    around(routes, &state.config().public_url, LONGEST_REQUEST).with_state(state)
}

/// The layers around any table of routes; a request that takes longer than `longest` is cut off.
fn around<S: Clone + Send + Sync + 'static>(routes: Router<S>, public_url: &str, longest: Duration) -> Router<S> {
    routes
        .layer(csrf::layer(public_url))
        .layer(RequestBodyLimitLayer::new(LARGEST_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, longest))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(render_error))
        .layer(from_fn(trace::trace_request))
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    api::routes().into_openapi()
}

/// A panic is a fault of ours: logged here, and shaped like every other error outside.
fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("unknown"), "handler panicked");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use axum::routing::post;
    use tower::ServiceExt;

    async fn asked(request: Request<Body>) -> (StatusCode, String, serde_json::Value) {
        let routes = Router::new()
            .route(
                "/api/panic",
                get(|| async {
                    if true {
                        panic!("on purpose")
                    }
                }),
            )
            .route("/api/slow", get(std::future::pending::<()>))
            .route("/api/body", post(|body: String| async { body }));
        let app = around(routes, "https://portal.test", Duration::from_millis(50));
        let response = app.oneshot(request).await.unwrap();
        let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, kind.unwrap_or_default(), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn what_the_layers_refuse_is_a_problem_too() {
        let big = Body::from(vec![b'x'; LARGEST_BODY + 1]);
        let chunks = futures::stream::iter((0..2).map(|_| Ok::<_, std::io::Error>(vec![b'x'; LARGEST_BODY])));
        let cross = Request::post("/api/body").header("sec-fetch-site", "cross-site");
        let table = [
            (Request::get("/api/panic").body(Body::empty()), 500, "INTERNAL"),
            (Request::get("/api/slow").body(Body::empty()), 504, "TIMEOUT"),
            (Request::post("/api/body").header("content-length", LARGEST_BODY + 1).body(big), 413, "BODY_TOO_LARGE"),
            (Request::post("/api/body").body(Body::from_stream(chunks)), 413, "BODY_TOO_LARGE"),
            (cross.body(Body::empty()), 403, "CROSS_SITE_REQUEST"),
            (Request::get("/api/nothing").body(Body::empty()), 404, "ROUTE_NOT_FOUND"),
            (Request::delete("/api/body").body(Body::empty()), 405, "METHOD_NOT_ALLOWED"),
        ];
        for (request, status, code) in table {
            let (got, kind, problem) = asked(request.unwrap()).await;
            assert_eq!((got.as_u16(), kind.as_str()), (status, "application/problem+json"), "{code}");
            assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(u64::from(status))));
            assert!(problem["request_id"].as_str().unwrap().starts_with("req_"));
        }
    }
}
