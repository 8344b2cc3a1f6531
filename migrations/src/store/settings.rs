//! Small facts of the installation, by key: some in the clear, some sealed under the key-encryption key.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};
use zeroize::Zeroizing;

use super::Store;
use crate::entity::setting;
use crate::error::{ConnectError, StoreError};

/// A sealed word that only the right key opens.
const CHECK: &str = "kek.check";
const CHECK_WORD: &str = "this key fits";

/// Settings; see [`Store::settings`].
#[derive(Clone, Copy)]
pub struct Settings<'a>(pub(super) &'a Store);

impl Settings<'_> {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn get(self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.row(key).await?.and_then(|row| row.value))
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn put(self, key: &str, value: &str) -> Result<(), StoreError> {
        self.put_within(self.0.db(), key, value).await
    }

    /// [`Settings::put`] as a part of a transaction.
    pub(super) async fn put_within(
        self,
        connection: &impl ConnectionTrait,
        key: &str,
        value: &str,
    ) -> Result<(), StoreError> {
        let row = setting::Model { key: key.to_owned(), value: Some(value.to_owned()), sealed: None };
        replace(connection, row).await
    }

    /// The secret of a key, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it does not open with this key-encryption key.
    pub async fn get_secret(self, key: &str) -> Result<Option<Zeroizing<String>>, StoreError> {
        let sealed = self.row(key).await?.and_then(|row| row.sealed);
        sealed.map(|sealed| self.open(key, &sealed)).transpose()
    }

    /// Sets the secret of a key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn put_secret(self, key: &str, value: &str) -> Result<(), StoreError> {
        replace(self.0.db(), self.sealed(key, value)?).await
    }

    /// Sets the secret of a key that has none yet, and gives the one that is there now: of several who come at once, all get the same.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the stored one does not open with this key-encryption key.
    pub async fn put_secret_new(self, key: &str, value: &str) -> Result<Zeroizing<String>, StoreError> {
        self.add_secret(self.0.db(), key, value).await?;
        self.get_secret(key).await?.ok_or(StoreError::Corrupt { what: "secret setting" })
    }

    /// Sets the secret of a key that has none yet; whether it did.
    pub(super) async fn add_secret(
        self,
        connection: &impl ConnectionTrait,
        key: &str,
        value: &str,
    ) -> Result<bool, StoreError> {
        let there = OnConflict::column(setting::Column::Key).do_nothing().to_owned();
        let added = setting::Entity::insert(self.sealed(key, value)?.into_active_model()).on_conflict(there);
        match added.exec_without_returning(connection).await {
            Ok(rows) => Ok(rows == 1),
            Err(DbErr::RecordNotInserted) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets a key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete(self, key: &str) -> Result<(), StoreError> {
        setting::Entity::delete_by_id(key.to_owned()).exec(self.0.db()).await?;
        Ok(())
    }

    /// Whether the key-encryption key is the one this database knows; the first key is the one.
    pub(super) async fn check_key(self) -> Result<(), ConnectError> {
        match self.put_secret_new(CHECK, CHECK_WORD).await {
            Ok(word) if word.as_str() == CHECK_WORD => Ok(()),
            Ok(_) | Err(StoreError::Corrupt { .. }) => Err(ConnectError::WrongKey),
            Err(error) => Err(error.into()),
        }
    }

    async fn row(self, key: &str) -> Result<Option<setting::Model>, StoreError> {
        Ok(setting::Entity::find_by_id(key.to_owned()).one(self.0.db()).await?)
    }

    fn sealed(self, key: &str, value: &str) -> Result<setting::Model, StoreError> {
        let sealed = self.0.kek().seal(&owner(key), value.as_bytes())?;
        Ok(setting::Model { key: key.to_owned(), value: None, sealed: Some(sealed) })
    }

    fn open(self, key: &str, sealed: &[u8]) -> Result<Zeroizing<String>, StoreError> {
        let corrupt = StoreError::Corrupt { what: "secret setting" };
        let Some(plain) = self.0.kek().open(&owner(key), sealed) else { return Err(corrupt) };
        std::str::from_utf8(&plain).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| corrupt)
    }
}

async fn replace(connection: &impl ConnectionTrait, model: setting::Model) -> Result<(), StoreError> {
    let columns = [setting::Column::Value, setting::Column::Sealed];
    let there = OnConflict::column(setting::Column::Key).update_columns(columns).to_owned();
    setting::Entity::insert(model.into_active_model()).on_conflict(there).exec_without_returning(connection).await?;
    Ok(())
}

pub(super) fn owner(key: &str) -> String {
    format!("setting {key}")
}
