//! A store for backups that pods reach, and the target that names it.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_resources::BackupTarget;
use serde_json::{Value, json};

use super::DataPlane;
use crate::targets::S3;

/// How long a check of a target may take.
const CHECKED: Duration = Duration::from_secs(60);

/// The region that the server calls itself, which is any.
const REGION: &str = "us-east-1";

/// An S3 server beside the cluster, which pods reach.
pub type Store = S3;

impl DataPlane {
    /// Starts a store of its own for a story, with a bucket.
    pub async fn store(&self, bucket: &str) -> anyhow::Result<Store> {
        let store = S3::start(&self.cluster().address().to_string()).await?;
        store.make_bucket(bucket)?;
        self.cluster().open(store.address().port()).await?;
        Ok(store)
    }

    /// Starts a copy of a store of another cluster beside this one.
    pub async fn copy_of(&self, store: &Store) -> anyhow::Result<Store> {
        let copy = store.copied_to(&self.cluster().address().to_string()).await?;
        self.cluster().open(copy.address().port()).await?;
        Ok(copy)
    }

    /// Makes a target of a bucket, with its Secret, and waits until it counts as reachable.
    pub async fn target(
        &self,
        namespace: &str,
        name: &str,
        store: &Store,
        bucket: &str,
    ) -> anyhow::Result<()> {
        self.credentials(namespace, name, store).await?;
        self.apply(namespace, "BackupTarget", name, &target_spec(name, store, bucket)).await?;
        self.until(namespace, name, CHECKED, |target: &BackupTarget| {
            let status = target.status.as_ref().context("no status yet")?;
            let reachable = status.conditions.iter().find(|condition| condition.type_ == "Reachable");
            ensure!(reachable.is_some_and(|condition| condition.status == "True"), "{status:?}");
            Ok(())
        })
        .await
    }

    /// Writes the Secret of a target, as it is to be after the store's key has changed, too.
    pub async fn credentials(&self, namespace: &str, name: &str, store: &Store) -> anyhow::Result<()> {
        let (id, secret) = store.credentials();
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "stringData": {
                "access-key-id": id,
                "secret-access-key": secret,
                // One for all, so that any cluster of a story can read what another wrote.
                "encryption-key": "c3RvcmllcyBuZWVkIGEga2V5IG9mIDMyIGJ5dGVzICE=",
            },
        });
        self.cluster().apply(&object.to_string()).await
    }
}

/// The spec of a target with the Secret of its own name.
pub fn target_spec(name: &str, store: &Store, bucket: &str) -> Value {
    json!({
        "s3": {"bucket": bucket, "endpoint": store.endpoint(), "region": REGION, "pathStyle": true},
        "secret": {"name": name},
        "caBundle": store.ca(),
    })
}
