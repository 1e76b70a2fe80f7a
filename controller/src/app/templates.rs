//! Templates: make, list, look, replace, delete.

use serde_json::Value;

use super::spec::read_partial;
use super::{App, Error, Once, require_admin};
use crate::domain::template::DESCRIPTION_MAX;
use crate::domain::{
    Act, Caller, Cursor, Fault, Page, PageSize, Template, TemplateId, TemplateName, TemplateRef,
};
use crate::store::StoreError;

/// What a template shall say.
#[derive(Debug, Clone)]
pub struct TemplateContent {
    /// What it is for.
    pub description: String,
    /// The engine.
    pub engine: String,
    /// Part of a data service's spec.
    pub spec: Value,
}

/// The cursor's name of this list.
const LIST: &str = "templates";

impl App {
    /// Makes a template.
    pub async fn create_template(
        &self,
        caller: &Caller,
        name: TemplateName,
        content: TemplateContent,
        once: Option<&Once>,
    ) -> Result<Template, Error> {
        require_admin(caller)?;
        check(&content)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall(caller, &tx, once, now).await? {
            return Ok(earlier);
        }
        let TemplateContent { description, engine, spec } = content;
        let id = TemplateId::generate();
        let template =
            Template { id, name, revision: 1, description, engine, spec, created_at: now, updated_at: now };
        tx.add_template(&template).await.map_err(|error| taken(error, &template.name))?;
        tx.audit(Act::TemplateCreated, template.id, template.name.as_str(), now).await?;
        self.remember(caller, &tx, once, &template).await?;
        tx.commit().await?;
        Ok(template)
    }

    /// The caller's templates by name.
    pub async fn templates(
        &self,
        caller: &Caller,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<Template>, Error> {
        let after: Option<TemplateName> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let found = self.store().org(caller).templates(after.as_ref(), size.get() as u64 + 1).await?;
        Ok(Page::cut(found, size, LIST, |template| template.name.to_string()))
    }

    /// One template.
    pub async fn template(&self, caller: &Caller, which: &TemplateRef) -> Result<Template, Error> {
        self.store().org(caller).template(which).await?.ok_or(Error::NotFound("template"))
    }

    /// Replaces what a template says; services that were made from it stay as they are.
    pub async fn replace_template(
        &self,
        caller: &Caller,
        which: &TemplateRef,
        content: TemplateContent,
    ) -> Result<Template, Error> {
        require_admin(caller)?;
        check(&content)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        let known = tx.template(which).await?.ok_or(Error::NotFound("template"))?;
        let TemplateContent { description, engine, spec } = content;
        let revision = known.revision.saturating_add(1);
        let template = Template { revision, description, engine, spec, updated_at: now, ..known };
        if !tx.change_template(&template).await? {
            let reason = format!("somebody else changed the template {} at the same time", template.name);
            return Err(Error::refused(
                "changed_meanwhile",
                reason,
                "look at it, and send your change again",
            ));
        }
        tx.audit(Act::TemplateChanged, template.id, format!("revision {revision}"), now).await?;
        tx.commit().await?;
        Ok(template)
    }

    /// Deletes a template; services that were made from it stay as they are.
    pub async fn delete_template(&self, caller: &Caller, which: &TemplateRef) -> Result<(), Error> {
        require_admin(caller)?;
        let tx = self.store().write(caller).await?;
        let template = tx.template(which).await?.ok_or(Error::NotFound("template"))?;
        tx.delete_template(template.id).await?;
        tx.audit(Act::TemplateDeleted, template.id, template.name.as_str(), self.now()).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn check(content: &TemplateContent) -> Result<(), Error> {
    let mut faults = Vec::new();
    if content.description.chars().count() > DESCRIPTION_MAX {
        faults.push(Fault::new("description", "too_long", "must have at most 500 characters"));
    }
    if let Err(found) = read_partial(&content.engine, &content.spec) {
        faults.extend(found);
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Invalid(faults)) }
}

fn taken(error: StoreError, name: &TemplateName) -> Error {
    match error {
        StoreError::Duplicate(_) => {
            let reason = format!("there is a template named {name} already");
            Error::refused("name_taken", reason, "choose another name, or replace that template")
        }
        other => other.into(),
    }
}
