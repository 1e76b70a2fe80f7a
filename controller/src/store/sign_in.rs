//! Sign-in codes and sessions.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait,
    QueryFilter,
};

use super::convert::{moment, ms};
use super::entity::{session, sign_in_code};
use super::{Org, OrgTx, Store, StoreError};
use crate::domain::{OrgId, Session, SessionId, SignInCode, Time, UserId};

/// Whom a code lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeOwner {
    /// The organisation.
    pub org: OrgId,
    /// The person.
    pub user: UserId,
}

impl Store {
    /// Whom the code with this hash lets in, if it can still be used.
    pub async fn code_owner(&self, hash: &[u8; 32], now: Time) -> Result<Option<CodeOwner>, StoreError> {
        let row = sign_in_code::Entity::find_by_id(hash.to_vec())
            .filter(sign_in_code::Column::UsedAt.is_null())
            .filter(sign_in_code::Column::ExpiresAt.gt(ms(now)))
            .one(&self.read)
            .await?;
        Ok(row.map(|row| CodeOwner { org: row.org_id.into(), user: row.user_id.into() }))
    }

    /// The live session with this token hash, and its organisation.
    pub async fn session_by_hash(
        &self,
        hash: &[u8; 32],
        now: Time,
    ) -> Result<Option<(OrgId, Session)>, StoreError> {
        let row = session::Entity::find()
            .filter(session::Column::Hash.eq(hash.to_vec()))
            .filter(session::Column::ExpiresAt.gt(ms(now)))
            .one(&self.read)
            .await?;
        row.map(|row| Ok((row.org_id.into(), signed_in(row)?))).transpose()
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// Whether a session lives.
    pub async fn session_lives(&self, id: SessionId, now: Time) -> Result<bool, StoreError> {
        let query = session::Entity::find_by_id(id.uuid())
            .filter(session::Column::OrgId.eq(self.org))
            .filter(session::Column::ExpiresAt.gt(ms(now)));
        Ok(query.count(&self.conn).await? > 0)
    }
}

impl OrgTx {
    /// Writes a new code.
    pub async fn add_code(&self, hash: &[u8; 32], code: &SignInCode) -> Result<(), StoreError> {
        let row = sign_in_code::ActiveModel {
            hash: Set(hash.to_vec()),
            org_id: Set(self.org),
            user_id: Set(code.user.uuid()),
            created_at: Set(ms(code.created_at)),
            expires_at: Set(ms(code.expires_at)),
            used_at: Set(None),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Takes back the codes of a person that were not used.
    pub async fn drop_codes(&self, user: UserId) -> Result<(), StoreError> {
        sign_in_code::Entity::delete_many()
            .filter(sign_in_code::Column::OrgId.eq(self.org))
            .filter(sign_in_code::Column::UserId.eq(user.uuid()))
            .filter(sign_in_code::Column::UsedAt.is_null())
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Uses a code up. `false` when somebody else did, or its time has passed.
    pub async fn use_code(&self, hash: &[u8; 32], now: Time) -> Result<bool, StoreError> {
        let used = sign_in_code::Entity::update_many()
            .col_expr(sign_in_code::Column::UsedAt, Expr::value(ms(now)))
            .filter(sign_in_code::Column::OrgId.eq(self.org))
            .filter(sign_in_code::Column::Hash.eq(hash.to_vec()))
            .filter(sign_in_code::Column::UsedAt.is_null())
            .filter(sign_in_code::Column::ExpiresAt.gt(ms(now)))
            .exec(&self.conn)
            .await?;
        Ok(used.rows_affected == 1)
    }

    /// Writes a new session.
    pub async fn add_session(&self, hash: &[u8; 32], made: &Session) -> Result<(), StoreError> {
        let row = session::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            user_id: Set(made.user.uuid()),
            hash: Set(hash.to_vec()),
            created_at: Set(ms(made.created_at)),
            expires_at: Set(ms(made.expires_at)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Ends a session. `false` when there was none.
    pub async fn end_session(&self, id: SessionId) -> Result<bool, StoreError> {
        let ended = session::Entity::delete_many()
            .filter(session::Column::OrgId.eq(self.org))
            .filter(session::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(ended.rows_affected == 1)
    }
}

fn signed_in(row: session::Model) -> Result<Session, StoreError> {
    Ok(Session {
        id: row.id.into(),
        user: row.user_id.into(),
        created_at: moment(row.created_at)?,
        expires_at: moment(row.expires_at)?,
    })
}
