//! From rows to what is shown: the only place where the two meet.

use super::etag::Etag;
use crate::config::PortalConfig;
use crate::error::catalog;
use api_types as api;
use migrations as row;
use migrations::StepState;
use tenant_controlplane::id::{OrganizationId, SessionId};
use tenant_controlplane::status::Problem;
use time::OffsetDateTime;

const API: &str = "/api/v1";

fn links(kind: &str, id: impl std::fmt::Display) -> api::Links {
    api::Links { this: format!("{API}/{kind}/{id}"), portal: None }
}

/// A person.
pub fn user(user: row::User) -> api::User {
    api::User {
        id: user.id.to_string(),
        object: "user".into(),
        email: user.email,
        display_name: user.display_name,
        created_at: user.created_at,
    }
}

/// An organization, as seen by somebody with that role.
pub fn organization(organization: &row::Organization, role: row::Role) -> api::Organization {
    api::Organization {
        id: organization.id.to_string(),
        object: "organization".into(),
        name: organization.name.to_string(),
        display_name: organization.display_name.clone(),
        role: role.to_string(),
        created_at: organization.created_at,
        etag: organization.etag(),
        links: links("organizations", organization.id),
    }
}

/// A project.
pub fn project(project: row::Project) -> api::Project {
    let etag = project.etag();
    api::Project {
        id: project.id.to_string(),
        object: "project".into(),
        organization_id: project.organization.to_string(),
        name: project.name.to_string(),
        display_name: project.display_name,
        created_at: project.created_at,
        etag,
        links: links("projects", project.id),
    }
}

/// A cluster. Its endpoint is the gateway's address: where there is no DNS, the server name picks the cluster.
pub fn cluster(config: &PortalConfig, cluster: row::Cluster) -> api::Cluster {
    let (id, etag, mut links) = (cluster.id, cluster.etag(), links("clusters", cluster.id));
    links.portal = Some(format!("{}/clusters/{id}", config.public_url));
    api::Cluster {
        id: id.to_string(),
        object: "cluster".into(),
        organization_id: cluster.organization.to_string(),
        project_id: cluster.project.to_string(),
        name: cluster.name.to_string(),
        version: cluster.spec.version.to_string(),
        pod_cidr: cluster.spec.pod_cidr.to_string(),
        service_cidr: cluster.spec.service_cidr.to_string(),
        replicas: cluster.spec.replicas,
        labels: cluster.spec.labels,
        state: cluster.state.to_string(),
        state_message: cluster.state_message,
        conditions: cluster.conditions.into_iter().map(condition).collect(),
        endpoint: cluster.endpoint.map(|_| format!("https://{}", config.gateway_address)),
        tls_server_name: format!("{}.api.{}", id.suffix(), config.domain),
        problem: cluster.problem.map(problem),
        operation_id: cluster.operation.map(|operation| operation.to_string()),
        generation: cluster.generation,
        observed_generation: cluster.observed_generation,
        deletion_requested_at: cluster.deletion_requested_at,
        created_at: cluster.created_at,
        updated_at: cluster.updated_at,
        etag,
        links,
    }
}

fn condition(condition: tenant_controlplane::status::Condition) -> api::Condition {
    api::Condition {
        kind: condition.kind,
        status: condition.status.to_string(),
        reason: condition.reason,
        message: condition.message,
        observed_generation: condition.observed_generation,
        last_transition_time: condition.last_transition_time,
    }
}

/// A problem that the provisioner met. The status is what a request for it would have been answered.
pub fn problem(problem: Problem) -> api::Problem {
    api::Problem {
        kind: format!("{API}/errors#{}", problem.code),
        title: problem.code.title(),
        status: catalog::status(problem.class),
        detail: problem.detail,
        instance: None,
        code: problem.code.to_string(),
        class: problem.class.to_string(),
        retryable: true,
        remediation: problem.remediation,
        request_id: String::new(),
        errors: Vec::new(),
        operation_id: None,
        quota: None,
    }
}

/// How much of a quota is used.
pub fn quota_use(quota: row::QuotaUse) -> api::QuotaUse {
    api::QuotaUse { resource: quota.resource.to_string(), used: quota.used, limit: quota.limit }
}

/// The quotas of an organization.
pub fn quota(organization: OrganizationId, resources: Vec<row::QuotaUse>) -> api::Quota {
    api::Quota {
        object: "quota".into(),
        organization_id: organization.to_string(),
        resources: resources.into_iter().map(quota_use).collect(),
    }
}

/// A node pool.
pub fn pool(pool: row::NodePool) -> api::NodePool {
    let etag = pool.etag();
    api::NodePool {
        id: pool.id.to_string(),
        object: "node_pool".into(),
        cluster_id: pool.cluster.to_string(),
        name: pool.name.to_string(),
        kind: pool.kind.to_string(),
        count: pool.count,
        version: pool.version.map(|version| version.to_string()),
        state: pool.state.to_string(),
        state_message: pool.state_message,
        problem: pool.problem.map(problem),
        operation_id: pool.operation.map(|operation| operation.to_string()),
        generation: pool.generation,
        observed_generation: pool.observed_generation,
        deletion_requested_at: pool.deletion_requested_at,
        created_at: pool.created_at,
        etag,
        links: links("node-pools", pool.id),
    }
}

