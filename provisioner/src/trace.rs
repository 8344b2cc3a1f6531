//! Spans of the provisioner: a reconcile, what it calls outside, and what agents call.

mod grpc;
mod provider;

use migrations::Work;
use telemetry::TARGET;
use tracing::field::Empty;
use tracing::{Instrument, Span};

pub(crate) use grpc::GrpcTrace;
pub(crate) use provider::traced;

/// The span of a reconcile: a child of the request that made it due.
pub(crate) fn reconcile(work: &Work) -> Span {
    let (kind, id) = (work.kind, work.id);
    let span = tracing::info_span!(
        target: TARGET,
        "reconcile",
        otel.name = format!("reconcile {kind}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        pilothouse.kind = %kind,
        pilothouse.id = %id,
        pilothouse.outcome = Empty,
    );
    telemetry::continue_from(&span, work.traceparent.as_deref());
    span
}

/// Notes how a span of [`reconcile`] ended.
pub(crate) fn record_outcome(span: &Span, outcome: &'static str, failed: bool) {
    span.record("pilothouse.outcome", outcome);
    if failed {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of a call to somebody else: `kubernetes`, or the kind of a provider. Only within a reconcile: what watches and probes
/// call by the clock is no operation of anybody's.
fn outward(system: &str, service: &str, method: &str) -> Span {
    if !telemetry::is_traced() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        "call",
        otel.name = format!("{system}.{service}/{method}"),
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = system,
        rpc.service = service,
        rpc.method = method,
    )
}

/// Follows a call to somebody else, of which the verb and the kind are written down and nothing more: a tenant names its objects.
pub(crate) async fn call<T, E>(
    (system, service, method): (&str, &str, &str),
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let span = outward(system, service, method);
    let answer = call.instrument(span.clone()).await;
    if answer.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    answer
}
