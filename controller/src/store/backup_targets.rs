//! Backup targets, where they are wanted, and the keys of organisations' backups.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect,
};

use super::convert::{from_json, json, moment, ms, optional_moment, signed, text, unsigned};
use super::entity::{backup_key, backup_target, target_placement};
use super::{Org, OrgTx, Store, StoreError};
use crate::domain::backup_target::{Placement, Sent};
use crate::domain::{
    BackupTarget, BackupTargetId, BackupTargetRef, ClusterId, Namespace, OrgId, TargetName, Time,
};

impl Store {
    /// Placements of all organisations that are due, the longest waiting first.
    pub async fn due_placements(&self, now: Time, limit: u64) -> Result<Vec<(OrgId, Placement)>, StoreError> {
        use target_placement::Column as C;
        let query = target_placement::Entity::find().filter(C::DueAt.lte(ms(now))).order_by_asc(C::DueAt);
        let rows = query.limit(limit).all(&self.read).await?;
        rows.into_iter().map(|row| Ok((row.org_id.into(), placement(row)?))).collect()
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// A target, by id or name.
    pub async fn backup_target(&self, which: &BackupTargetRef) -> Result<Option<BackupTarget>, StoreError> {
        use backup_target::Column as C;
        let query = backup_target::Entity::find().filter(C::OrgId.eq(self.org));
        let query = match which {
            BackupTargetRef::Id(id) => query.filter(C::Id.eq(id.uuid())),
            BackupTargetRef::Name(name) => query.filter(C::Name.eq(name.as_str())),
        };
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Targets by name, after the name `after`, at most `limit`.
    pub async fn backup_targets(
        &self,
        after: Option<&TargetName>,
        limit: u64,
    ) -> Result<Vec<BackupTarget>, StoreError> {
        use backup_target::Column as C;
        let mut query = backup_target::Entity::find().filter(C::OrgId.eq(self.org));
        if let Some(after) = after {
            query = query.filter(C::Name.gt(after.as_str()));
        }
        let query = query.order_by_asc(C::Name).limit(limit);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// The sealed credentials of a target.
    pub async fn sealed_credentials(&self, id: BackupTargetId) -> Result<Option<Vec<u8>>, StoreError> {
        use backup_target::Column as C;
        let query = backup_target::Entity::find_by_id(id.uuid()).filter(C::OrgId.eq(self.org));
        Ok(query.one(&self.conn).await?.map(|row| row.sealed_credentials))
    }

    /// Where a target is wanted.
    pub async fn placements_of(&self, id: BackupTargetId) -> Result<Vec<Placement>, StoreError> {
        use target_placement::Column as C;
        let query = target_placement::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::TargetId.eq(id.uuid()))
            .order_by_asc(C::ClusterId)
            .order_by_asc(C::Namespace);
        query.all(&self.conn).await?.into_iter().map(placement).collect()
    }

    /// The sealed key of the organisation's backups.
    pub async fn backup_key(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let row = backup_key::Entity::find_by_id(self.org).one(&self.conn).await?;
        Ok(row.map(|row| row.sealed_key))
    }
}

impl OrgTx {
    /// Writes a new target with its sealed credentials.
    pub async fn add_backup_target(&self, made: &BackupTarget, sealed: &[u8]) -> Result<(), StoreError> {
        let row = backup_target::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            name: Set(made.name.to_string()),
            spec: Set(json(&made.spec)?),
            revision: Set(signed(made.revision)),
            credential_generation: Set(signed(made.credential_generation)),
            sealed_credentials: Set(sealed.to_vec()),
            check_asked_at: Set(made.check_asked_at.map(ms)),
            created_at: Set(ms(made.created_at)),
            deleted_at: Set(made.deleted_at.map(ms)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Writes a target whose stored revision is the one before, and its credentials when they are
    /// new. `false` when somebody else was faster. Its placements are due.
    pub async fn change_backup_target(
        &self,
        new: &BackupTarget,
        sealed: Option<&[u8]>,
        now: Time,
    ) -> Result<bool, StoreError> {
        use backup_target::Column as C;
        let mut change = backup_target::Entity::update_many()
            .col_expr(C::Spec, Expr::value(json(&new.spec)?))
            .col_expr(C::Revision, Expr::value(signed(new.revision)))
            .col_expr(C::CredentialGeneration, Expr::value(signed(new.credential_generation)))
            .col_expr(C::CheckAskedAt, Expr::value(new.check_asked_at.map(ms)))
            .col_expr(C::DeletedAt, Expr::value(new.deleted_at.map(ms)));
        if let Some(sealed) = sealed {
            change = change.col_expr(C::SealedCredentials, Expr::value(sealed.to_vec()));
        }
        let changed = change
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(new.id.uuid()))
            .filter(C::Revision.eq(signed(new.revision.saturating_sub(1))))
            .exec(&self.conn)
            .await?;
        self.hurry_placements(target_placement::Column::TargetId.eq(new.id.uuid()), now).await?;
        Ok(changed.rows_affected == 1)
    }

    /// Deletes a target's row. `false` when it is wanted somewhere still, or was not asked to go.
    pub async fn forget_backup_target(&self, id: BackupTargetId) -> Result<bool, StoreError> {
        use backup_target::Column as C;
        if !self.placements_of(id).await?.is_empty() {
            return Ok(false);
        }
        let gone = backup_target::Entity::delete_many()
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(id.uuid()))
            .filter(C::DeletedAt.is_not_null())
            .exec(&self.conn)
            .await?;
        Ok(gone.rows_affected == 1)
    }

    /// A target is wanted in a namespace. Nothing changes when it is already.
    pub async fn want_placement(
        &self,
        target: BackupTargetId,
        cluster: ClusterId,
        namespace: &Namespace,
        now: Time,
    ) -> Result<(), StoreError> {
        use target_placement::Column as C;
        let row = target_placement::ActiveModel {
            target_id: Set(target.uuid()),
            cluster_id: Set(cluster.uuid()),
            namespace: Set(namespace.to_string()),
            org_id: Set(self.org),
            sent: Set(None),
            trouble: Set(String::new()),
            due_at: Set(ms(now)),
        };
        let key = [C::TargetId, C::ClusterId, C::Namespace];
        let known = OnConflict::columns(key).do_nothing_on(key).to_owned();
        target_placement::Entity::insert(row).on_conflict(known).exec_without_returning(&self.conn).await?;
        Ok(())
    }

    /// Writes down how a look at a placement went that was due at `was_due`. One that was hurried
    /// during the look stays due: what was seen may be older than the cause of the hurry.
    pub async fn put_placement(&self, placement: &Placement, was_due: Time) -> Result<(), StoreError> {
        use target_placement::Column as C;
        let due = Expr::case(C::DueAt.eq(ms(was_due)), ms(placement.due_at)).finally(Expr::col(C::DueAt));
        target_placement::Entity::update_many()
            .col_expr(C::Sent, Expr::value(placement.sent.as_ref().map(json).transpose()?))
            .col_expr(C::Trouble, Expr::value(placement.trouble.as_str()))
            .col_expr(C::DueAt, due.into())
            .filter(self.this_placement(placement))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// A target is gone from a namespace.
    pub async fn forget_placement(&self, placement: &Placement) -> Result<(), StoreError> {
        target_placement::Entity::delete_many()
            .filter(self.this_placement(placement))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// All placements in a cluster are looked at now: it is here again, or its agent has another key.
    pub async fn hurry_placements_in(&self, cluster: ClusterId, now: Time) -> Result<(), StoreError> {
        self.hurry_placements(target_placement::Column::ClusterId.eq(cluster.uuid()), now).await
    }

    async fn hurry_placements(&self, which: sea_orm::sea_query::Expr, now: Time) -> Result<(), StoreError> {
        use target_placement::Column as C;
        target_placement::Entity::update_many()
            .col_expr(C::DueAt, Expr::value(ms(now)))
            .filter(C::OrgId.eq(self.org))
            .filter(which)
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    fn this_placement(&self, placement: &Placement) -> Condition {
        use target_placement::Column as C;
        Condition::all()
            .add(C::OrgId.eq(self.org))
            .add(C::TargetId.eq(placement.target.uuid()))
            .add(C::ClusterId.eq(placement.cluster.uuid()))
            .add(C::Namespace.eq(placement.namespace.as_str()))
    }

    /// Keeps the sealed key of the organisation's backups, unless there is one.
    pub async fn add_backup_key(&self, sealed: &[u8], now: Time) -> Result<(), StoreError> {
        let row = backup_key::ActiveModel {
            org_id: Set(self.org),
            sealed_key: Set(sealed.to_vec()),
            created_at: Set(ms(now)),
        };
        let known = OnConflict::column(backup_key::Column::OrgId)
            .do_nothing_on([backup_key::Column::OrgId])
            .to_owned();
        backup_key::Entity::insert(row).on_conflict(known).exec_without_returning(&self.conn).await?;
        Ok(())
    }
}

fn record(row: backup_target::Model) -> Result<BackupTarget, StoreError> {
    Ok(BackupTarget {
        id: row.id.into(),
        name: text(&row.name, "backup target name")?,
        spec: from_json(&row.spec, "backup target spec")?,
        revision: unsigned(row.revision)?,
        credential_generation: unsigned(row.credential_generation)?,
        check_asked_at: optional_moment(row.check_asked_at)?,
        created_at: moment(row.created_at)?,
        deleted_at: optional_moment(row.deleted_at)?,
    })
}

fn placement(row: target_placement::Model) -> Result<Placement, StoreError> {
    let sent: Option<Sent> = row.sent.map(|sent| from_json(&sent, "what was sent")).transpose()?;
    Ok(Placement {
        target: row.target_id.into(),
        cluster: row.cluster_id.into(),
        namespace: text(&row.namespace, "namespace")?,
        sent,
        trouble: row.trouble,
        due_at: moment(row.due_at)?,
    })
}
