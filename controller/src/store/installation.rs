//! What belongs to the installation: settings, data keys, authorities.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, DatabaseTransaction, EntityTrait, QueryOrder};
use uuid::Uuid;

use super::convert::ms;
use super::entity::{authority, data_key, setting};
use super::{OrgTx, Store, StoreError};
use crate::domain::Time;

/// A data key as it is stored: wrapped.
#[derive(Debug, Clone)]
pub struct StoredDataKey {
    /// Whose key; nil for the installation's own.
    pub org: Uuid,
    /// Its version, from 1.
    pub version: u32,
    /// The key, wrapped by the key-encryption key.
    pub wrapped: Vec<u8>,
}

/// An authority as it is stored: with its key sealed.
#[derive(Debug, Clone)]
pub struct StoredAuthority {
    /// What it is for: `root`, `servers`, `agents:<org>`, `people:<org>`.
    pub name: String,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its key, sealed.
    pub sealed_key: Vec<u8>,
    /// End of its validity.
    pub not_after: Time,
}

/// A transaction on the installation as a whole; other processes that start wait.
#[derive(Debug)]
pub struct Installation {
    pub(super) conn: DatabaseTransaction,
}

impl Store {
    /// Begins a change of the installation.
    pub async fn installation(&self) -> Result<Installation, StoreError> {
        Ok(Installation { conn: self.begin_startup().await? })
    }
}

impl OrgTx {
    /// Notes that `name` has happened in this installation; a second time changes
    /// nothing.
    pub async fn mark(&self, name: &str) -> Result<(), StoreError> {
        let row = setting::ActiveModel { name: Set(name.to_owned()), value: Set("yes".to_owned()) };
        let mut conflict = OnConflict::column(setting::Column::Name);
        conflict.do_nothing();
        setting::Entity::insert(row).on_conflict(conflict).exec_without_returning(&self.conn).await?;
        Ok(())
    }
}

impl Installation {
    /// Keeps everything that was done.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.conn.commit().await?)
    }

    /// The setting `name`.
    pub async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(setting::Entity::find_by_id(name.to_owned()).one(&self.conn).await?.map(|row| row.value))
    }

    /// Keeps `value` as the setting `name`.
    pub async fn set(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let row = setting::ActiveModel { name: Set(name.to_owned()), value: Set(value.to_owned()) };
        let mut conflict = OnConflict::column(setting::Column::Name);
        conflict.update_column(setting::Column::Value);
        setting::Entity::insert(row).on_conflict(conflict).exec_without_returning(&self.conn).await?;
        Ok(())
    }

    /// All data keys, wrapped.
    pub async fn data_keys(&self) -> Result<Vec<StoredDataKey>, StoreError> {
        let rows = data_key::Entity::find().order_by_asc(data_key::Column::Version).all(&self.conn).await?;
        rows.into_iter()
            .map(|row| {
                let version = u32::try_from(row.version).map_err(|_| StoreError::Corrupt("key version"))?;
                Ok(StoredDataKey { org: row.org_id, version, wrapped: row.wrapped })
            })
            .collect()
    }

    /// Keeps a new data key.
    pub async fn add_data_key(&self, key: &StoredDataKey, now: Time) -> Result<(), StoreError> {
        let version = i32::try_from(key.version).map_err(|_| StoreError::Corrupt("key version"))?;
        let row = data_key::ActiveModel {
            org_id: Set(key.org),
            version: Set(version),
            wrapped: Set(key.wrapped.clone()),
            created_at: Set(ms(now)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// All authorities, keys sealed.
    pub async fn authorities(&self) -> Result<Vec<StoredAuthority>, StoreError> {
        let rows = authority::Entity::find().all(&self.conn).await?;
        rows.into_iter()
            .map(|row| {
                Ok(StoredAuthority {
                    name: row.name,
                    certificate: row.certificate,
                    sealed_key: row.sealed_key,
                    not_after: super::convert::moment(row.not_after)?,
                })
            })
            .collect()
    }

    /// Keeps a new authority.
    pub async fn add_authority(&self, made: &StoredAuthority, now: Time) -> Result<(), StoreError> {
        let row = authority::ActiveModel {
            name: Set(made.name.clone()),
            certificate: Set(made.certificate.clone()),
            sealed_key: Set(made.sealed_key.clone()),
            not_after: Set(ms(made.not_after)),
            created_at: Set(ms(now)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }
}
