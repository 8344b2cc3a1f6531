//! What lets machines and people in: join tokens and kubeconfigs.

use super::entity;

entity! {
    join_token = "join_tokens" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        cluster: Uuid,
        pool: Uuid,
        organization: Uuid,
        node: Option<Uuid>,
        hash: String,
        expires_at: i64,
        max_uses: i64,
        uses: i64,
        revoked_at: Option<i64>,
        created_at: i64,
    }

    join_token_use = "join_token_uses" {
        #[sea_orm(primary_key, auto_increment = false)]
        token: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        fingerprint: String,
        node: Uuid,
        used_at: i64,
    }

    kubeconfig = "kubeconfigs" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        cluster: Uuid,
        organization: Uuid,
        name: String,
        role: String,
        kind: String,
        serial: Option<String>,
        expires_at: i64,
        revoked_at: Option<i64>,
        bound: bool,
        released: bool,
        created_by: String,
        created_at: i64,
        authority: Option<String>,
        refused_at: Option<i64>,
        left_behind: Option<String>,
    }

    kubeconfig_authority = "kubeconfig_authorities" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        cluster: Uuid,
        certificate: String,
        sealed: Vec<u8>,
        taken: bool,
        since: i64,
    }

    cluster_port = "cluster_ports" {
        #[sea_orm(primary_key, auto_increment = false)]
        port: i64,
        cluster: Uuid,
    }
}
