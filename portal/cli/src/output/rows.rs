//! How each REST shape looks as a row.

use api_types::{
    AuditEntry, Cluster, Kubeconfig, KubernetesVersion, Node, NodePool, Operation, Organization, Project, QuotaUse,
    Token,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Row;
use crate::duration::short;

const NONE: &str = "-";

fn age(since: OffsetDateTime) -> String {
    short(OffsetDateTime::now_utc() - since)
}

fn ends(at: OffsetDateTime) -> String {
    let left = at - OffsetDateTime::now_utc();
    if left.is_positive() { format!("in {}", short(left)) } else { format!("{} ago", short(-left)) }
}

fn or_none(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or(NONE).to_owned()
}

impl Row for Cluster {
    const HEADER: &'static [&'static str] = &["NAME", "STATE", "VERSION", "AGE", "ID", "MESSAGE"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            self.version.clone(),
            age(self.created_at),
            self.id.clone(),
            self.state_message.clone(),
        ]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for NodePool {
    const HEADER: &'static [&'static str] = &["NAME", "KIND", "COUNT", "VERSION", "STATE", "AGE", "ID"];
    fn cells(&self) -> Vec<String> {
        let count = if self.kind == "byo" { NONE.to_owned() } else { self.count.to_string() };
        // Without one of its own it has its cluster's.
        let version = self.version.clone().unwrap_or_else(|| "cluster".to_owned());
        let (name, kind) = (self.name.clone(), self.kind.clone());
        vec![name, kind, count, version, self.state.clone(), age(self.created_at), self.id.clone()]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Node {
    const HEADER: &'static [&'static str] = &["NAME", "STATE", "LINK", "KUBELET", "AGE", "ID", "MESSAGE"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            if self.link_connected { "connected" } else { "down" }.to_owned(),
            or_none(self.kubelet_version.as_deref()),
            age(self.created_at),
            self.id.clone(),
            self.state_message.clone(),
        ]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Kubeconfig {
    const HEADER: &'static [&'static str] = &["NAME", "ROLE", "EXPIRES", "STATE", "AGE", "ID"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            ends(self.expires_at),
            self.state.clone(),
            age(self.created_at),
            self.id.clone(),
        ]
    }
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Row for Operation {
    const HEADER: &'static [&'static str] = &["ID", "KIND", "STATE", "STEP", "AGE", "TARGET"];
    fn cells(&self) -> Vec<String> {
        let current = self.steps.iter().find(|step| step.state != "done");
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.state.clone(),
            or_none(current.map(|step| step.title.as_str())),
            age(self.created_at),
            self.target.clone(),
        ]
    }
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Row for Organization {
    const HEADER: &'static [&'static str] = &["NAME", "ROLE", "AGE", "ID", "DISPLAY NAME"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            age(self.created_at),
            self.id.clone(),
            or_none(Some(self.display_name.as_str())),
        ]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Project {
    const HEADER: &'static [&'static str] = &["NAME", "AGE", "ID", "ORGANIZATION"];
    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), age(self.created_at), self.id.clone(), self.organization_id.clone()]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Row for Token {
    const HEADER: &'static [&'static str] = &["NAME", "ROLE", "EXPIRES", "LAST USED", "ID"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            self.expires_at.map_or_else(|| "never".to_owned(), ends),
            self.last_used_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(at))),
            self.id.clone(),
        ]
    }
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Row for AuditEntry {
    const HEADER: &'static [&'static str] = &["WHEN", "ACTION", "WHO", "TARGET", "FROM", "DETAIL"];
    fn cells(&self) -> Vec<String> {
        let when = self.created_at.replace_nanosecond(0).unwrap_or(self.created_at);
        vec![
            when.format(&Rfc3339).unwrap_or_default(),
            self.action.clone(),
            self.actor_name.clone().unwrap_or_else(|| self.actor.clone()),
            or_none(Some(self.target.as_str())),
            or_none(self.address.as_deref()),
            self.detail.clone(),
        ]
    }
    fn name(&self) -> String {
        self.id.clone()
    }
}

impl Row for KubernetesVersion {
    const HEADER: &'static [&'static str] = &["VERSION", "STATE", "DEFAULT"];
    fn cells(&self) -> Vec<String> {
        let default = if self.default { "yes" } else { NONE };
        vec![self.version.clone(), self.state.clone(), default.to_owned()]
    }
    fn name(&self) -> String {
        self.version.clone()
    }
}

impl Row for QuotaUse {
    const HEADER: &'static [&'static str] = &["RESOURCE", "USED", "LIMIT"];
    fn cells(&self) -> Vec<String> {
        vec![self.resource.clone(), self.used.to_string(), self.limit.to_string()]
    }
    fn name(&self) -> String {
        self.resource.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The thing in each of its states, from what the API sends, as rows.
    fn rows<T: Row + serde::de::DeserializeOwned>(more: Value, states: &[&str]) {
        for state in states {
            let mut shape = json!({
                "id": "x_1", "object": "x", "cluster_id": "cls_1", "name": "demo", "state": state, "state_message": "",
                "generation": 1, "observed_generation": 1, "deletion_requested_at": null, "operation_id": null,
                "created_at": "2026-01-01T00:00:00Z", "etag": "1", "links": {"self": "/"},
            });
            shape.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let item: T = serde_json::from_value(shape).unwrap();
            let at = T::HEADER.iter().position(|title| *title == "STATE").unwrap();
            assert_eq!(item.cells()[at], *state);
        }
    }

    #[test]
    fn every_state_is_printed_as_its_own_word() {
        rows::<NodePool>(json!({"kind": "local", "count": 1}), &NodePool::STATES);
        let node = json!({"node_pool_id": "np_1", "pod_cidr": null, "addresses": [], "kubelet_version": null, "os": null,
            "arch": null, "kernel": null, "link_connected": true, "last_seen_at": null});
        rows::<Node>(node, &Node::STATES);
        let cluster = json!({"organization_id": "org_1", "project_id": "prj_1", "version": "1.36.3", "pod_cidr": "",
            "service_cidr": "", "replicas": 1, "labels": {}, "conditions": [], "endpoint": null, "tls_server_name": "",
            "updated_at": "2026-01-01T00:00:00Z"});
        rows::<Cluster>(cluster, &Cluster::STATES);
        let kubeconfig = json!({"kind": "file", "role": "view", "active": false, "expires_at": "2026-01-01T00:00:00Z",
            "revoked_at": null, "created_by": "usr_1"});
        rows::<Kubeconfig>(kubeconfig, &Kubeconfig::STATES);
        let operation = json!({"kind": "cluster.create", "target": "cls_1", "organization_id": "org_1", "percent": 0,
            "steps": [], "actor": "usr_1", "finished_at": null});
        rows::<Operation>(operation, &Operation::STATES);
    }
}
