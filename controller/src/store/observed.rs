//! Objects of customers' clusters, as their agents told them.

use std::collections::HashMap;

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Select,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::convert::{from_json, json, moment, ms, text, unsigned};
use super::entity::{observed_cluster, observed_object};
use super::{Org, OrgTx, StoreError};
use crate::domain::observed::{Mirror, ObjectKey, ObjectKind, Observation, ObservedObject, object_id};
use crate::domain::{ClusterId, Time};

/// Which observed objects are wanted; what is not set does not matter.
#[derive(Debug, Clone, Default)]
pub struct ObservedFilter {
    /// Of this kind.
    pub kind: Option<ObjectKind>,
    /// Of this cluster.
    pub cluster: Option<ClusterId>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// With this name.
    pub name: Option<String>,
    /// With this id of ours.
    pub id: Option<Uuid>,
    /// With this record in their label.
    pub record: Option<String>,
    /// After this one in the order of the list: when the object was made, and its id.
    pub after: Option<(Time, Uuid)>,
}

/// What one object looks like without being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    digest: Vec<u8>,
    /// Length of its JSON.
    pub bytes: u64,
}

impl Seen {
    /// Whether what was told of the object is what is kept already.
    #[must_use]
    pub fn is(&self, told: &Written) -> bool {
        self.digest == told.digest
    }
}

/// An observation as it will be written.
#[derive(Debug, Clone)]
pub struct Written {
    told: Observation,
    object: String,
    digest: Vec<u8>,
}

impl Written {
    /// Prepares an observation.
    pub fn of(told: Observation) -> Result<Self, StoreError> {
        let object = json(&told.object)?;
        let mut digest = Sha256::new();
        digest.update([u8::from(told.cut)]);
        digest.update(object.as_bytes());
        let digest = digest.finalize().to_vec();
        Ok(Self { told, object, digest })
    }

