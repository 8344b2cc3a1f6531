//! API tokens: further methods of [`Identity`].

use std::net::IpAddr;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use tenant_controlplane::id::{ApiTokenId, OrganizationId, UserId};
use uuid::Uuid;

use super::audit_chain::Entry;
use super::identity::Identity;
use super::intent::Intent;
use super::{quotas, sessions};
use crate::codec;
use crate::entity::{api_token, password_reset, session};
use crate::error::StoreError;
use crate::rows::api_token::{ApiToken, NewToken};
use crate::rows::quota::Resource;
use crate::rows::{self, Actor};
use crate::secret::{self, Secret};

/// A use is written down at most this often, in milliseconds.
pub(super) const USE_NOTED_EVERY: i64 = 300_000;
/// Networks remembered of each token.
const NETWORKS: usize = 8;

impl Identity<'_> {
    /// Makes a token for the REST API. Its secret is given this once and is nowhere afterwards.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the person is no member of the organization, [`StoreError::Quota`] when the organization has as many
    /// as it may.
    pub async fn create_token(self, new: NewToken) -> Result<(ApiToken, Secret), StoreError> {
        self.role_in(new.user, new.organization).await?.ok_or(StoreError::missing("organization"))?;
        let id = ApiTokenId::from_uuid(Uuid::now_v7());
        let (secret, hash) = secret::mint(secret::API_PREFIX, Some(&id.suffix()))?;
        let row = row(&new, id, hash);
        let tx = self.0.begin().await?;
        // The operator on the machine is never locked out of an organization that is full.
        let counted = u64::from(new.actor != Actor::System);
        quotas::require(&tx, row.organization, Resource::ApiTokens, counted).await?;
        tx.add(row.clone()).await?;
        let (organization, target) = (row.organization, id.to_string());
        let (action, detail, actor) = ("token.create", new.name.as_str(), new.actor);
        Intent { organization, cluster: None, action, target: &target, detail, actor }.record(&tx).await?;
        tx.commit().await?;
        Ok((ApiToken::try_from(row)?, secret))
    }

    /// The token with this secret; `None` for one that is unknown, revoked or past its time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn token_by_secret(self, secret: &str) -> Result<Option<ApiToken>, StoreError> {
        let id = secret::suffix_of(secret::API_PREFIX, secret);
        let Some(id) = id.and_then(|suffix| ApiTokenId::from_suffix(suffix).ok()) else { return Ok(None) };
        let row = api_token::Entity::find_by_id(id.uuid()).one(self.0.db()).await?;
        let now = codec::millis(codec::now());
        let valid =
            |row: &api_token::Model| secret::matches(secret, &row.hash) && row.expires_at.is_none_or(|end| end > now);
        let Some(row) = row.filter(valid) else { return Ok(None) };
        if row.last_used_at.is_none_or(|last| last + USE_NOTED_EVERY < now) {
            self.note_use(row.id, now).await;
        }
        ApiToken::try_from(row).map(Some)
    }

    /// A use that cannot be noted is still a use: reading goes on while the database takes no writes.
    async fn note_use(self, id: Uuid, now: i64) {
        let used = api_token::Entity::update_many().col_expr(api_token::Column::LastUsedAt, Expr::value(now));
        if let Err(error) = used.filter(api_token::Column::Id.eq(id)).exec(self.0.db()).await {
            tracing::debug!(error = %error, "last use of a token not recorded");
        }
    }

    /// The tokens that reach an organization, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tokens(self, organization: OrganizationId) -> Result<Vec<ApiToken>, StoreError> {
        let query = api_token::Entity::find().filter(api_token::Column::Organization.eq(organization.uuid()));
        rows::all(query.order_by_asc(api_token::Column::Id).all(self.0.db()).await?)
    }

    /// The tokens of a person, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tokens_of(self, user: UserId) -> Result<Vec<ApiToken>, StoreError> {
        let query = api_token::Entity::find().filter(api_token::Column::User.eq(user.uuid()));
        rows::all(query.order_by_asc(api_token::Column::Id).all(self.0.db()).await?)
    }

    /// Ends a token; from now on it is unknown.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn revoke_token(
        self,
        organization: OrganizationId,
        id: ApiTokenId,
        actor: Actor,
    ) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        let mine = api_token::Entity::delete_many().filter(api_token::Column::Id.eq(id.uuid()));
        let mine = mine.filter(api_token::Column::Organization.eq(organization.uuid())).exec(&tx).await?;
        if mine.rows_affected == 0 {
            return Err(StoreError::missing("token"));
        }
        let (organization, target) = (organization.uuid(), id.to_string());
        let (action, detail) = ("token.revoke", "");
        Intent { organization, cluster: None, action, target: &target, detail, actor }.record(&tx).await?;
        tx.commit().await
    }

    /// Remembers that a token is used from a network where it was not of late, and writes it in the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn note_token_network(self, token: &ApiToken, network: &str, address: IpAddr) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        let Some(row) = tx.lock::<api_token::Entity>(token.id.uuid()).await? else { return Ok(()) };
        let mut addresses = ApiToken::try_from(row.clone())?.addresses;
        if addresses.iter().any(|known| known == network) {
            return Ok(());
        }
        addresses.push(network.to_owned());
        let surplus = addresses.len().saturating_sub(NETWORKS);
        addresses.drain(..surplus);
        let addresses = Some(codec::json("token addresses", &addresses)?);
        tx.save(api_token::Model { addresses, ..row }).await?;
        tx.audit(Entry {
            organization: Some(token.organization.uuid()),
            actor: token.id.to_string(),
            action: "token.use".to_owned(),
            target: token.id.to_string(),
            detail: format!("from a new network: {network}"),
            address: Some(address.to_canonical().to_string()),
        });
        tx.commit().await
    }

    /// Drops sessions, password links and tokens past their time, and gives their number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn prune(self) -> Result<u64, StoreError> {
        let (now, db) = (codec::millis(codec::now()), self.0.db());
        let sessions = session::Entity::delete_many().filter(sessions::ended(now)).exec(db).await?;
        let links = password_reset::Column::ExpiresAt.lte(now);
        let links = password_reset::Entity::delete_many().filter(links).exec(db).await?;
        let tokens = api_token::Entity::delete_many().filter(api_token::Column::ExpiresAt.lte(now)).exec(db).await?;
        Ok(sessions.rows_affected + links.rows_affected + tokens.rows_affected)
    }
}

fn row(new: &NewToken, id: ApiTokenId, hash: String) -> api_token::Model {
    api_token::Model {
        id: id.uuid(),
        organization: new.organization.uuid(),
        user: new.user.uuid(),
        name: new.name.clone(),
        role: new.role.to_string(),
        hash,
        expires_at: new.expires_at.map(codec::millis),
        last_used_at: None,
        created_at: codec::millis(codec::now()),
        addresses: None,
    }
}
