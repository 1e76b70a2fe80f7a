//! Join tokens: make, list, take back.

use std::time::Duration;

use culvert_pki::token;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::{App, Error, Once, require_admin};
use crate::domain::{
    Act, Caller, ClusterId, ClusterName, ClusterRef, Cursor, JoinToken, JoinTokenId, Page, PageSize, Time,
};

/// What a new join token shall be.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// How long it lives.
    pub life: Duration,
    /// Network it may be used from.
    pub network: Option<IpNet>,
}

/// A fresh join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssuedJoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// That cluster's name.
    pub cluster_name: ClusterName,
    /// The token.
    pub token: Secret,
    /// From when on it is refused.
    pub expires_at: Time,
}

/// The cursor's name of this list.
const LIST: &str = "join-tokens";

impl App {
    /// Makes a join token for a cluster.
    pub async fn create_join_token(
        &self,
        caller: &Caller,
        which: &ClusterRef,
        new: NewJoinToken,
        once: Option<&Once>,
    ) -> Result<IssuedJoinToken, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall(caller, &tx, once, now).await? {
            return Ok(earlier);
        }
        let cluster = tx.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        let token = token::JoinToken::generate(self.pin(), None)?;
        let record = JoinToken {
            id: JoinTokenId::generate(),
            cluster: cluster.id,
            public_id: token.id().to_string(),
            network: new.network.map(|n| n.trunc()),
            created_at: now,
            expires_at: now + new.life,
            revoked_at: None,
            used: None,
        };
        tx.add_join_token(token.hash().as_bytes(), &record).await?;
        tx.audit(Act::JoinTokenCreated, record.id, format!("for cluster {}", cluster.name), now).await?;
        let issued = IssuedJoinToken {
            id: record.id,
            cluster: cluster.id,
            cluster_name: cluster.name,
            token: token.expose().into(),
            expires_at: record.expires_at,
        };
        self.remember(caller, &tx, once, &issued).await?;
        tx.commit().await?;
        Ok(issued)
    }

    /// The join tokens of a cluster, newest first.
    pub async fn join_tokens(
        &self,
        caller: &Caller,
        which: &ClusterRef,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<JoinToken>, Error> {
        let after: Option<JoinTokenId> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let cluster = store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        let found = store.join_tokens(cluster.id, after, size).await?;
        Ok(Page::cut(found, size, LIST, |token| token.id.to_string()))
    }

    /// Takes a join token back. One that was used stays as it is.
    pub async fn revoke_join_token(
        &self,
        caller: &Caller,
        which: &ClusterRef,
        id: JoinTokenId,
    ) -> Result<(), Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        let cluster = tx.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        tx.join_token(cluster.id, id).await?.ok_or(Error::NotFound("join token"))?;
        if tx.revoke_join_token(id, now).await? {
            tx.audit(Act::JoinTokenRevoked, id, format!("of cluster {}", cluster.name), now).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
