//! Templates.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use super::convert::{from_json, json, moment, ms, signed, text, unsigned};
use super::entity::template;
use super::{Org, OrgTx, StoreError};
use crate::domain::{Template, TemplateId, TemplateName, TemplateRef};

impl<C: ConnectionTrait> Org<C> {
    /// A template, by id or name.
    pub async fn template(&self, which: &TemplateRef) -> Result<Option<Template>, StoreError> {
        let query = template::Entity::find().filter(template::Column::OrgId.eq(self.org));
        let query = match which {
            TemplateRef::Id(id) => query.filter(template::Column::Id.eq(id.uuid())),
            TemplateRef::Name(name) => query.filter(template::Column::Name.eq(name.as_str())),
        };
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Templates by name, after the name `after`, at most `limit`.
    pub async fn templates(
        &self,
        after: Option<&TemplateName>,
        limit: u64,
    ) -> Result<Vec<Template>, StoreError> {
        let mut query = template::Entity::find().filter(template::Column::OrgId.eq(self.org));
        if let Some(after) = after {
            query = query.filter(template::Column::Name.gt(after.as_str()));
        }
        let query = query.order_by_asc(template::Column::Name).limit(limit);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }
}

impl OrgTx {
    /// Writes a new template.
    pub async fn add_template(&self, made: &Template) -> Result<(), StoreError> {
        let row = template::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            name: Set(made.name.to_string()),
            revision: Set(signed(made.revision)),
            description: Set(made.description.clone()),
            engine: Set(made.engine.clone()),
            spec: Set(json(&made.spec)?),
            created_at: Set(ms(made.created_at)),
            updated_at: Set(ms(made.updated_at)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Writes a template whose stored revision is the one before. `false` when it is another,
    /// or there is no such template.
    pub async fn change_template(&self, new: &Template) -> Result<bool, StoreError> {
        let changed = template::Entity::update_many()
            .col_expr(template::Column::Revision, Expr::value(signed(new.revision)))
            .col_expr(template::Column::Description, Expr::value(new.description.as_str()))
            .col_expr(template::Column::Engine, Expr::value(new.engine.as_str()))
            .col_expr(template::Column::Spec, Expr::value(json(&new.spec)?))
            .col_expr(template::Column::UpdatedAt, Expr::value(ms(new.updated_at)))
            .filter(template::Column::OrgId.eq(self.org))
            .filter(template::Column::Id.eq(new.id.uuid()))
            .filter(template::Column::Revision.eq(signed(new.revision.saturating_sub(1))))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Deletes a template. `false` when there was none.
    pub async fn delete_template(&self, id: TemplateId) -> Result<bool, StoreError> {
        let deleted = template::Entity::delete_many()
            .filter(template::Column::OrgId.eq(self.org))
            .filter(template::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(deleted.rows_affected == 1)
    }
}

fn record(row: template::Model) -> Result<Template, StoreError> {
    Ok(Template {
        id: row.id.into(),
        name: text(&row.name, "template name")?,
        revision: unsigned(row.revision)?,
        description: row.description,
        engine: row.engine,
        spec: from_json(&row.spec, "template spec")?,
        created_at: moment(row.created_at)?,
        updated_at: moment(row.updated_at)?,
    })
}
