//! Sessions of browsers, and passwords: further methods of [`Identity`].

use std::net::IpAddr;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{SessionId, UserId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::audit::about_user;
use super::identity::{Identity, plain};
use super::tokens::USE_NOTED_EVERY;
use crate::codec;
use crate::db::Tx;
use crate::entity::{password_reset, session, user};
use crate::error::StoreError;
use crate::rows::audit::UserEvent;
use crate::rows::session::{NewSession, Session};
use crate::rows::user::{NewPassword, User};
use crate::rows::{self, Actor};
use crate::secret::{self, ExposeSecret, Secret};

/// A session that nobody uses ends after this time.
const IDLE: Duration = Duration::hours(24);
/// How long a link that sets a password works.
const RESET: Duration = Duration::hours(1);
/// Another network of a session is written down at most this often, in milliseconds.
const NETWORK_NOTED_EVERY: i64 = 60_000;
const LINK: &str = "password link";

impl Identity<'_> {
    /// Living sessions of a person, at most.
    pub const MOST_SESSIONS: u64 = 20;

    /// Keeps a browser's session, and writes the sign-in in the audit log. Of [`Identity::MOST_SESSIONS`] that the person has already, the
    /// one that was used least lately ends.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn put_session(self, new: NewSession) -> Result<Session, StoreError> {
        let (id, now) = (Uuid::now_v7(), codec::millis(codec::now()));
        let row = session::Model {
            hash: new.hash,
            id,
            user: new.user.uuid(),
            created_at: now,
            last_used_at: now,
            expires_at: codec::millis(new.expires_at),
            address: new.network,
            user_agent: new.user_agent,
        };
        let tx = self.0.begin().await?;
        end_oldest(&tx, new.user, new.address).await?;
        tx.add(row.clone()).await?;
        let detail = format!("{} {}", SessionId::from_uuid(id), row.user_agent);
        let (user, actor, action) = (new.user, Actor::User(new.user), "user.sign_in");
        about_user(&tx, UserEvent { user, actor, action, detail: &detail, address: Some(new.address) }).await?;
        tx.commit().await?;
        Session::try_from(row)
    }

    /// The session with this hash; `None` for one that has ended or was not used for a day.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn session(self, hash: &str) -> Result<Option<Session>, StoreError> {
        let now = codec::millis(codec::now());
        let query = session::Entity::find_by_id(hash.to_owned()).filter(living(now));
        rows::maybe(query.one(self.0.db()).await?)
    }

    /// Notes that a session is used from this network: every five minutes, or every minute where the network is another. A use that cannot
    /// be noted is still a use: reading goes on while the database takes no writes.
    pub async fn note_session(self, session: &Session, network: &str) {
        let now = codec::millis(codec::now());
        let every = if session.network == network { USE_NOTED_EVERY } else { NETWORK_NOTED_EVERY };
        if codec::millis(session.last_used_at) + every > now {
            return;
        }
        let used = session::Entity::update_many().col_expr(session::Column::LastUsedAt, Expr::value(now));
        let used = used.col_expr(session::Column::Address, Expr::value(network));
        let used = used.filter(session::Column::Hash.eq(session.hash.as_str())).exec(self.0.db()).await;
        if let Err(error) = used {
            tracing::debug!(error = %error, "last use of a session not recorded");
        }
    }

    /// A person's sessions, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn sessions(self, user: UserId) -> Result<Vec<Session>, StoreError> {
        let mine = session::Entity::find().filter(session::Column::User.eq(user.uuid()));
        let mine = mine.filter(living(codec::millis(codec::now()))).order_by_desc(session::Column::Id);
        rows::all(mine.all(self.0.db()).await?)
    }

    /// Signs out: ends the session with this hash. One that has ended already is fine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete_session(self, hash: &str, address: IpAddr) -> Result<(), StoreError> {
        let Some(session) = self.session(hash).await? else { return Ok(()) };
        let tx = self.0.begin().await?;
        session::Entity::delete_by_id(hash.to_owned()).exec(&tx).await?;
        let (user, detail) = (session.user, session.id.to_string());
        let (actor, action) = (Actor::User(user), "user.sign_out");
        about_user(&tx, UserEvent { user, actor, action, detail: &detail, address: Some(address) }).await?;
        tx.commit().await
    }

    /// Ends one of a person's sessions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another person's.
    pub async fn end_session(self, user: UserId, id: SessionId, by: (Actor, IpAddr)) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        let mine = session::Entity::delete_many().filter(session::Column::User.eq(user.uuid()));
        if mine.filter(session::Column::Id.eq(id.uuid())).exec(&tx).await?.rows_affected == 0 {
            return Err(StoreError::missing("session"));
        }
        let (detail, action) = (id.to_string(), "session.end");
        about_user(&tx, UserEvent { user, actor: by.0, action, detail: &detail, address: Some(by.1) }).await?;
        tx.commit().await
    }

    /// Ends all of a person's sessions but the one with the hash `keep`, and gives their number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn end_other_sessions(
        self,
        user: UserId,
        keep: Option<&str>,
        by: (Actor, IpAddr),
    ) -> Result<u64, StoreError> {
        let tx = self.0.begin().await?;
        let ended = end_others(&tx, user, keep).await?;
        let detail = format!("{ended} sessions");
        about_user(&tx, UserEvent { user, actor: by.0, action: "session.end", detail: &detail, address: Some(by.1) })
            .await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Changes a person's password, ends their other sessions, and gives the number of these.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn change_password(self, new: NewPassword<'_>) -> Result<u64, StoreError> {
        let tx = self.0.begin().await?;
        let ended = set_password(&tx, new.user, (&new.hash, new.keep)).await?;
        let (user, actor, address) = (new.user, new.actor, new.address);
        let detail = format!("{ended} other sessions ended");
        about_user(&tx, UserEvent { user, actor, action: "user.password_change", detail: &detail, address }).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Makes a link that sets the password of the person with this address, once within an hour; an older one is worth nothing from now
    /// on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] for who has no password to forget.
    pub async fn create_password_reset(self, email: &str) -> Result<(Secret, OffsetDateTime), StoreError> {
        let tx = self.0.begin().await?;
        let found = user::Entity::find().filter(user::Column::Email.eq(plain(email))).one(&tx).await?;
        let found = found.ok_or(StoreError::missing("user with this e-mail address"))?;
        if found.password_hash.is_none() {
            return Err(StoreError::conflict("user", "this user has no password yet: use the setup link"));
        }
        let id = UserId::from_uuid(found.id);
        let (secret, hash) = secret::mint(secret::RESET_PREFIX, Some(&id.suffix()))?;
        let (now, end) = (codec::now(), codec::now() + RESET);
        password_reset::Entity::delete_by_id(found.id).exec(&tx).await?;
        let (created_at, expires_at) = (codec::millis(now), codec::millis(end));
        tx.add(password_reset::Model { user: found.id, hash, created_at, expires_at }).await?;
        let (actor, action) = (Actor::System, "user.password_link");
        about_user(&tx, UserEvent { user: id, actor, action, detail: "good for an hour", address: None }).await?;
        tx.commit().await?;
        Ok((secret, end))
    }

    /// Whether a link that sets a password still works.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for one that is wrong, used, replaced or past its time.
    pub async fn check_password_reset(self, token: &str) -> Result<(), StoreError> {
        let id = reset_user(token)?;
        let row = password_reset::Entity::find_by_id(id.uuid()).one(self.0.db()).await?;
        good(row, token).map(drop)
    }

    /// Uses such a link: sets the password and ends all sessions. The hash is a PHC string.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a link that is wrong, used, replaced or past its time.
    pub async fn complete_password_reset(self, token: &str, hash: Secret, address: IpAddr) -> Result<User, StoreError> {
        let id = reset_user(token)?;
        let tx = self.0.begin().await?;
        good(tx.lock::<password_reset::Entity>(id.uuid()).await?, token)?;
        let ended = set_password(&tx, id, (&hash, None)).await?;
        let detail = format!("by a link of the operator; {ended} sessions ended");
        let (actor, action) = (Actor::User(id), "user.password_reset");
        about_user(&tx, UserEvent { user: id, actor, action, detail: &detail, address: Some(address) }).await?;
        tx.commit().await?;
        self.user(id).await?.ok_or(StoreError::missing("user"))
    }
}

