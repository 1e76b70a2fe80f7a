//! Looking at data services.

use super::{Begun, DataServiceView, Kept};
use crate::app::feed::News;
use crate::app::operations::operation_view;
use crate::app::{App, Error};
use crate::domain::{
    Caller, Cluster, ClusterId, ClusterRef, ClusterState, Cursor, DataService, DataServiceId, DataServiceRef,
    DataServiceState, Operation, OperationKind, Page, PageSize, Project, ProjectId, ProjectRef,
};
use crate::store::{DataServiceRows, OrgStore};

/// Which data services of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct DataServiceFilter {
    /// Only those of this project.
    pub project: Option<ProjectRef>,
    /// Only those in this cluster.
    pub cluster: Option<ClusterRef>,
    /// Only those in this state.
    pub state: Option<DataServiceState>,
    /// Only those of this engine.
    pub engine: Option<String>,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Those that are gone, instead of those that are there.
    pub deleted: bool,
}

/// Records looked at in one go while a list is filtered by state.
const STRIDE: u64 = 200;
/// The cursor's name of this list.
const LIST: &str = "data-services";

impl App {
    /// The caller's data services, oldest first.
    pub async fn data_services(
        &self,
        caller: &Caller,
        filter: &DataServiceFilter,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<DataServiceView>, Error> {
        let mut after: Option<DataServiceId> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let rows = rows(&store, filter).await?;
        let stride = if filter.state.is_none() { size.get() as u64 + 1 } else { STRIDE };
        let mut found = Vec::new();
        loop {
            let services = store.data_services(&rows, after, stride).await?;
            let looked_at = services.len() as u64;
            after = services.last().map(|service| service.id);
            let views = self.data_service_views(&store, services).await?;
            found.extend(views.into_iter().filter(|v| filter.state.is_none_or(|wanted| v.state == wanted)));
            if looked_at < stride || found.len() > size.get() {
                return Ok(Page::cut(found, size, LIST, |view| view.service.id.to_string()));
            }
        }
    }

    /// One data service.
    pub async fn data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
    ) -> Result<DataServiceView, Error> {
        let store = self.store().org(caller);
        let service = only(store.data_services_named(which).await?)?;
        self.data_service_view(&store, service).await
    }

    pub(in crate::app) async fn data_service_view(
        &self,
        store: &OrgStore,
        service: DataService,
    ) -> Result<DataServiceView, Error> {
        let views = self.data_service_views(store, vec![service]).await?;
        views.into_iter().next().ok_or(Error::NotFound("data service"))
    }

    async fn data_service_views(
        &self,
        store: &OrgStore,
        services: Vec<DataService>,
    ) -> Result<Vec<DataServiceView>, Error> {
        let around = self.around(store, &services).await?;
        Ok(services.into_iter().filter_map(|service| around.view(service)).collect())
    }

    async fn around(&self, store: &OrgStore, services: &[DataService]) -> Result<Around, Error> {
        let clusters: Vec<ClusterId> = services.iter().map(|service| service.cluster).collect();
        let projects: Vec<ProjectId> = services.iter().map(|service| service.project).collect();
        let subjects: Vec<String> = services.iter().map(|service| service.id.to_string()).collect();
        let clusters = self.views(store, store.clusters_of(&clusters).await?).await?;
        Ok(Around {
            clusters: clusters.into_iter().map(|c| (c.cluster, c.state)).collect(),
            projects: store.projects_of(&projects).await?,
            operations: store.active_operations_of(&subjects).await?,
        })
    }

    /// Tells the watchers how a data service is now; a failure to do so is only logged.
    pub(in crate::app) async fn publish_data_service(&self, caller: &Caller, id: DataServiceId) {
        let store = self.store().org(caller);
        let view = async {
            let service = store.data_service(id).await?.ok_or(Error::NotFound("data service"))?;
            self.data_service_view(&store, service).await
        };
        match view.await {
            Ok(view) => {
                let cluster = view.service.cluster;
                self.feed().publish(caller.org(), cluster, News::DataService(Box::new(view)));
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(data_service = %id, error, "change not published");
            }
        }
    }

    /// What was begun, as it is now.
    pub(super) async fn begun(&self, caller: &Caller, kept: &Kept) -> Result<Begun, Error> {
        let store = self.store().org(caller);
        let operation = store.operation(kept.operation).await?.ok_or(Error::NotFound("operation"))?;
        let service = store.data_service(kept.service).await?.ok_or(Error::NotFound("data service"))?;
        let service = self.data_service_view(&store, service).await?;
        Ok(Begun { service, operation: operation_view(&store, operation).await? })
    }

    /// Tells the watchers of what was begun, and wakes the driver.
    pub(super) async fn announce(&self, caller: &Caller, kept: &Kept) -> Result<Begun, Error> {
        let begun = self.begun(caller, kept).await?;
        let (cluster, news) =
            (begun.service.service.cluster, News::DataService(Box::new(begun.service.clone())));
        self.feed().publish(caller.org(), cluster, news);
        self.operation_changed(caller, begun.operation.operation.clone()).await?;
        Ok(begun)
    }
}

/// What stands around data services in a view.
struct Around {
    clusters: Vec<(Cluster, ClusterState)>,
    projects: Vec<Project>,
    operations: Vec<Operation>,
}

impl Around {
    /// `None` when its project or cluster was deleted between two queries.
    fn view(&self, service: DataService) -> Option<DataServiceView> {
        let (cluster, reached) = self.clusters.iter().find(|(cluster, _)| cluster.id == service.cluster)?;
        let project = self.projects.iter().find(|project| project.id == service.project)?;
        let id = service.id.to_string();
        let mut active = self.operations.iter().filter(|operation| operation.subject.id == id);
        let operation = active.clone().next().cloned();
        let leaving = active.any(|operation| operation.kind == OperationKind::Delete);
        Some(DataServiceView {
            project_name: project.name.clone(),
            cluster_name: cluster.name.clone(),
            state: DataServiceState::of(&service, operation.is_some(), leaving),
            stale: *reached != ClusterState::Connected,
            in_sync: service.in_sync(),
            operation: operation.map(|operation| crate::app::operations::OperationView {
                cluster_name: Some(cluster.name.clone()),
                operation,
            }),
            service,
        })
    }
}

async fn rows(store: &OrgStore, filter: &DataServiceFilter) -> Result<DataServiceRows, Error> {
    let project = match &filter.project {
        Some(which) => Some(store.project(which).await?.ok_or(Error::NotFound("project"))?.id),
        None => None,
    };
    let cluster = match &filter.cluster {
        Some(which) => Some(store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?.id),
        None => None,
    };
    let (engine, name, deleted) = (filter.engine.clone(), filter.name.clone(), filter.deleted);
    Ok(DataServiceRows { project, cluster, engine, name, deleted })
}

/// The one data service that a reference found: newest first, those that are alive before those
/// that are not.
pub(in crate::app) fn only(found: Vec<DataService>) -> Result<DataService, Error> {
    let alive = found.iter().filter(|service| service.deleted_at.is_none()).count();
    if alive > 1 {
        return Err(Error::refused(
            "name_ambiguous",
            "there is more than one data service of this name",
            "use the id; a list filtered by the name shows them",
        ));
    }
    found.into_iter().next().ok_or(Error::NotFound("data service"))
}
