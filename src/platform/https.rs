//! What only answers over TLS say.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::STRICT_TRANSPORT_SECURITY;
use axum::middleware::map_response;
use axum::response::Response;

/// A year, in seconds. Not for subdomains: those are API servers, whose certificates are for clients that were given their authority.
const ONE_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The portal as it answers over TLS: a browser that was here once comes back over TLS only (RFC 6797). On the loopback port, which is
/// plain, the header would have no meaning (RFC 6797, 7.2).
pub fn strict(app: Router) -> Router {
    app.layer(map_response(|mut response: Response| async move {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, ONE_YEAR);
        response
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn every_answer_over_tls_says_to_stay_there() {
        let app = strict(Router::new().route("/", get(|| async { "here" })));
        for path in ["/", "/nothing"] {
            let answer = app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.headers()[STRICT_TRANSPORT_SECURITY], "max-age=31536000", "{path}");
        }
    }
}
