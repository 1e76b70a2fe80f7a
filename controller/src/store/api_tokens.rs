//! API tokens.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use super::convert::{moment, ms, optional_text, text};
use super::entity::api_token;
use super::{Org, OrgTx, Store, StoreError};
use crate::domain::{ApiToken, ApiTokenId, OrgId, PageSize, Time};

impl Store {
    /// The live token with this hash, and its organisation.
    pub async fn api_token_by_hash(
        &self,
        hash: &[u8; 32],
        now: Time,
    ) -> Result<Option<(OrgId, ApiToken)>, StoreError> {
        let row = api_token::Entity::find()
            .filter(api_token::Column::Hash.eq(hash.to_vec()))
            .filter(api_token::Column::ExpiresAt.gt(ms(now)))
            .one(&self.read)
            .await?;
        row.map(|row| Ok((row.org_id.into(), token(row)?))).transpose()
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// Tokens from the newest, after `after`; one more than `size` when the list
    /// goes on.
    pub async fn api_tokens(
        &self,
        after: Option<ApiTokenId>,
        size: PageSize,
    ) -> Result<Vec<ApiToken>, StoreError> {
        let mut query = api_token::Entity::find().filter(api_token::Column::OrgId.eq(self.org));
        if let Some(after) = after {
            query = query.filter(api_token::Column::Id.lt(after.uuid()));
        }
        let query = query.order_by_desc(api_token::Column::Id).limit(size.get() as u64 + 1);
        query.all(&self.conn).await?.into_iter().map(token).collect()
    }

    /// A token.
    pub async fn api_token(&self, id: ApiTokenId) -> Result<Option<ApiToken>, StoreError> {
        let query = api_token::Entity::find_by_id(id.uuid()).filter(api_token::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(token).transpose()
    }
}

impl OrgTx {
    /// Writes a new token.
    pub async fn add_api_token(&self, hash: &[u8; 32], made: &ApiToken) -> Result<(), StoreError> {
        let row = api_token::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            name: Set(made.name.to_string()),
            role: Set(made.role.as_str().to_owned()),
            hash: Set(hash.to_vec()),
            network: Set(made.network.map(|n| n.to_string())),
            created_at: Set(ms(made.created_at)),
            expires_at: Set(ms(made.expires_at)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Deletes a token. `false` when there was none.
    pub async fn delete_api_token(&self, id: ApiTokenId) -> Result<bool, StoreError> {
        let deleted = api_token::Entity::delete_many()
            .filter(api_token::Column::OrgId.eq(self.org))
            .filter(api_token::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(deleted.rows_affected == 1)
    }
}

fn token(row: api_token::Model) -> Result<ApiToken, StoreError> {
    Ok(ApiToken {
        id: row.id.into(),
        name: text(&row.name, "token name")?,
        role: text(&row.role, "role")?,
        network: optional_text(row.network.as_deref(), "network")?,
        created_at: moment(row.created_at)?,
        expires_at: moment(row.expires_at)?,
    })
}
