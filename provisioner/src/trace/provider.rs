//! A provider whose calls are followed.

use std::sync::Arc;

use async_trait::async_trait;
use cloud_providers::{Machine, MachineRequest, Provider, ProviderError, Removal};

use super::call;

struct Traced(Arc<dyn Provider>);

/// The same provider, with a span for each call.
pub(crate) fn traced(provider: Arc<dyn Provider>) -> Arc<dyn Provider> {
    Arc::new(Traced(provider))
}

impl Traced {
    fn names(&self, method: &'static str) -> (&'static str, &'static str, &'static str) {
        ("provider", self.0.kind(), method)
    }
}

#[async_trait]
impl Provider for Traced {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    async fn ensure(&self, request: &MachineRequest) -> Result<Machine, ProviderError> {
        call(self.names("ensure"), self.0.ensure(request)).await
    }

    async fn get(&self, id: &str) -> Result<Option<Machine>, ProviderError> {
        call(self.names("get"), self.0.get(id)).await
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        call(self.names("list"), self.0.list()).await
    }

    async fn stop(&self, id: &str) -> Result<(), ProviderError> {
        call(self.names("stop"), self.0.stop(id)).await
    }

    async fn start(&self, id: &str) -> Result<(), ProviderError> {
        call(self.names("start"), self.0.start(id)).await
    }

    async fn remove(&self, id: &str) -> Result<Removal, ProviderError> {
        call(self.names("remove"), self.0.remove(id)).await
    }
}
