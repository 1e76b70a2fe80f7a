//! Organisations and their people.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
};

use super::convert::{moment, ms, text};
use super::entity::{organisation, user};
use super::{Installation, Org, Store, StoreError};
use crate::domain::{Caller, Name, OrgId, Organisation, Role, User, UserId};

/// What an organisation begins with.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The organisation.
    pub organisation: Organisation,
    /// Its first user.
    pub user: User,
}

impl Installation {
    /// Writes an organisation and its first user.
    pub async fn found(&self, founding: &Founding) -> Result<(), StoreError> {
        let org = &founding.organisation;
        let row = organisation::ActiveModel {
            id: Set(org.id.uuid()),
            name: Set(org.name.to_string()),
            audit_sequence: Set(0),
            created_at: Set(ms(org.created_at)),
        };
        row.insert(&self.conn).await?;
        insert_user(&self.conn, org.id, &founding.user).await
    }

    /// All organisations.
    pub async fn organisations(&self) -> Result<Vec<OrgId>, StoreError> {
        let rows =
            organisation::Entity::find().order_by_asc(organisation::Column::Id).all(&self.conn).await?;
        Ok(rows.into_iter().map(|row| row.id.into()).collect())
    }

    /// The first organisation that was made, and its first user.
    pub async fn founding(&self) -> Result<Option<Founding>, StoreError> {
        let Some(row) =
            organisation::Entity::find().order_by_asc(organisation::Column::Id).one(&self.conn).await?
        else {
            return Ok(None);
        };
        let first = user::Entity::find()
            .filter(user::Column::OrgId.eq(row.id))
            .order_by_asc(user::Column::Id)
            .one(&self.conn)
            .await?;
        let user = first.map(person).transpose()?.ok_or(StoreError::Corrupt("organisation without users"))?;
        Ok(Some(Founding { organisation: tenant(row)?, user }))
    }

    /// The same transaction, for the rows of the caller's organisation.
    #[must_use]
    pub fn into_org(self, caller: &Caller) -> super::OrgTx {
        Org { conn: self.conn, org: caller.org().uuid(), caller: caller.clone() }
    }
}

impl Store {
    /// All organisations, for work that has to be done for each.
    pub async fn organisations(&self) -> Result<Vec<Organisation>, StoreError> {
        let rows =
            organisation::Entity::find().order_by_asc(organisation::Column::Id).all(&self.read).await?;
        rows.into_iter().map(tenant).collect()
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// The organisation itself.
    pub async fn organisation(&self) -> Result<Option<Organisation>, StoreError> {
        organisation::Entity::find_by_id(self.org).one(&self.conn).await?.map(tenant).transpose()
    }

    /// A person.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let query = user::Entity::find_by_id(id.uuid()).filter(user::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(person).transpose()
    }

    /// The administrator who was there first.
    pub async fn first_admin(&self) -> Result<Option<User>, StoreError> {
        let query = user::Entity::find()
            .filter(user::Column::OrgId.eq(self.org))
            .filter(user::Column::Role.eq(Role::Admin.as_str()))
            .order_by_asc(user::Column::Id);
        query.one(&self.conn).await?.map(person).transpose()
    }

    /// The person with this name.
    pub async fn user_named(&self, name: &Name) -> Result<Option<User>, StoreError> {
        let query = user::Entity::find()
            .filter(user::Column::OrgId.eq(self.org))
            .filter(user::Column::Name.eq(name.as_str()));
        query.one(&self.conn).await?.map(person).transpose()
    }
}

impl super::OrgTx {
    /// Writes a new person.
    pub async fn add_user(&self, user: &User) -> Result<(), StoreError> {
        insert_user(&self.conn, self.org(), user).await
    }
}

async fn insert_user(conn: &impl ConnectionTrait, org: OrgId, made: &User) -> Result<(), StoreError> {
    let row = user::ActiveModel {
        id: Set(made.id.uuid()),
        org_id: Set(org.uuid()),
        name: Set(made.name.to_string()),
        role: Set(made.role.as_str().to_owned()),
        created_at: Set(ms(made.created_at)),
    };
    row.insert(conn).await?;
    Ok(())
}

fn tenant(row: organisation::Model) -> Result<Organisation, StoreError> {
    Ok(Organisation {
        id: row.id.into(),
        name: text(&row.name, "organisation name")?,
        created_at: moment(row.created_at)?,
    })
}

pub(super) fn person(row: user::Model) -> Result<User, StoreError> {
    Ok(User {
        id: row.id.into(),
        name: text(&row.name, "user name")?,
        role: text::<Role>(&row.role, "role")?,
        created_at: moment(row.created_at)?,
    })
}
