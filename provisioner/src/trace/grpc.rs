//! A span for each call of an agent. What an agent says of traces is not heard: its machine is its user's.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use node_protocol::{enrollment_server, node_link_server};
use telemetry::TARGET;
use tower::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// Every method of ours; a caller's own words are not written down.
const METHODS: [(&str, &str); 5] = [
    (enrollment_server::SERVICE_NAME, "Enroll"),
    (node_link_server::SERVICE_NAME, "Watch"),
    (node_link_server::SERVICE_NAME, "Report"),
    (node_link_server::SERVICE_NAME, "Fetch"),
    (node_link_server::SERVICE_NAME, "Renew"),
];

/// A gRPC service whose calls are followed.
#[derive(Clone)]
pub(crate) struct GrpcTrace<S>(pub S);

impl<S, B, A> Service<Request<B>> for GrpcTrace<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = span(request.uri().path());
        let answer = self.0.call(request).instrument(span.clone());
        answer.inspect(move |answer| record_status(&span, answer.as_ref().ok())).boxed()
    }
}

fn span(path: &str) -> Span {
    let (service, method) = known(path);
    tracing::info_span!(
        target: TARGET,
        "gRPC call",
        otel.name = format!("{service}/{method}"),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
    )
}

fn known(path: &str) -> (&'static str, &'static str) {
    let asked = path.trim_start_matches('/').split_once('/');
    let found = METHODS.into_iter().find(|(service, method)| asked == Some((*service, *method)));
    found.unwrap_or(("_OTHER", "_OTHER"))
}

/// A refusal stands in the head of the answer; what goes wrong in a stream later is not seen here.
fn record_status<A>(span: &Span, answer: Option<&Response<A>>) {
    let code = answer.and_then(|answer| answer.headers().get("grpc-status")?.to_str().ok()?.parse::<u32>().ok());
    let code = code.unwrap_or_default();
    span.record("rpc.grpc.status_code", code);
    // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: faults of the server's.
    if [2, 4, 12, 13, 14, 15].contains(&code) {
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_of_ours_are_named() {
        let watch = (node_link_server::SERVICE_NAME, "Watch");
        assert_eq!(known("/pilothouse.agent.v1.NodeLink/Watch"), watch);
        for other in ["", "/", "/pilothouse.agent.v1.NodeLink/Other", "//pilothouse.agent.v1.NodeLink/Watch/x"] {
            assert_eq!(known(other), ("_OTHER", "_OTHER"), "{other}");
        }
    }
}
