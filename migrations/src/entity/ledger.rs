//! What is going on and what went on: operations, work, audit, settings, idempotency keys, quotas.

use super::entity;

entity! {
    operation = "operations" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        organization: Uuid,
        cluster: Option<Uuid>,
        kind: String,
        target: String,
        state: String,
        steps: String,
        problem: Option<String>,
        actor: String,
        version: i64,
        created_at: i64,
        finished_at: Option<i64>,
    }

    work = "work" {
        #[sea_orm(primary_key, auto_increment = false)]
        kind: String,
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        due_at: i64,
        lease_until: Option<i64>,
        lease_owner: String,
        failures: i64,
        fence: i64,
        wanted: i64,
    }

    audit = "audit" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        organization: Option<Uuid>,
        actor: String,
        action: String,
        target: String,
        detail: String,
        created_at: i64,
        sequence: i64,
        hash: String,
        address: Option<String>,
    }

    audit_head = "audit_heads" {
        #[sea_orm(primary_key, auto_increment = false)]
        chain: Uuid,
        sequence: i64,
        hash: String,
        first: i64,
        first_hash: String,
        mac: String,
    }

    setting = "settings" {
        #[sea_orm(primary_key, auto_increment = false)]
        key: String,
        value: Option<String>,
        sealed: Option<Vec<u8>>,
    }

    idempotency_key = "idempotency_keys" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: String,
        fingerprint: String,
        holder: Uuid,
        made: Option<String>,
        answer: Option<Vec<u8>>,
        lease_until: i64,
        expires_at: i64,
        caller: Option<Uuid>,
    }

    quota = "quotas" {
        #[sea_orm(primary_key, auto_increment = false)]
        holder: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        resource: String,
        most: i64,
    }
}
