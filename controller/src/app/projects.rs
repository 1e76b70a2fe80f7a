//! Projects: make, list, look, change, delete; what their services use.

use serde::{Deserialize, Serialize};

use super::{App, Error, Once, require_admin};
use crate::domain::{
    Act, Caller, Claim, Cursor, DataServiceId, Page, PageSize, Project, ProjectId, ProjectName, ProjectRef,
    Quota,
};
use crate::store::{OrgStore, OrgTx, StoreError};

/// A project as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectView {
    /// Its record.
    pub project: Project,
    /// What its services claim together.
    pub used: Claim,
}

/// What a project shall be from now on; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct ProjectChange {
    /// Its name.
    pub name: Option<ProjectName>,
    /// Its quota; `Some(None)` takes it away.
    pub quota: Option<Option<Quota>>,
}

/// The cursor's name of this list.
const LIST: &str = "projects";

impl App {
    /// Makes a project.
    pub async fn create_project(
        &self,
        caller: &Caller,
        name: ProjectName,
        quota: Option<Quota>,
        once: Option<&Once>,
    ) -> Result<ProjectView, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall(caller, &tx, once, now).await? {
            return Ok(earlier);
        }
        let project = Project { id: ProjectId::generate(), name, quota, created_at: now };
        tx.add_project(&project).await.map_err(|error| taken(error, &project.name))?;
        tx.audit(Act::ProjectCreated, project.id, project.name.as_str(), now).await?;
        let made = ProjectView { project, used: Claim::default() };
        self.remember(caller, &tx, once, &made).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// The caller's projects by name.
    pub async fn projects(
        &self,
        caller: &Caller,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<ProjectView>, Error> {
        let after: Option<ProjectName> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let mut found = Vec::new();
        for project in store.projects(after.as_ref(), size.get() as u64 + 1).await? {
            found.push(with_used(&store, project).await?);
        }
        Ok(Page::cut(found, size, LIST, |view| view.project.name.to_string()))
    }

    /// One project.
    pub async fn project(&self, caller: &Caller, which: &ProjectRef) -> Result<ProjectView, Error> {
        let store = self.store().org(caller);
        let project = store.project(which).await?.ok_or(Error::NotFound("project"))?;
        with_used(&store, project).await
    }

    /// Changes a project. A quota below what is in use is taken: nothing is stopped by it, and
    /// nothing may be added.
    pub async fn change_project(
        &self,
        caller: &Caller,
        which: &ProjectRef,
        change: ProjectChange,
    ) -> Result<ProjectView, Error> {
        require_admin(caller)?;
        let tx = self.store().write(caller).await?;
        let mut project = tx.project(which).await?.ok_or(Error::NotFound("project"))?;
        if change.name.as_ref().is_some_and(|name| *name != project.name) && project.is_default() {
            return Err(keeps_its_name());
        }
        project.name = change.name.unwrap_or(project.name);
        project.quota = change.quota.unwrap_or(project.quota);
        let changed = tx.change_project(project.id, &project.name, project.quota.as_ref()).await;
        if !changed.map_err(|error| taken(error, &project.name))? {
            return Err(Error::NotFound("project"));
        }
        tx.audit(Act::ProjectChanged, project.id, project.name.as_str(), self.now()).await?;
        tx.commit().await?;
        with_used(&self.store().org(caller), project).await
    }

    /// Deletes a project that has no services.
    pub async fn delete_project(&self, caller: &Caller, which: &ProjectRef) -> Result<(), Error> {
        require_admin(caller)?;
        let tx = self.store().write(caller).await?;
        let project = tx.project(which).await?.ok_or(Error::NotFound("project"))?;
        if project.is_default() {
            return Err(keeps_its_name());
        }
        tx.hold_project(project.id).await?.ok_or(Error::NotFound("project"))?;
        let services = tx.data_services_in(project.id).await?;
        if services > 0 {
            let reason = format!("the project {} has {services} data service(s)", project.name);
            return Err(Error::refused("project_not_empty", reason, "delete its data services first"));
        }
        tx.delete_project(project.id).await?;
        tx.audit(Act::ProjectDeleted, project.id, project.name.as_str(), self.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Reserves what a service claims of its project's quota: holds the project's row, so that
    /// of two that reserve at once the second counts the first. Gives what is in use then.
    pub(super) async fn reserve(
        &self,
        tx: &OrgTx,
        project: ProjectId,
        service: DataServiceId,
        claim: Claim,
        before: Claim,
    ) -> Result<Claim, Error> {
        let project = tx.hold_project(project).await?.ok_or(Error::NotFound("project"))?;
        let used = tx.used_of(project.id, Some(service)).await?;
        let Some(quota) = &project.quota else { return Ok(used.and(claim)) };
        let exceeded = quota.exceeded_by(used, claim, before);
        if exceeded.is_empty() {
            return Ok(used.and(claim));
        }
        let numbers: Vec<String> = exceeded.iter().map(ToString::to_string).collect();
        Err(Error::Denied {
            code: "quota_exceeded",
            reason: format!(
                "the quota of the project {} does not allow it: {}",
                project.name,
                numbers.join("; ")
            ),
            next: "ask for less, delete a data service of the project, or have its quota raised".to_owned(),
        })
    }
}

async fn with_used(store: &OrgStore, project: Project) -> Result<ProjectView, Error> {
    let used = store.used_of(project.id, None).await?;
    Ok(ProjectView { project, used })
}

fn keeps_its_name() -> Error {
    let reason = "the project default is always there, under this name";
    Error::refused("default_project", reason, "make a project of your own, and leave this one empty")
}

fn taken(error: StoreError, name: &ProjectName) -> Error {
    match error {
        StoreError::Duplicate(_) => {
            let reason = format!("there is a project named {name} already");
            Error::refused("name_taken", reason, "choose another name")
        }
        other => other.into(),
    }
}
