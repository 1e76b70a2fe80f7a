//! Looking at backup schedules, in the mirror.

use super::BackupScheduleView;
use crate::app::data_services::only;
use crate::app::{App, Error};
use crate::domain::observed::Position;
use crate::domain::{
    BackupScheduleId, BackupScheduleRef, Caller, ClusterId, ClusterRef, ClusterState, Cursor, DataService,
    DataServiceRef, ObjectKind, ObservedObject, Page, PageSize,
};
use crate::store::{ObservedFilter, OrgStore};

/// Which schedules of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct BackupScheduleFilter {
    /// Only those of this data service.
    pub data_service: Option<DataServiceRef>,
    /// Only those in this cluster.
    pub cluster: Option<ClusterRef>,
}

/// Objects looked at in one go while a list is filtered.
const STRIDE: u64 = 200;
/// The cursor's name of this list.
const LIST: &str = "backup-schedules";

impl App {
    /// The caller's schedules, those made last first.
    pub async fn backup_schedules(
        &self,
        caller: &Caller,
        wanted: &BackupScheduleFilter,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<BackupScheduleView>, Error> {
        let after: Option<Position> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let store = self.store().org(caller);
        let service = match &wanted.data_service {
            Some(which) => Some(only(store.data_services_named(which).await?)?),
            None => None,
        };
        let filter = filter(&store, wanted, service.as_ref()).await?;
        let found = matching(&store, filter, after, service.as_ref(), size).await?;
        let page = Page::cut(found, size, LIST, |object| Position::of(object).to_string());
        let items = self.schedule_views(&store, page.items).await?;
        Ok(Page { items, next: page.next })
    }

    /// One schedule.
    pub async fn backup_schedule(
        &self,
        caller: &Caller,
        which: &BackupScheduleRef,
    ) -> Result<BackupScheduleView, Error> {
        let store = self.store().org(caller);
        let object = named(&store, which).await?;
        self.schedule_view(&store, object).await
    }

    pub(super) async fn schedule_view(
        &self,
        store: &OrgStore,
        object: ObservedObject,
    ) -> Result<BackupScheduleView, Error> {
        let views = self.schedule_views(store, vec![object]).await?;
        views.into_iter().next().ok_or(Error::NotFound("backup schedule"))
    }

    async fn schedule_views(
        &self,
        store: &OrgStore,
        objects: Vec<ObservedObject>,
    ) -> Result<Vec<BackupScheduleView>, Error> {
        let ids: Vec<ClusterId> = objects.iter().map(|object| object.cluster).collect();
        let clusters = self.views(store, store.clusters_of(&ids).await?).await?;
        let mut views = Vec::with_capacity(objects.len());
        for object in objects {
            // Its cluster's record was deleted between two queries.
            let Some(cluster) = clusters.iter().find(|view| view.cluster.id == object.cluster) else {
                continue;
            };
            views.push(BackupScheduleView {
                data_service: service_of(store, &object).await?.map(|service| service.id),
                cluster_name: cluster.cluster.name.clone(),
                stale: cluster.state != ClusterState::Connected,
                object,
            });
        }
        Ok(views)
    }
}

/// The one schedule that a reference names.
pub(super) async fn named(store: &OrgStore, which: &BackupScheduleRef) -> Result<ObservedObject, Error> {
    let (id, name) = match which {
        BackupScheduleRef::Id(id) => (Some(id.uuid()), None),
        BackupScheduleRef::Name(name) => (None, Some(name.to_string())),
    };
    let filter =
        ObservedFilter { kind: Some(ObjectKind::BackupSchedule), id, name, ..ObservedFilter::default() };
    let mut found = store.observed(&filter, 2).await?;
    if found.len() > 1 {
        let ids: Vec<String> = found.iter().map(|one| BackupScheduleId::from(one.id).to_string()).collect();
        return Err(Error::refused(
            "name_ambiguous",
            "there is more than one backup schedule of this name",
            format!("use the id, such as {}; a list shows them all", ids.join(" or ")),
        ));
    }
    found.pop().ok_or(Error::NotFound("backup schedule"))
}

async fn filter(
    store: &OrgStore,
    wanted: &BackupScheduleFilter,
    service: Option<&DataService>,
) -> Result<ObservedFilter, Error> {
    let cluster = match &wanted.cluster {
        Some(which) => Some(store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?.id),
        None => service.map(|service| service.cluster),
    };
    Ok(ObservedFilter {
        kind: Some(ObjectKind::BackupSchedule),
        cluster,
        namespace: service.map(|service| service.namespace.to_string()),
        ..ObservedFilter::default()
    })
}

/// One schedule more than a page holds, if there are so many.
async fn matching(
    store: &OrgStore,
    mut filter: ObservedFilter,
    after: Option<Position>,
    service: Option<&DataService>,
    size: PageSize,
) -> Result<Vec<ObservedObject>, Error> {
    let mut found = Vec::new();
    filter.after = after.map(|position| (position.made_at, position.id));
    loop {
        let objects = store.observed(&filter, STRIDE).await?;
        let looked_at = objects.len() as u64;
        filter.after = objects.last().map(|object| (object.told.made_at, object.id));
        found.extend(
            objects.into_iter().filter(|object| service.is_none_or(|service| is_for(object, service))),
        );
        if looked_at < STRIDE || found.len() > size.get() {
            return Ok(found);
        }
    }
}

fn is_for(object: &ObservedObject, service: &DataService) -> bool {
    object.cluster == service.cluster
        && object.told.key.namespace == service.namespace.as_str()
        && object.told.object.pointer("/spec/service").is_some_and(|name| name == service.name.as_str())
}

async fn service_of(store: &OrgStore, object: &ObservedObject) -> Result<Option<DataService>, Error> {
    let name = object.told.object.pointer("/spec/service").and_then(serde_json::Value::as_str);
    let place = object.told.key.namespace.parse().ok().zip(name.and_then(|name| name.parse().ok()));
    let Some((namespace, name)) = place else { return Ok(None) };
    Ok(store.data_service_at(object.cluster, &namespace, &name).await?)
}
