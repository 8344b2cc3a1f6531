//! The services that must not end while the platform runs: without one of them it looks alive and is not. The first that ends
//! ends the process, for whoever started it to start it again.

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

/// Tasks under their names.
#[derive(Default)]
pub struct Services {
    tasks: JoinSet<Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Services {
    /// Starts a service that goes on until the platform is cancelled.
    pub fn keep(&mut self, name: &'static str, work: impl Future<Output = Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(work).id();
        self.names.insert(id, name);
    }

    /// [`Services::keep`] for one that cannot fail, only end.
    pub fn go_on(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.keep(name, async {
            work.await;
            Ok(())
        });
    }

    /// Waits for the first service that ends by itself, and says which and why.
    pub async fn ended(&mut self) -> Error {
        let Some(ended) = self.tasks.join_next_with_id().await else { return pending().await };
        let (id, error) = match ended {
            Ok((id, Ok(()))) => (id, anyhow!("it came to an end")),
            Ok((id, Err(error))) => (id, error),
            Err(error) => (error.id(), Error::new(error)),
        };
        let name = self.names.get(&id).copied().unwrap_or("a service");
        error.context(format!("{name} stopped, and nothing works without it: start again with `pilothouse up`"))
    }

    /// Waits until all have ended, at most `limit`. They must have been cancelled.
    pub async fn finish(&mut self, limit: Duration) {
        timeout(limit, async { while self.tasks.join_next().await.is_some() {} }).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_ends_is_named_with_its_reason() {
        let mut services = Services::default();
        services.keep("the portal", pending());
        services.keep("the gateway", async { Err(anyhow!("the socket is gone")) });
        let told = format!("{:#}", services.ended().await);
        assert!(told.starts_with("the gateway stopped") && told.ends_with("the socket is gone"), "{told}");
        services.keep("the wall", async { std::panic::resume_unwind(Box::new("lost")) });
        assert!(services.ended().await.to_string().starts_with("the wall stopped"));
    }
}
