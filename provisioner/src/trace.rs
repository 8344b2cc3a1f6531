//! Spans of the provisioner: a reconcile, what it calls outside, and what agents call.

mod grpc;
mod provider;

use std::time::Instant;

use migrations::{Work, WorkKind};
use telemetry::TARGET;
use tenant_controlplane::id::NodeId;
use tracing::field::Empty;
use tracing::{Instrument, Span};

pub(crate) use grpc::GrpcTrace;
pub(crate) use provider::traced;

/// A reconcile as it is told of: its span, and how long it takes.
pub(crate) struct Run {
    span: Span,
    kind: WorkKind,
    begun: Instant,
}

impl Run {
    /// Begins with a reconcile.
    pub(crate) fn start(work: &Work) -> Self {
        Self { span: reconcile(work), kind: work.kind, begun: Instant::now() }
    }

    /// What the reconcile is to run in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes how it ended.
    pub(crate) fn end(self, outcome: &'static str, failed: bool) {
        self.span.record("pilothouse.outcome", outcome);
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
        telemetry::metrics::observe_reconcile(&self.kind.to_string(), outcome, self.begun.elapsed());
    }
}

/// A child of the request that made it due.
fn reconcile(work: &Work) -> Span {
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

/// The `traceparent` of a configuration that is sent to a node, as part of these.
pub(crate) fn configuration(node: NodeId, traceparents: &str) -> String {
    let span = tracing::info_span!(target: TARGET, "configure node", otel.kind = "producer", pilothouse.id = %node);
    telemetry::continue_from(&span, Some(traceparents));
    let first = || traceparents.split(' ').next().unwrap_or_default().to_owned();
    span.in_scope(telemetry::traceparent).unwrap_or_else(first)
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
