//! What a process tells of itself: spans for OpenTelemetry, and the trace context that goes with work from one process to another;
//! counts for Prometheus.
//!
//! Spans are `tracing`'s, with [`TARGET`] as their target, and named by OpenTelemetry's semantic conventions. Without a collector
//! nobody is interested in that target: a span then costs a comparison, no context is made, and none is carried. What is written of a
//! span is ids and words of ours: no secret, and nothing that a user chose.

mod context;
pub mod metrics;
pub mod otlp;

pub use context::{accept, continue_from, is_traced, traceparent};

/// The target of every span that is exported; the log leaves them out.
pub const TARGET: &str = "otel";
