//! Attempts to enrol, written down as the doors see them.
//!
//! An attempt is for people who wait in front of a wizard. When writing one down
//! fails, the enrolment goes on: the failure is logged and nothing else.

use std::net::IpAddr;

use culvert_pki::token::TokenId;

use super::enrolment::TurnedAway;
use super::feed::News;
use super::{App, Error};
use crate::domain::agent::bounded_text;
use crate::domain::{Attempt, AttemptId, Caller, Cause, ClusterId, OrgId, Outcome, Stage};

/// Names an attempt between the steps of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// Whose it is.
    pub org: OrgId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub id: AttemptId,
}

impl App {
    /// Notes that a connection named a token; `None` when the token is unknown, or
    /// its address tries too often.
    pub async fn attempt_reached(&self, token: &TokenId, source: IpAddr) -> Option<AttemptKey> {
        if self.inner.reaches.take(source, self.now()).is_err() {
            return None;
        }
        let begun = async {
            match self.store().join_token_by_public_id(&token.to_string()).await? {
                Some((org, token, _)) => self.begin_attempt(org, token.cluster, source).await.map(Some),
                None => Ok(None),
            }
        };
        begun.await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "attempt not written down");
            None
        })
    }

    /// Notes that an attempt came to `stage`, with the version the agent told.
    pub async fn advance_attempt(&self, key: AttemptKey, stage: Stage, version: Option<&str>) {
        let change = |attempt: &mut Attempt, now| {
            attempt.advance(stage, now);
            if let Some(version) = version {
                attempt.agent_version = Some(bounded_text(version, 100));
            }
        };
        self.change_attempt(key, change).await;
    }

    /// Notes what stopped an attempt in `stage`.
    pub async fn stop_attempt(
        &self,
        key: AttemptKey,
        stage: Stage,
        outcome: Outcome,
        cause: Cause,
        detail: &str,
    ) {
        let detail = bounded_text(detail, 500);
        self.change_attempt(key, |attempt, _| attempt.stop(stage, outcome, cause, detail)).await;
    }

    pub(super) async fn begin_attempt(
        &self,
        org: OrgId,
        cluster: ClusterId,
        source: IpAddr,
    ) -> Result<AttemptKey, Error> {
        let attempt = Attempt::begin(cluster, source.to_canonical(), self.now());
        let tx = self.store().write(&Caller::controller(org)).await?;
        tx.put_attempt(&attempt).await?;
        tx.commit().await?;
        let key = AttemptKey { org, cluster, id: attempt.id };
        self.feed().publish(org, cluster, News::Attempt(Box::new(attempt)));
        Ok(key)
    }

    async fn change_attempt(&self, key: AttemptKey, change: impl FnOnce(&mut Attempt, crate::domain::Time)) {
        if let Err(error) = self.try_change_attempt(key, change).await {
            tracing::warn!(attempt = %key.id, error = &error as &dyn std::error::Error, "attempt not written down");
        }
    }

    async fn try_change_attempt(
        &self,
        key: AttemptKey,
        change: impl FnOnce(&mut Attempt, crate::domain::Time),
    ) -> Result<(), Error> {
        let tx = self.store().write(&Caller::controller(key.org)).await?;
        // Forgotten meanwhile, or its cluster deleted.
        let Some(before) = tx.attempt(key.id).await? else { return Ok(()) };
        let mut attempt = before.clone();
        change(&mut attempt, self.now());
        if attempt == before {
            return Ok(());
        }
        tx.put_attempt(&attempt).await?;
        tx.commit().await?;
        self.feed().publish(key.org, key.cluster, News::Attempt(Box::new(attempt)));
        Ok(())
    }

    /// The attempt of a cluster that enrolled and has not come to its end, if any.
    pub(super) async fn running_attempt(
        &self,
        caller: &Caller,
        cluster: ClusterId,
    ) -> Result<Option<AttemptKey>, Error> {
        let attempts = self.store().org(caller).attempts(cluster).await?;
        let running = |a: &&Attempt| a.stage >= Stage::Identity && a.outcome != Outcome::Passed;
        let newest = attempts.iter().take(1).find(running);
        Ok(newest.map(|a| AttemptKey { org: caller.org(), cluster, id: a.id }))
    }

    pub(super) async fn stop_running_attempt(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        stage: Stage,
        outcome: Outcome,
        turned: &TurnedAway,
    ) -> Result<(), Error> {
        if let Some(key) = self.running_attempt(caller, cluster).await? {
            self.stop_attempt(key, stage, outcome, turned.cause, &turned.detail).await;
        }
        Ok(())
    }
}