    /// Length of its JSON.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.object.len() as u64
    }

    /// What was told.
    #[must_use]
    pub fn told(&self) -> &Observation {
        &self.told
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// Observed objects, those made last first, at most `limit`.
    pub async fn observed(
        &self,
        filter: &ObservedFilter,
        limit: u64,
    ) -> Result<Vec<ObservedObject>, StoreError> {
        use observed_object::Column;
        let query = filtered(observed_object::Entity::find().filter(Column::OrgId.eq(self.org)), filter);
        let query = query.order_by_desc(Column::MadeAt).order_by_desc(Column::Id).limit(limit);
        query.all(&self.conn).await?.into_iter().map(object).collect()
    }

    /// One observed object.
    pub async fn observed_one(
        &self,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<ObservedObject>, StoreError> {
        let row = self.one(cluster, key).one(&self.conn).await?;
        row.map(object).transpose()
    }

    /// How much is known of a cluster's objects; `None` when nothing ever was.
    pub async fn mirror(&self, cluster: ClusterId) -> Result<Option<Mirror>, StoreError> {
        let query = observed_cluster::Entity::find_by_id(cluster.uuid())
            .filter(observed_cluster::Column::OrgId.eq(self.org));
        let row = query.one(&self.conn).await?;
        row.map(|row| Ok(Mirror { synced_at: moment(row.synced_at)?, partial: row.partial })).transpose()
    }

    /// What is kept of a cluster, each object without its content.
    pub async fn observed_keys(&self, cluster: ClusterId) -> Result<HashMap<ObjectKey, Seen>, StoreError> {
        use observed_object::Column;
        let rows: Vec<(String, String, String, Vec<u8>, i64)> = observed_object::Entity::find()
            .select_only()
            .columns([Column::Kind, Column::Namespace, Column::Name, Column::Digest, Column::Bytes])
            .filter(Column::OrgId.eq(self.org))
            .filter(Column::ClusterId.eq(cluster.uuid()))
            .into_tuple()
            .all(&self.conn)
            .await?;
        let seen = |(kind, namespace, name, digest, bytes): (String, String, String, Vec<u8>, i64)| {
            let key = ObjectKey { kind: text(&kind, "kind")?, namespace, name };
            Ok((key, Seen { digest, bytes: unsigned(bytes)? }))
        };
        rows.into_iter().map(seen).collect()
    }

    fn one(&self, cluster: ClusterId, key: &ObjectKey) -> Select<observed_object::Entity> {
        let id = (cluster.uuid(), key.kind.as_str().to_owned(), key.namespace.clone(), key.name.clone());
        observed_object::Entity::find_by_id(id).filter(observed_object::Column::OrgId.eq(self.org))
    }
}

fn filtered(
    mut query: Select<observed_object::Entity>,
    filter: &ObservedFilter,
) -> Select<observed_object::Entity> {
    use observed_object::Column;
    if let Some(kind) = filter.kind {
        query = query.filter(Column::Kind.eq(kind.as_str()));
    }
    if let Some(cluster) = filter.cluster {
        query = query.filter(Column::ClusterId.eq(cluster.uuid()));
    }
    if let Some(namespace) = &filter.namespace {
        query = query.filter(Column::Namespace.eq(namespace.as_str()));
    }
    if let Some(name) = &filter.name {
        query = query.filter(Column::Name.eq(name.as_str()));
    }
    if let Some(id) = filter.id {
        query = query.filter(Column::Id.eq(id));
    }
    if let Some(record) = &filter.record {
        query = query.filter(Column::Record.eq(record.as_str()));
    }
    if let Some((made_at, id)) = filter.after {
        let same = Condition::all().add(Column::MadeAt.eq(ms(made_at))).add(Column::Id.lt(id));
        query = query.filter(Condition::any().add(Column::MadeAt.lt(ms(made_at))).add(same));
    }
    query
}

impl OrgTx {
    /// Writes what was told of an object, over what was known of it.
    pub async fn put_observed(
        &self,
        cluster: ClusterId,
        written: &Written,
        now: Time,
    ) -> Result<(), StoreError> {
        use observed_object::Column;
        let told = &written.told;
        let row = observed_object::ActiveModel {
            cluster_id: Set(cluster.uuid()),
            kind: Set(told.key.kind.as_str().to_owned()),
            namespace: Set(told.key.namespace.clone()),
            name: Set(told.key.name.clone()),
            org_id: Set(self.org),
            id: Set(object_id(cluster, told.uid)),
            uid: Set(told.uid),
            record: Set(told.record.clone()),
            generation: Set(told.generation),
            made_at: Set(ms(told.made_at)),
            object: Set(written.object.clone()),
            bytes: Set(i64::try_from(written.object.len()).unwrap_or(i64::MAX)),
            digest: Set(written.digest.clone()),
            cut: Set(told.cut),
            observed_at: Set(ms(now)),
        };
        let key = [Column::ClusterId, Column::Kind, Column::Namespace, Column::Name];
        let rest = [
            Column::Id,
            Column::Uid,
            Column::Record,
            Column::Generation,
            Column::MadeAt,
            Column::Object,
            Column::Bytes,
            Column::Digest,
            Column::Cut,
            Column::ObservedAt,
        ];
        let over = OnConflict::columns(key).update_columns(rest).to_owned();
        observed_object::Entity::insert(row).on_conflict(over).exec_without_returning(&self.conn).await?;
        Ok(())
    }

    /// Forgets an object. `false` when it was not known.
    pub async fn forget_observed(&self, cluster: ClusterId, key: &ObjectKey) -> Result<bool, StoreError> {
        use observed_object::Column;
        let gone = observed_object::Entity::delete_many()
            .filter(Column::OrgId.eq(self.org))
            .filter(Column::ClusterId.eq(cluster.uuid()))
            .filter(Column::Kind.eq(key.kind.as_str()))
            .filter(Column::Namespace.eq(key.namespace.as_str()))
            .filter(Column::Name.eq(key.name.as_str()))
            .exec(&self.conn)
            .await?;
        Ok(gone.rows_affected == 1)
    }

    /// Notes that all objects of a cluster were told.
    pub async fn note_mirror(&self, cluster: ClusterId, mirror: Mirror) -> Result<(), StoreError> {
        use observed_cluster::Column;
        let row = observed_cluster::ActiveModel {
            cluster_id: Set(cluster.uuid()),
            org_id: Set(self.org),
            synced_at: Set(ms(mirror.synced_at)),
            partial: Set(mirror.partial),
        };
        let over = OnConflict::column(Column::ClusterId)
            .update_columns([Column::SyncedAt, Column::Partial])
            .to_owned();
        observed_cluster::Entity::insert(row).on_conflict(over).exec_without_returning(&self.conn).await?;
        Ok(())
    }
}

fn object(row: observed_object::Model) -> Result<ObservedObject, StoreError> {
    let key = ObjectKey { kind: text(&row.kind, "kind")?, namespace: row.namespace, name: row.name };
    Ok(ObservedObject {
        id: row.id,
        cluster: row.cluster_id.into(),
        told: Observation {
            key,
            uid: row.uid,
            record: row.record,
            generation: row.generation,
            made_at: moment(row.made_at)?,
            object: from_json(&row.object, "observed object")?,
            cut: row.cut,
        },
        observed_at: moment(row.observed_at)?,
    })
}
