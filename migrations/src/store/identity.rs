//! People: the first one, and everyone after.
//!
//! Organizations and projects are in [`super::organizations`], tokens in [`super::tokens`], sessions and
//! passwords in [`super::sessions`]; all are methods of [`Identity`].

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use tenant_controlplane::id::{OrganizationId, UserId};
use uuid::Uuid;

use super::intent::Intent;
use super::{Store, organizations};
use crate::codec;
use crate::db::Tx;
use crate::entity::{member, organization, setting, user};
use crate::error::StoreError;
use crate::rows::organization::{Organization, Role};
use crate::rows::user::{NewOwner, User};
use crate::rows::{self, Actor};
use crate::secret::{self, ExposeSecret, Secret};

/// Where the hash of the set-up token is.
const SETUP: &str = "setup.token";
/// The person `pilothouse admin token` acts as before anybody has set the installation up.
const ADMIN_EMAIL: &str = "admin@localhost";

/// Organizations, projects, people and their credentials; see [`Store::identity`].
#[derive(Clone, Copy)]
pub struct Identity<'a>(pub(super) &'a Store);

impl Identity<'_> {
    /// Whether nobody can sign in yet: no person has a password.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn setup_needed(self) -> Result<bool, StoreError> {
        Ok(with_password().one(self.0.db()).await?.is_none())
    }

    /// Makes the one-use token of the setup link; an older one is worth nothing from now on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn create_setup_token(self) -> Result<Secret, StoreError> {
        let (secret, hash) = secret::mint(secret::SETUP_PREFIX, None)?;
        self.0.settings().put(SETUP, &hash).await?;
        Ok(secret)
    }

    /// Uses the set-up token: makes the first person, owner of the organization `default` with its project `default`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a token that is wrong or used, and when the installation has been set up already.
    pub async fn complete_setup(self, token: &str, owner: NewOwner) -> Result<(User, Organization), StoreError> {
        let mut tx = self.0.begin().await?;
        let stored = tx.lock::<setting::Entity>(SETUP.to_owned()).await?.and_then(|row| row.value);
        let fits = stored.is_some_and(|hash| secret::matches(token, &hash));
        if !fits || with_password().one(&tx).await?.is_some() {
            return Err(StoreError::missing("setup token"));
        }
        setting::Entity::delete_by_id(SETUP.to_owned()).exec(&tx).await?;
        let organization = organizations::ensure_default(&mut tx).await?;
        let user = ensure_user(&tx, &owner.email, &owner.display_name).await?;
        let password_hash = Some(owner.password_hash.expose_secret().to_owned());
        let user = user::Model { password_hash, display_name: owner.display_name, ..user };
        tx.save(user.clone()).await?;
        organizations::join(&mut tx, &organization, (user.id, Role::Owner)).await?;
        let id = UserId::from_uuid(user.id);
        let (action, target, detail, actor) = ("setup.complete", id.to_string(), user.email.as_str(), Actor::User(id));
        Intent { organization: organization.id, cluster: None, action, target: &target, detail, actor }
            .record(&tx)
            .await?;
        tx.commit().await?;
        Ok((User::try_from(user)?, Organization::try_from(organization)?))
    }

    /// Whom the owner of the machine acts as: the first owner of `default`, or, before anybody has set the installation up, a person
    /// without a password made for it. The setup link goes on working.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ensure_admin(self) -> Result<(User, Organization), StoreError> {
        let mut tx = self.0.begin().await?;
        let organization = organizations::ensure_default(&mut tx).await?;
        let owners = member::Entity::find().filter(member::Column::Organization.eq(organization.id));
        let owners = owners.filter(member::Column::Role.eq(Role::Owner.to_string())).order_by_asc(member::Column::User);
        let user = match owners.one(&tx).await? {
            Some(owner) => user::Entity::find_by_id(owner.user).one(&tx).await?.ok_or(StoreError::missing("user"))?,
            None => {
                let user = ensure_user(&tx, ADMIN_EMAIL, "Administrator").await?;
                organizations::join(&mut tx, &organization, (user.id, Role::Owner)).await?;
                user
            }
        };
        tx.commit().await?;
        Ok((User::try_from(user)?, Organization::try_from(organization)?))
    }

    /// The person with this address, compared without case.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn user_by_email(self, email: &str) -> Result<Option<User>, StoreError> {
        let query = user::Entity::find().filter(user::Column::Email.eq(plain(email)));
        rows::maybe(query.one(self.0.db()).await?)
    }

    /// A person.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn user(self, id: UserId) -> Result<Option<User>, StoreError> {
        rows::maybe(user::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }

    /// The people of an organization with their roles.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn members(self, organization: OrganizationId) -> Result<Vec<(User, Role)>, StoreError> {
        let query = member::Entity::find().filter(member::Column::Organization.eq(organization.uuid()));
        let mut members = Vec::new();
        for row in query.order_by_asc(member::Column::User).all(self.0.db()).await? {
            let role = codec::word("role", &row.role)?;
            if let Some(user) = self.user(UserId::from_uuid(row.user)).await? {
                members.push((user, role));
            }
        }
        Ok(members)
    }

    /// An organization by its id. Whoever asks for a person checks their membership.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn organization(self, id: OrganizationId) -> Result<Organization, StoreError> {
        rows::one("organization", organization::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }
}

fn with_password() -> sea_orm::Select<user::Entity> {
    user::Entity::find().filter(user::Column::PasswordHash.is_not_null())
}

/// Addresses are compared without case and edges.
pub(super) fn plain(email: &str) -> String {
    email.trim().to_lowercase()
}

/// The person with this address; a new one has no password.
async fn ensure_user(tx: &Tx, email: &str, display_name: &str) -> Result<user::Model, StoreError> {
    let email = plain(email);
    if let Some(user) = user::Entity::find().filter(user::Column::Email.eq(email.as_str())).one(tx).await? {
        return Ok(user);
    }
    let user = user::Model {
        id: Uuid::now_v7(),
        email,
        display_name: display_name.to_owned(),
        password_hash: None,
        created_at: codec::millis(codec::now()),
    };
    let taken = || "a user with this email address was created concurrently: try again".to_owned();
    tx.add(user.clone()).await.map_err(|error| StoreError::taken(error, "user", taken))?;
    Ok(user)
}
