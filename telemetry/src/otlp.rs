//! The way of spans to a collector: OTLP over gRPC, in batches, from a runtime of its own.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::TARGET;

/// Either of them turns the export on; the exporter reads them itself, with what else the specification of OTLP names.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How long the end waits for the last batch.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The runtime of the export cannot be started.
    #[error("start the export of traces")]
    Runtime(#[source] std::io::Error),
    /// The endpoint or another setting is wrong.
    #[error("configure the export of traces")]
    Exporter(#[source] ExporterBuildError),
}

/// A running export. Dropping it sends what is left.
#[derive(Debug)]
pub struct Export {
    provider: SdkTracerProvider,
    // After the provider, whose last batch it carries.
    _runtime: Runtime,
}

impl Export {
    /// The export that the environment asks for (`OTEL_EXPORTER_OTLP_ENDPOINT`), or none.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn from_environment(service: &'static str) -> Result<Option<Self>, OtlpError> {
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        ENDPOINTS.iter().any(is_set).then(|| Self::start(service, None)).transpose()
    }

    /// An export to this endpoint, whatever the environment says.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn to(endpoint: &str, service: &'static str) -> Result<Self, OtlpError> {
        Self::start(service, Some(endpoint))
    }

    fn start(service: &'static str, endpoint: Option<&str>) -> Result<Self, OtlpError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(OtlpError::Runtime)?;
        let entered = runtime.enter();
        let mut exporter = SpanExporter::builder().with_tonic();
        if let Some(endpoint) = endpoint {
            exporter = exporter.with_endpoint(endpoint);
        }
        let exporter = exporter.build().map_err(OtlpError::Exporter)?;
        drop(entered);
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service)).build();
        Ok(Self { provider, _runtime: runtime })
    }

    /// The layer that takes the spans of [`TARGET`].
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("pilothouse"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    }

    /// Sends what has ended so far.
    pub fn flush(&self) {
        if let Err(error) = self.provider.force_flush() {
            tracing::warn!(%error, "export traces");
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // A collector that is away must not keep the process.
        let _ = self.provider.shutdown_with_timeout(LAST_BATCH);
    }
}

/// Who tells: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, or else this name.
fn resource(service: &'static str) -> Resource {
    let named = Resource::builder().build();
    let key = opentelemetry::Key::from_static_str("service.name");
    let is_named = named.get(&key).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named { named } else { Resource::builder().with_service_name(service).build() }
}
