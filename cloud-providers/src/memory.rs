//! Machines without a machine, for the tests of those who use providers: a map, and faults on demand.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{Machine, MachineRequest, MachineState, Provider, ProviderError, ProviderErrorClass, Removal};

/// A provider whose machines are entries of a map.
#[derive(Debug, Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    machines: BTreeMap<String, Machine>,
    calls: usize,
    fail_at: Option<usize>,
    made: usize,
}

impl Memory {
    /// A provider without machines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails the `n`th call from now on (0 is the next one), once, *after* it took effect: the answer is lost.
    pub fn lose_answer(&self, n: usize) {
        let mut inner = self.lock();
        inner.fail_at = Some(inner.calls + n);
    }

    /// How many calls were made so far.
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// How many machines were ever made.
    pub fn made(&self) -> usize {
        self.lock().made
    }

    /// Takes a machine away behind the platform's back.
    pub fn vanish(&self, id: &str) {
        self.lock().machines.remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T>(&self, act: impl FnOnce(&mut Inner) -> Result<T, ProviderError>) -> Result<T, ProviderError> {
        let mut inner = self.lock();
        let call = inner.calls;
        inner.calls += 1;
        let answer = act(&mut inner);
        if inner.fail_at == Some(call) {
            inner.fail_at = None;
            return Err(ProviderError::retryable(ProviderErrorClass::Provider, "the answer was lost", "try again"));
        }
        answer
    }

    fn power(&self, id: &str, state: MachineState) -> Result<(), ProviderError> {
        self.answer(|inner| {
            let machine = inner.machines.get_mut(id).ok_or_else(|| {
                ProviderError::lasting(ProviderErrorClass::User, format!("no machine {id}"), "make it first")
            })?;
            machine.state = state;
            Ok(())
        })
    }
}

#[async_trait]
impl Provider for Memory {
    fn kind(&self) -> &'static str {
        "local"
    }

    async fn ensure(&self, request: &MachineRequest) -> Result<Machine, ProviderError> {
        self.answer(|inner| {
            if let Some(machine) = inner.machines.get(&request.id) {
                return Ok(machine.clone());
            }
            let (id, name) = (request.id.clone(), request.name.clone());
            let machine = Machine { id: id.clone(), name, state: MachineState::Running, address: None };
            inner.machines.insert(id, machine.clone());
            inner.made += 1;
            Ok(machine)
        })
    }

    async fn get(&self, id: &str) -> Result<Option<Machine>, ProviderError> {
        self.answer(|inner| Ok(inner.machines.get(id).cloned()))
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.answer(|inner| Ok(inner.machines.values().cloned().collect()))
    }

    async fn stop(&self, id: &str) -> Result<(), ProviderError> {
        self.power(id, MachineState::Stopped)
    }

    async fn start(&self, id: &str) -> Result<(), ProviderError> {
        self.power(id, MachineState::Running)
    }

    async fn remove(&self, id: &str) -> Result<Removal, ProviderError> {
        self.answer(|inner| {
            inner.machines.remove(id);
            Ok(Removal::Gone)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::JoinMaterial;
    use crate::contract::{self, Subject};

    fn request(id: &str) -> MachineRequest {
        let join = JoinMaterial {
            server: "192.0.2.1:8443".to_owned(),
            domain: "pilothouse.internal".to_owned(),
            ca_pem: String::new(),
            signing_key: String::new(),
            token: "secret".to_owned().into(),
        };
        MachineRequest {
            id: id.to_owned(),
            name: id.to_owned(),
            cluster: "cls_x".to_owned(),
            join,
            user_data: String::new(),
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let provider = Memory::new();
        let subject = Subject { provider: &provider, request: &request, patience: Duration::from_secs(1) };
        contract::run(&subject).await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_answer_makes_no_twin() {
        let provider = Memory::new();
        provider.lose_answer(0);
        assert!(provider.ensure(&request("a")).await.is_err());
        provider.ensure(&request("a")).await.unwrap();
        assert_eq!(provider.made(), 1);
    }
}
