//! Join tokens.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use super::convert::{hash, moment, ms, optional_moment, optional_text, text};
use super::entity::join_token;
use super::{Org, OrgTx, Store, StoreError};
use crate::domain::join_token::Use;
use crate::domain::{ClusterId, JoinToken, JoinTokenId, OrgId, PageSize, Time};

impl Store {
    /// The token with the public id, its organisation, and the hash of its secret.
    pub async fn join_token_by_public_id(
        &self,
        public_id: &str,
    ) -> Result<Option<(OrgId, JoinToken, [u8; 32])>, StoreError> {
        let row = join_token::Entity::find()
            .filter(join_token::Column::PublicId.eq(public_id))
            .one(&self.read)
            .await?;
        row.map(|row| {
            let secret = hash(&row.hash)?;
            Ok((row.org_id.into(), token(row)?, secret))
        })
        .transpose()
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// Tokens of a cluster from the newest, after `after`; one more than `size`
    /// when the list goes on.
    pub async fn join_tokens(
        &self,
        of: ClusterId,
        after: Option<JoinTokenId>,
        size: PageSize,
    ) -> Result<Vec<JoinToken>, StoreError> {
        let mut query = join_token::Entity::find()
            .filter(join_token::Column::OrgId.eq(self.org))
            .filter(join_token::Column::ClusterId.eq(of.uuid()));
        if let Some(after) = after {
            query = query.filter(join_token::Column::Id.lt(after.uuid()));
        }
        let query = query.order_by_desc(join_token::Column::Id).limit(size.get() as u64 + 1);
        query.all(&self.conn).await?.into_iter().map(token).collect()
    }

    /// A token of a cluster.
    pub async fn join_token(&self, of: ClusterId, id: JoinTokenId) -> Result<Option<JoinToken>, StoreError> {
        let query = join_token::Entity::find_by_id(id.uuid())
            .filter(join_token::Column::OrgId.eq(self.org))
            .filter(join_token::Column::ClusterId.eq(of.uuid()));
        query.one(&self.conn).await?.map(token).transpose()
    }
}

impl OrgTx {
    /// Writes a new token.
    pub async fn add_join_token(&self, secret_hash: &[u8; 32], made: &JoinToken) -> Result<(), StoreError> {
        let row = join_token::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            cluster_id: Set(made.cluster.uuid()),
            public_id: Set(made.public_id.clone()),
            hash: Set(secret_hash.to_vec()),
            network: Set(made.network.map(|n| n.to_string())),
            created_at: Set(ms(made.created_at)),
            expires_at: Set(ms(made.expires_at)),
            revoked_at: Set(None),
            used_at: Set(None),
            used_from: Set(None),
            used_key: Set(None),
            used_agent: Set(None),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Takes a token back. `false` when it was used or taken back before.
    pub async fn revoke_join_token(&self, id: JoinTokenId, now: Time) -> Result<bool, StoreError> {
        let changed = join_token::Entity::update_many()
            .col_expr(join_token::Column::RevokedAt, Expr::value(ms(now)))
            .filter(join_token::Column::OrgId.eq(self.org))
            .filter(join_token::Column::Id.eq(id.uuid()))
            .filter(join_token::Column::UsedAt.is_null())
            .filter(join_token::Column::RevokedAt.is_null())
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Uses a token up. `false` when it can no longer be used: of any number who
    /// try at once, one gets `true`.
    pub async fn use_join_token(&self, id: JoinTokenId, used: &Use) -> Result<bool, StoreError> {
        let changed = join_token::Entity::update_many()
            .col_expr(join_token::Column::UsedAt, Expr::value(ms(used.at)))
            .col_expr(join_token::Column::UsedFrom, Expr::value(used.from.to_string()))
            .col_expr(join_token::Column::UsedKey, Expr::value(used.key.to_vec()))
            .col_expr(join_token::Column::UsedAgent, Expr::value(used.agent.uuid()))
            .filter(join_token::Column::OrgId.eq(self.org))
            .filter(join_token::Column::Id.eq(id.uuid()))
            .filter(join_token::Column::UsedAt.is_null())
            .filter(join_token::Column::RevokedAt.is_null())
            .filter(join_token::Column::ExpiresAt.gt(ms(used.at)))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }
}

fn token(row: join_token::Model) -> Result<JoinToken, StoreError> {
    let used = match (row.used_at, row.used_from, row.used_key, row.used_agent) {
        (Some(at), Some(from), Some(key), Some(agent)) => Some(Use {
            at: moment(at)?,
            from: text(&from, "address")?,
            key: hash(&key)?,
            agent: agent.into(),
        }),
        (None, None, None, None) => None,
        _ => return Err(StoreError::Corrupt("use of a join token")),
    };
    Ok(JoinToken {
        id: row.id.into(),
        cluster: row.cluster_id.into(),
        public_id: row.public_id,
        network: optional_text(row.network.as_deref(), "network")?,
        created_at: moment(row.created_at)?,
        expires_at: moment(row.expires_at)?,
        revoked_at: optional_moment(row.revoked_at)?,
        used,
    })
}
