//! A provider's machine for a node: made once, started again when it stopped, never made twice.

use cloud_providers::{JoinMaterial, Machine, MachineRequest, MachineState, Provider, Removal};
use migrations::{Actor, NewJoinToken, NodeReport, Secret};
use tenant_controlplane::node::{self, cloud_init};
use tenant_controlplane::status::NodeState;
use time::{Duration, OffsetDateTime};

use super::decide::Machinery;
use crate::context::Context;
use crate::family::Family;
use crate::trouble::Trouble;

/// How long a machine may take to come up and use its token.
const TOKEN_LIFE: Duration = Duration::minutes(15);

/// The node's machine, made if it never was.
///
/// # Errors
/// [`Trouble`] of the store or the provider.
pub async fn ensure(ctx: &Context, family: &Family, provider: &dyn Provider) -> Result<Machinery, Trouble> {
    let id = family.node.id.to_string();
    let joined = family.node.machine_fingerprint.is_some();
    Ok(Machinery::There(match provider.get(&id).await? {
        None if joined => return Ok(Machinery::Lost),
        Some(stale) if !joined && is_overdue(family) => replace(ctx, family, provider, stale).await?,
        // Switched off, or ended by itself (a reboot, an out-of-memory kill): either way it is wanted, with its disk.
        Some(machine) if is_down(&machine) => start(provider, machine).await,
        Some(machine) => machine,
        None => make(ctx, family, provider).await?,
    }))
}

fn is_down(machine: &Machine) -> bool {
    matches!(machine.state, MachineState::Stopped | MachineState::Failed(_))
}

/// Whether the machine had its time and its token ended before it joined.
fn is_overdue(family: &Family) -> bool {
    let waits = matches!(family.node.state, NodeState::Creating | NodeState::Joining);
    waits && OffsetDateTime::now_utc() - family.node.updated_at > TOKEN_LIFE
}

/// A provider refuses for a while to start what ends again and again: then that is what there is to say of the machine.
async fn start(provider: &dyn Provider, machine: Machine) -> Machine {
    let state = match provider.start(&machine.id).await {
        Ok(()) => MachineState::Running,
        Err(error) => MachineState::Failed(error.message),
    };
    Machine { state, ..machine }
}

async fn replace(ctx: &Context, family: &Family, provider: &dyn Provider, stale: Machine) -> Result<Machine, Trouble> {
    tracing::warn!(node = %family.node.id, "machine did not join in time: recreating it");
    match provider.remove(&stale.id).await? {
        Removal::Gone => {
            // Written so that its time begins again.
            let state_message = "machine did not join in time; recreating it".to_owned();
            let (state, problem) = (NodeState::Creating, None);
            let report = NodeReport { state, state_message, problem, facts: None, last_seen_at: None };
            ctx.store.nodes().report(family.node.id, report).await?;
            make(ctx, family, provider).await
        }
        Removal::InProgress => Ok(Machine { state: MachineState::Creating, ..stale }),
    }
}

async fn make(ctx: &Context, family: &Family, provider: &dyn Provider) -> Result<Machine, Trouble> {
    let node = &family.node;
    let new = NewJoinToken {
        organization: node.organization,
        cluster: node.cluster,
        pool: Some(node.pool),
        node: Some(node.id),
        expires_at: OffsetDateTime::now_utc() + TOKEN_LIFE,
        max_uses: 1,
        actor: Actor::System,
    };
    let (_, secret) = ctx.store.join_tokens().create(new).await?;
    Ok(provider.ensure(&request(ctx, family, secret)).await?)
}

fn request(ctx: &Context, family: &Family, token: Secret) -> MachineRequest {
    let facts = &ctx.facts;
    let (server, domain) = (facts.machine_gateway.clone(), facts.domain.clone());
    let ca_pem = facts.platform_ca_pem.clone();
    let signing_key = facts.signing_key.clone();
    let material = node::JoinMaterial { server, domain, ca_pem, signing_key, token };
    let user_data = cloud_init(&material, &facts.portal_url);
    let node::JoinMaterial { server, domain, ca_pem, signing_key, token } = material;
    MachineRequest {
        id: family.node.id.to_string(),
        name: family.node.name.to_string(),
        cluster: family.cluster.id.to_string(),
        join: JoinMaterial { server, domain, ca_pem, signing_key, token },
        user_data,
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use cloud_providers::ProviderError;
    use tenant_controlplane::status::Class;

    use super::*;
    use crate::node::decide::{Sight, report, tests::node};

    /// One machine that ended, and ends again whenever it is started.
    struct Dying;

    #[async_trait]
    impl Provider for Dying {
        fn kind(&self) -> &'static str {
            "local"
        }

        async fn ensure(&self, _: &MachineRequest) -> Result<Machine, ProviderError> {
            unreachable!("it is there")
        }

        async fn get(&self, _: &str) -> Result<Option<Machine>, ProviderError> {
            unreachable!("it was looked at")
        }

        async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
            Ok(Vec::new())
        }

        async fn stop(&self, _: &str) -> Result<(), ProviderError> {
            Ok(())
        }

        async fn start(&self, _: &str) -> Result<(), ProviderError> {
            let message = "the machine ended by itself 3 times within 5 minutes: no space left on device";
            Err(ProviderError::retryable(
                cloud_providers::ProviderErrorClass::Platform,
                message,
                "read its console.log",
            ))
        }

        async fn remove(&self, _: &str) -> Result<Removal, ProviderError> {
            Ok(Removal::Gone)
        }
    }

    #[tokio::test]
    async fn a_machine_that_dies_in_a_loop_is_told_and_not_called_joining() {
        let down = Machine {
            id: "m".into(),
            name: "web-1".into(),
            state: MachineState::Failed("ended".into()),
            address: None,
        };
        let machine = Some(Machinery::There(start(&Dying, down).await));
        let told = report(&node(NodeState::Joining, true), &Sight { machine, known: None });
        let problem = told.problem.unwrap();
        assert_eq!(
            (told.state, problem.code.as_str(), problem.class),
            (NodeState::NotReady, "MACHINE_FAILED", Class::Provider)
        );
        assert!(problem.detail.contains("no space left on device"));
    }
}
