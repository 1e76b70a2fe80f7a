//! Clusters: make, list, look, delete, lock.

use serde::{Deserialize, Serialize};

use super::feed::News;
use super::views::ClusterView;
use super::{App, Error, Once, require_admin};
use crate::domain::cluster::LOCK_MESSAGE_MAX;
use crate::domain::{
    Act, Caller, Cause, Cluster, ClusterId, ClusterName, ClusterRef, ClusterState, Cursor, Fault, Labels,
    Lock, Page, PageSize,
};
use crate::store::StoreError;

/// What a new cluster shall be.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// Its name.
    pub name: ClusterName,
    /// Its labels.
    pub labels: Labels,
}

/// Which clusters of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct ClusterFilter {
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Only those in this state.
    pub state: Option<ClusterState>,
}

/// Records looked at in one go while a list is filtered by state.
const STRIDE: u64 = 200;
/// The cursor's name of this list.
const LIST: &str = "clusters";

#[derive(Serialize, Deserialize)]
struct Made(Cluster);

impl App {
    /// Makes a cluster's record.
    pub async fn create_cluster(
        &self,
        caller: &Caller,
        new: NewCluster,
        once: Option<&Once>,
    ) -> Result<ClusterView, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(Made(earlier)) = self.recall(caller, &tx, once, now).await? {
            drop(tx);
            return self.view(&self.store().org(caller), earlier).await;
        }
        let cluster = Cluster {
            id: ClusterId::generate(),
            name: new.name,
            labels: new.labels,
            created_at: now,
            lock: None,
        };
        tx.add_cluster(&cluster).await.map_err(|error| taken(error, &cluster.name))?;
        tx.audit(Act::ClusterCreated, cluster.id, cluster.name.as_str(), now).await?;
        let made = Made(cluster);
        self.remember(caller, &tx, once, &made).await?;
        tx.commit().await?;
        let view = self.view(&self.store().org(caller), made.0).await?;
        self.publish_cluster(caller, &view);
        Ok(view)
    }

    /// The caller's clusters by name.
    pub async fn clusters(
        &self,
        caller: &Caller,
        filter: &ClusterFilter,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<ClusterView>, Error> {
        let mut after: Option<ClusterName> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let stride = match filter.state {
            None => size.get() as u64 + 1,
            Some(_) => STRIDE,
        };
        let mut found = Vec::new();
        loop {
            let clusters = store.clusters(after.as_ref(), filter.name.as_deref(), stride).await?;
            let looked_at = clusters.len() as u64;
            after = clusters.last().map(|c| c.name.clone());
            let views = self.views(&store, clusters).await?;
            found.extend(views.into_iter().filter(|v| filter.state.is_none_or(|wanted| v.state == wanted)));
            if looked_at < stride || found.len() > size.get() {
                return Ok(Page::cut(found, size, LIST, |v| v.cluster.name.to_string()));
            }
        }
    }

    /// One cluster.
    pub async fn cluster(&self, caller: &Caller, which: &ClusterRef) -> Result<ClusterView, Error> {
        let store = self.store().org(caller);
        let cluster = store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        self.view(&store, cluster).await
    }

    /// Deletes a cluster's record, its agent's identity with it; sessions and live
    /// streams end. Nothing that runs in the cluster is touched.
    pub async fn delete_cluster(&self, caller: &Caller, which: &ClusterRef) -> Result<(), Error> {
        require_admin(caller)?;
        let tx = self.store().write(caller).await?;
        let cluster = tx.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        let agents = tx.agents_of(&[cluster.id]).await?;
        if !tx.delete_cluster(cluster.id).await? {
            return Err(Error::NotFound("cluster"));
        }
        tx.audit(Act::ClusterDeleted, cluster.id, cluster.name.as_str(), self.now()).await?;
        tx.commit().await?;
        self.revoked();
        for agent in agents {
            self.live().cut(caller.org(), agent.id, Cause::Revoked, "the cluster was deleted");
        }
        self.publish_cluster(caller, &ClusterView::deleted(cluster));
        Ok(())
    }

    /// Locks a cluster: its session and live streams end at once.
    pub async fn lock_cluster(
        &self,
        caller: &Caller,
        which: &ClusterRef,
        message: &str,
    ) -> Result<ClusterView, Error> {
        require_admin(caller)?;
        let lock = Lock { message: lock_message(message)?, at: self.now() };
        let view = self.set_lock(caller, which, Some(lock)).await?;
        self.revoked();
        if let Some(agent) = &view.agent {
            let why = view.cluster.lock.as_ref().map(|l| l.message.as_str()).unwrap_or_default();
            let why = format!("the cluster is locked: {why}");
            self.live().cut(caller.org(), agent.agent.id, Cause::Locked, &why);
        }
        Ok(view)
    }

    /// Unlocks a cluster.
    pub async fn unlock_cluster(&self, caller: &Caller, which: &ClusterRef) -> Result<ClusterView, Error> {
        require_admin(caller)?;
        let view = self.set_lock(caller, which, None).await?;
        self.changed();
        Ok(view)
    }

    async fn set_lock(
        &self,
        caller: &Caller,
        which: &ClusterRef,
        lock: Option<Lock>,
    ) -> Result<ClusterView, Error> {
        let tx = self.store().write(caller).await?;
        let mut cluster = tx.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        if !tx.set_cluster_lock(cluster.id, lock.as_ref()).await? {
            return Err(Error::NotFound("cluster"));
        }
        let (act, detail) = match &lock {
            Some(lock) => (Act::ClusterLocked, lock.message.clone()),
            None => (Act::ClusterUnlocked, String::new()),
        };
        tx.audit(act, cluster.id, detail, self.now()).await?;
        tx.commit().await?;
        cluster.lock = lock;
        let view = self.view(&self.store().org(caller), cluster).await?;
        self.publish_cluster(caller, &view);
        Ok(view)
    }

    pub(super) fn publish_cluster(&self, caller: &Caller, view: &ClusterView) {
        self.feed().publish(caller.org(), view.cluster.id, News::Cluster(Box::new(view.clone())));
    }
}

fn taken(error: StoreError, name: &ClusterName) -> Error {
    match error {
        StoreError::Duplicate(_) => {
            Error::Conflict { code: "name_taken", reason: format!("there is a cluster named {name} already") }
        }
        other => other.into(),
    }
}

fn lock_message(message: &str) -> Result<String, Error> {
    let text = message.trim();
    let good =
        !text.is_empty() && text.chars().count() <= LOCK_MESSAGE_MAX && !text.chars().any(char::is_control);
    if good {
        Ok(text.to_owned())
    } else {
        let detail = "must be 1 to 500 characters on one line: it is what people who are refused will read";
        Err(Error::Invalid(vec![Fault::new("message", "invalid", detail)]))
    }
}
