//! A provider's machine for a node: made once, started again when it stopped, never made twice.

use cloud_providers::{JoinMaterial, Machine, MachineRequest, MachineState, Provider, Removal};
use migrations::{Actor, NewJoinToken, NodeReport, Secret};
use tenant_controlplane::node::{self, cloud_init};
use tenant_controlplane::plan::node::{self as plan, Machine as Observed, MachineAction};
use tenant_controlplane::status::NodeState;
use time::{Duration, OffsetDateTime};

use crate::context::Context;
use crate::error::ReconcileError;
use crate::node_context::NodeContext;

/// How long a machine may take to come up and use its token.
const TOKEN_LIFE: Duration = Duration::minutes(15);

/// The node's machine, made if it never was.
///
/// # Errors
/// [`ReconcileError`] of the store or the provider.
pub async fn ensure(
    ctx: &Context,
    node_context: &NodeContext,
    provider: &dyn Provider,
) -> Result<Observed, ReconcileError> {
    let joined = node_context.node.machine_fingerprint.is_some();
    let found = provider.get(&node_context.node.id.to_string()).await?;
    let seen = found.as_ref().map(|machine| observed(machine.state.clone()));
    let machine = match (plan::machine_action(seen.as_ref(), joined, is_overdue(node_context)), found) {
        (MachineAction::ReportLost, _) => return Ok(Observed::Lost),
        (MachineAction::Replace, Some(stale)) => replace(ctx, node_context, provider, stale).await?,
        (MachineAction::Start, Some(machine)) => start(provider, machine).await,
        (_, Some(machine)) => machine,
        (_, None) => make(ctx, node_context, provider).await?,
    };
    Ok(observed(machine.state))
}

/// A provider's word for how a machine is, as decisions know it.
fn observed(state: MachineState) -> Observed {
    match state {
        MachineState::Creating => Observed::Creating,
        MachineState::Running => Observed::Running,
        MachineState::Stopped => Observed::Stopped,
        MachineState::Failed(why) => Observed::Failed(why),
    }
}

/// Whether the machine had its time and its token ended before it joined.
fn is_overdue(node_context: &NodeContext) -> bool {
    let waits = matches!(node_context.node.state, NodeState::Creating | NodeState::Joining);
    waits && OffsetDateTime::now_utc() - node_context.node.updated_at > TOKEN_LIFE
}

/// A provider refuses for a while to start what ends again and again: then that is what there is to say of the machine.
async fn start(provider: &dyn Provider, machine: Machine) -> Machine {
    let state = match provider.start(&machine.id).await {
        Ok(()) => MachineState::Running,
        Err(error) => MachineState::Failed(error.message),
    };
    Machine { state, ..machine }
}

async fn replace(
    ctx: &Context,
    node_context: &NodeContext,
    provider: &dyn Provider,
    stale: Machine,
) -> Result<Machine, ReconcileError> {
    tracing::warn!(node = %node_context.node.id, "machine did not join in time: recreating it");
    match provider.remove(&stale.id).await? {
        Removal::Gone => {
            // Written so that its time begins again.
            let state_message = "machine did not join in time; recreating it".to_owned();
            let (state, problem) = (NodeState::Creating, None);
            let report = NodeReport { state, state_message, problem, facts: None, last_seen_at: None };
            ctx.store.nodes().report(node_context.node.id, report).await?;
            make(ctx, node_context, provider).await
        }
        Removal::InProgress => Ok(Machine { state: MachineState::Creating, ..stale }),
    }
}

async fn make(ctx: &Context, node_context: &NodeContext, provider: &dyn Provider) -> Result<Machine, ReconcileError> {
    let node = &node_context.node;
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
    Ok(provider.ensure(&request(ctx, node_context, secret)).await?)
}

fn request(ctx: &Context, node_context: &NodeContext, token: Secret) -> MachineRequest {
    let facts = &ctx.installation;
    let (server, domain) = (facts.machine_gateway.clone(), facts.domain.clone());
    let ca_pem = facts.platform_ca_pem.clone();
    let signing_key = facts.signing_key.clone();
    let material = node::JoinMaterial { server, domain, ca_pem, signing_key, token };
    let user_data = cloud_init(&material, &facts.portal_url);
    let node::JoinMaterial { server, domain, ca_pem, signing_key, token } = material;
    MachineRequest {
        id: node_context.node.id.to_string(),
        name: node_context.node.name.to_string(),
        cluster: node_context.cluster.id.to_string(),
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
    use crate::node::{known, tests::node};

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
        let machine = Some(observed(start(&Dying, down).await.state));
        let seen = plan::Observed { machine, node_object: None };
        let report = plan::report(&known(&node(NodeState::Joining, true)), &seen);
        let problem = report.problem.unwrap();
        assert_eq!(
            (report.state, problem.code.as_str(), problem.class),
            (NodeState::NotReady, "MACHINE_FAILED", Class::Provider)
        );
        assert!(problem.detail.contains("no space left on device"));
    }
}
