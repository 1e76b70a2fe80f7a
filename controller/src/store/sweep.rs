//! Forgetting what has served its time.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::convert::ms;
use super::entity::{certificate, idempotency_key, join_token, session, sign_in_code};
use super::{Store, StoreError};
use crate::domain::Time;

/// How many rows were forgotten, by table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sign-in codes.
    pub codes: u64,
    /// Sessions.
    pub sessions: u64,
    /// Kept answers.
    pub answers: u64,
    /// Join tokens that nobody used.
    pub join_tokens: u64,
    /// Certificates of agents.
    pub certificates: u64,
}

impl Swept {
    /// All rows together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.codes + self.sessions + self.answers + self.join_tokens + self.certificates
    }
}

/// How long an unused join token stays visible after its end, and a certificate
/// stays known for a return after its own.
const KEPT_AFTER: time::Duration = time::Duration::days(90);

impl Store {
    /// Deletes what was over by `now`. An agent's newest certificate stays however
    /// old it is: it is what a return is proved with.
    pub async fn sweep(&self, now: Time) -> Result<Swept, StoreError> {
        let tx = self.begin().await?;
        let long_ago = ms(now - KEPT_AFTER);
        let codes = sign_in_code::Entity::delete_many()
            .filter(sign_in_code::Column::ExpiresAt.lte(ms(now)))
            .exec(&tx)
            .await?;
        let sessions =
            session::Entity::delete_many().filter(session::Column::ExpiresAt.lte(ms(now))).exec(&tx).await?;
        let answers = idempotency_key::Entity::delete_many()
            .filter(idempotency_key::Column::ExpiresAt.lte(ms(now)))
            .exec(&tx)
            .await?;
        let join_tokens = join_token::Entity::delete_many()
            .filter(join_token::Column::ExpiresAt.lte(long_ago))
            .filter(join_token::Column::UsedAt.is_null())
            .exec(&tx)
            .await?;
        let certificates = certificate::Entity::delete_many()
            .filter(certificate::Column::NotAfter.lte(long_ago))
            .filter(superseded())
            .exec(&tx)
            .await?;
        tx.commit().await?;
        Ok(Swept {
            codes: codes.rows_affected,
            sessions: sessions.rows_affected,
            answers: answers.rows_affected,
            join_tokens: join_tokens.rows_affected,
            certificates: certificates.rows_affected,
        })
    }
}

/// The agent has a newer certificate.
fn superseded() -> sea_orm::sea_query::SimpleExpr {
    use super::entity::agent;
    use sea_orm::ExprTrait;
    use sea_orm::sea_query::{Expr, Query};
    let newest = Query::select()
        .column((agent::Entity, agent::Column::Generation))
        .from(agent::Entity)
        .and_where(
            Expr::col((agent::Entity, agent::Column::Id))
                .equals((certificate::Entity, certificate::Column::AgentId)),
        )
        .to_owned();
    certificate::Column::Generation
        .into_expr()
        .lt(sea_orm::sea_query::SimpleExpr::SubQuery(None, Box::new(newest.into())))
}
