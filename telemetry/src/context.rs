//! The W3C trace context (`traceparent`), read from where a request or a row carries it, and written where it goes on.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// The `traceparent` of the innermost span of ours that is entered, whatever others are inside of it; `None` when nothing is traced.
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&opentelemetry::Context::current(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Whether a span of ours is entered.
pub fn is_traced() -> bool {
    opentelemetry::Context::current().has_active_span()
}

/// Makes a new span the child of what a caller sent, when that is a valid `traceparent`; otherwise the span begins a trace.
pub fn accept(span: &Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(context) {
        // A span that nobody is interested in has no parent either.
        let _ = span.set_parent(context);
    }
}

/// Makes a new span the child of the first of these, and links it to the others: work that several requests wanted is done once.
pub fn continue_from(span: &Span, traceparents: Option<&str>) {
    let mut contexts = traceparents.unwrap_or_default().split(' ');
    accept(span, contexts.next());
    for context in contexts.filter_map(context) {
        span.add_link(context.span().span_context().clone());
    }
}

fn context(traceparent: &str) -> Option<opentelemetry::Context> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_valid_or_nothing() {
        assert!(context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        for wrong in ["", "00", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-1-2-3", "a\r\nb"] {
            assert!(context(wrong).is_none(), "{wrong}");
        }
        assert_eq!((traceparent(), is_traced()), (None, false));
    }
}