/// A node.
pub fn node(node: row::Node) -> api::Node {
    let (etag, facts) = (node.etag(), node.facts);
    api::Node {
        id: node.id.to_string(),
        object: "node".into(),
        cluster_id: node.cluster.to_string(),
        node_pool_id: node.pool.to_string(),
        name: node.name.to_string(),
        state: node.state.to_string(),
        state_message: node.state_message,
        pod_cidr: Some(node.pod_cidr.to_string()),
        addresses: facts.addresses,
        kubelet_version: known(facts.kubelet_version),
        os: known(facts.os),
        arch: known(facts.arch),
        kernel: known(facts.kernel),
        link_connected: node.link_connected,
        last_seen_at: node.last_seen_at,
        problem: node.problem.map(problem),
        operation_id: node.operation.map(|operation| operation.to_string()),
        deletion_requested_at: node.deletion_requested_at,
        created_at: node.created_at,
        etag,
        links: links("nodes", node.id),
    }
}

/// What a machine has not reported yet is empty in its row.
fn known(fact: String) -> Option<String> {
    Some(fact).filter(|fact| !fact.is_empty())
}

/// An issued kubeconfig.
pub fn kubeconfig(kubeconfig: row::Kubeconfig) -> api::Kubeconfig {
    let state = kubeconfig.state(OffsetDateTime::now_utc());
    api::Kubeconfig {
        id: kubeconfig.id.to_string(),
        object: "kubeconfig".into(),
        cluster_id: kubeconfig.cluster.to_string(),
        name: kubeconfig.name,
        kind: kubeconfig.kind.to_string(),
        role: kubeconfig.role.to_string(),
        state: state.to_string(),
        active: state == row::KubeconfigState::Active,
        expires_at: kubeconfig.expires_at,
        revoked_at: kubeconfig.revoked_at,
        left_behind: kubeconfig.left_behind,
        created_by: kubeconfig.created_by,
        created_at: kubeconfig.created_at,
        links: links("kubeconfigs", kubeconfig.id),
    }
}

/// A join token, without its secret.
pub fn join_token(token: row::JoinToken) -> api::JoinToken {
    api::JoinToken {
        id: token.id.to_string(),
        object: "join_token".into(),
        cluster_id: token.cluster.to_string(),
        node_pool_id: token.pool.to_string(),
        expires_at: token.expires_at,
        max_uses: token.max_uses,
        uses: token.uses,
        revoked_at: token.revoked_at,
        created_at: token.created_at,
        links: links("join-tokens", token.id),
    }
}

/// An API token, without its secret.
pub fn token(token: row::ApiToken) -> api::Token {
    api::Token {
        id: token.id.to_string(),
        object: "token".into(),
        organization_id: token.organization.to_string(),
        name: token.name,
        role: token.role.to_string(),
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        created_at: token.created_at,
        links: links("tokens", token.id),
    }
}

/// A browser's session, as seen from the session with the id `current`.
pub fn session(session: row::Session, current: Option<SessionId>) -> api::Session {
    api::Session {
        id: session.id.to_string(),
        object: "session".into(),
        current: current == Some(session.id),
        network: session.network,
        user_agent: session.user_agent,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        expires_at: session.expires_at,
        links: api::Links { this: format!("{API}/me/sessions/{}", session.id), portal: None },
    }
}

/// An entry of the audit log, with the name of its actor where that is known.
pub fn audit_entry(entry: row::AuditEntry, actor_name: Option<String>) -> api::AuditEntry {
    api::AuditEntry {
        id: entry.id.to_string(),
        object: "audit_entry".into(),
        organization_id: entry.organization.map(|organization| organization.to_string()),
        actor: entry.actor,
        actor_name,
        action: entry.action,
        target: entry.target,
        detail: entry.detail,
        address: entry.address,
        created_at: entry.created_at,
    }
}

/// An operation with its steps.
pub fn operation(operation: row::Operation) -> api::Operation {
    api::Operation {
        id: operation.id.to_string(),
        object: "operation".into(),
        kind: operation.kind,
        target: operation.target,
        cluster_id: operation.cluster.map(|cluster| cluster.to_string()),
        organization_id: operation.organization.to_string(),
        state: operation.state.to_string(),
        percent: percent(&operation.steps, operation.state == row::OperationState::Succeeded),
        steps: operation.steps.into_iter().map(step).collect(),
        error: operation.problem.map(problem),
        actor: operation.actor,
        created_at: operation.created_at,
        finished_at: operation.finished_at,
        links: links("operations", operation.id),
    }
}

/// The share of steps that are done, 0 to 100; 100 only at the end.
fn percent(steps: &[row::Step], succeeded: bool) -> u8 {
    let done = steps.iter().filter(|step| step.state == StepState::Done).count();
    let share = done * 100 / steps.len().max(1);
    if succeeded { 100 } else { u8::try_from(share).unwrap_or(100).min(99) }
}

fn step(step: row::Step) -> api::Step {
    let end = step.finished_at.unwrap_or_else(time::OffsetDateTime::now_utc);
    let took = step.started_at.map(|started| (end - started).whole_milliseconds());
    api::Step {
        key: step.key,
        title: step.title,
        state: step.state.to_string(),
        attempt: step.attempt,
        started_at: step.started_at,
        finished_at: step.finished_at,
        duration_milliseconds: took.and_then(|milliseconds| u64::try_from(milliseconds).ok()),
        message: step.message,
    }
}
