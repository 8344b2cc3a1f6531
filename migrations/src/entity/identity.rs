//! Who there is: organizations, people, their credentials, and the hosts.

use super::entity;

entity! {
    organization = "organizations" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        name: String,
        display_name: String,
        created_at: i64,
    }

    project = "projects" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        organization: Uuid,
        name: String,
        display_name: String,
        created_at: i64,
    }

    user = "users" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        email: String,
        display_name: String,
        password_hash: Option<String>,
        created_at: i64,
    }

    member = "members" {
        #[sea_orm(primary_key, auto_increment = false)]
        organization: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        user: Uuid,
        role: String,
    }

    api_token = "api_tokens" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        organization: Uuid,
        user: Uuid,
        name: String,
        role: String,
        hash: String,
        expires_at: Option<i64>,
        last_used_at: Option<i64>,
        created_at: i64,
        addresses: Option<String>,
    }

    session = "sessions" {
        #[sea_orm(primary_key, auto_increment = false)]
        hash: String,
        id: Uuid,
        user: Uuid,
        created_at: i64,
        last_used_at: i64,
        expires_at: i64,
        address: String,
        user_agent: String,
    }

    password_reset = "password_resets" {
        #[sea_orm(primary_key, auto_increment = false)]
        user: Uuid,
        hash: String,
        created_at: i64,
        expires_at: i64,
    }

    host = "hosts" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Uuid,
        name: String,
        created_at: i64,
    }
}
