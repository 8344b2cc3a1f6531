//! What there should be and what there is: clusters, node pools, nodes.

use super::entity;

entity! {
    cluster = "clusters" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        project: Uuid,
        organization: Uuid,
        host: Uuid,
        name: String,
        spec: String,
        generation: i64,
        observed_generation: i64,
        state: String,
        state_message: String,
        conditions: String,
        endpoint: Option<String>,
        problem: Option<String>,
        operation: Option<Uuid>,
        deletion_requested_at: Option<i64>,
        forced: bool,
        delegated: bool,
        created_at: i64,
        updated_at: i64,
        user_id: i64,
    }

    cluster_pki = "cluster_pki" {
        #[sea_orm(primary_key, auto_increment = false)]
        cluster: Uuid,
        sealed: Vec<u8>,
        link_trust: String,
        created_at: i64,
    }

    node_pool = "node_pools" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        cluster: Uuid,
        organization: Uuid,
        name: String,
        kind: String,
        count: i64,
        generation: i64,
        observed_generation: i64,
        state: String,
        state_message: String,
        problem: Option<String>,
        operation: Option<Uuid>,
        deletion_requested_at: Option<i64>,
        created_at: i64,
        updated_at: i64,
    }

    departed_node = "departed_nodes" {
        #[sea_orm(primary_key, auto_increment = false)]
        cluster: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        name: String,
        until: i64,
    }

    node_tombstone = "node_tombstones" {
        #[sea_orm(primary_key, auto_increment = false)]
        node: Uuid,
        cluster: Uuid,
        name: String,
        removed_at: i64,
        refused_at: Option<i64>,
        until: i64,
    }

    deleted_cluster = "deleted_clusters" {
        #[sea_orm(primary_key, auto_increment = false)]
        cluster: Uuid,
        link_trust: String,
        until: i64,
    }

    node = "nodes" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        cluster: Uuid,
        pool: Uuid,
        organization: Uuid,
        name: String,
        state: String,
        state_message: String,
        pod_cidr: String,
        machine_fingerprint: Option<String>,
        facts: String,
        link_connected: bool,
        last_seen_at: Option<i64>,
        removed: bool,
        problem: Option<String>,
        operation: Option<Uuid>,
        deletion_requested_at: Option<i64>,
        forced: bool,
        drain_ends_at: Option<i64>,
        config_generation: i64,
        config_digest: String,
        registration: i64,
        registration_ordered_at: Option<i64>,
        created_at: i64,
        updated_at: i64,
    }
}
