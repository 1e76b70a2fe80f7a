//! Answers kept for requests that are repeated with the same key.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};

use super::convert::{hash, ms};
use super::entity::idempotency_key;
use super::{OrgTx, StoreError};
use crate::domain::Time;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// Nobody used it; it is now reserved by this transaction.
    Fresh,
    /// It was used, with this request, and this was the sealed answer.
    Earlier {
        /// Hash of the request that used it.
        request: [u8; 32],
        /// The answer, sealed.
        answer: Vec<u8>,
    },
}

impl OrgTx {
    /// Reserves `key` for the caller, or tells what it was used for. When two
    /// requests race, the second waits here for the first.
    pub async fn recall(
        &self,
        key: &str,
        request: &[u8; 32],
        now: Time,
        expires_at: Time,
    ) -> Result<Recalled, StoreError> {
        self.forget_if_over(key, now).await?;
        let row = idempotency_key::ActiveModel {
            org_id: Set(self.org),
            actor: Set(self.caller.actor().id()),
            key: Set(key.to_owned()),
            request_hash: Set(request.to_vec()),
            answer: Set(None),
            expires_at: Set(ms(expires_at)),
        };
        let inserted = idempotency_key::Entity::insert(row)
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .exec_without_returning(&self.conn)
            .await?;
        if inserted == 1 {
            return Ok(Recalled::Fresh);
        }
        let found = idempotency_key::Entity::find_by_id((self.org, self.caller.actor().id(), key.to_owned()))
            .one(&self.conn)
            .await?
            .ok_or(StoreError::Corrupt("idempotency key"))?;
        let answer = found.answer.ok_or(StoreError::Corrupt("idempotency answer"))?;
        Ok(Recalled::Earlier { request: hash(&found.request_hash)?, answer })
    }

    /// Keeps the sealed answer for the key that [`Self::recall`] reserved.
    pub async fn remember(&self, key: &str, answer: Vec<u8>) -> Result<(), StoreError> {
        idempotency_key::Entity::update_many()
            .col_expr(idempotency_key::Column::Answer, Expr::value(answer))
            .filter(idempotency_key::Column::OrgId.eq(self.org))
            .filter(idempotency_key::Column::Actor.eq(self.caller.actor().id()))
            .filter(idempotency_key::Column::Key.eq(key))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    async fn forget_if_over(&self, key: &str, now: Time) -> Result<(), StoreError> {
        idempotency_key::Entity::delete_many()
            .filter(idempotency_key::Column::OrgId.eq(self.org))
            .filter(idempotency_key::Column::Actor.eq(self.caller.actor().id()))
            .filter(idempotency_key::Column::Key.eq(key))
            .filter(idempotency_key::Column::ExpiresAt.lte(ms(now)))
            .exec(&self.conn)
            .await?;
        Ok(())
    }
}