/// Makes room for one more session. Two sign-ins at once may both find room, and one more living session is no harm.
async fn end_oldest(tx: &Tx, user: UserId, address: IpAddr) -> Result<(), StoreError> {
    let mine = session::Entity::find().filter(session::Column::User.eq(user.uuid()));
    let mine = mine.filter(living(codec::millis(codec::now())));
    let mine = mine.order_by_desc(session::Column::LastUsedAt).order_by_desc(session::Column::Id);
    for row in mine.offset(Identity::MOST_SESSIONS - 1).limit(1000).all(tx).await? {
        let (actor, address) = (Actor::User(user), Some(address));
        let detail = format!("{}: signed in too often elsewhere", SessionId::from_uuid(row.id));
        session::Entity::delete_by_id(row.hash).exec(tx).await?;
        about_user(tx, UserEvent { user, actor, action: "session.end", detail: &detail, address }).await?;
    }
    Ok(())
}

/// Those that have not ended at this time (milliseconds).
fn living(now: i64) -> Condition {
    Condition::all().add(session::Column::ExpiresAt.gt(now)).add(session::Column::LastUsedAt.gt(now - idle()))
}

/// Those that have.
pub(super) fn ended(now: i64) -> Condition {
    Condition::any().add(session::Column::ExpiresAt.lte(now)).add(session::Column::LastUsedAt.lte(now - idle()))
}

fn idle() -> i64 {
    IDLE.whole_seconds() * 1000
}

fn reset_user(token: &str) -> Result<UserId, StoreError> {
    let suffix = secret::suffix_of(secret::RESET_PREFIX, token);
    suffix.and_then(|suffix| UserId::from_suffix(suffix).ok()).ok_or(StoreError::missing(LINK))
}

fn good(row: Option<password_reset::Model>, token: &str) -> Result<password_reset::Model, StoreError> {
    let now = codec::millis(codec::now());
    let row = row.filter(|row| secret::matches(token, &row.hash) && row.expires_at > now);
    row.ok_or(StoreError::missing(LINK))
}

/// Sets the hash, takes back a link, and ends all sessions but one.
async fn set_password(tx: &Tx, user: UserId, (hash, keep): (&Secret, Option<&str>)) -> Result<u64, StoreError> {
    let hash = Expr::value(hash.expose_secret());
    let changed = user::Entity::update_many().col_expr(user::Column::PasswordHash, hash);
    if changed.filter(user::Column::Id.eq(user.uuid())).exec(tx).await?.rows_affected == 0 {
        return Err(StoreError::missing("user"));
    }
    password_reset::Entity::delete_by_id(user.uuid()).exec(tx).await?;
    end_others(tx, user, keep).await
}

async fn end_others(tx: &Tx, user: UserId, keep: Option<&str>) -> Result<u64, StoreError> {
    let mut others = session::Entity::delete_many().filter(session::Column::User.eq(user.uuid()));
    if let Some(keep) = keep {
        others = others.filter(session::Column::Hash.ne(keep));
    }
    Ok(others.exec(tx).await?.rows_affected)
}
