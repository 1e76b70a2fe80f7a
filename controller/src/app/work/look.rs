//! Looking at backups and restores: what the agents told, with the names of what they belong to.

use serde_json::Value;
use std::str::FromStr;
use time::OffsetDateTime;
use uuid::Uuid;

use super::WorkIntent;
use super::{id_text, kind_of};
use crate::app::{App, Error};
use crate::domain::{
    BackupState, Caller, Cluster, ClusterId, ClusterName, ClusterRef, ClusterState, Cursor, DataService,
    DataServiceId, DataServiceRef, ObjectKind, ObservedObject, Operation, Page, PageSize, ProjectId,
    ProjectRef, ServiceName, Time, WorkRef,
};
use crate::store::{ObservedFilter, OperationRows, OrgStore};

/// A backup or a restore as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The data service it is of, if there is or was a record of it.
    pub data_service: Option<(DataServiceId, ServiceName)>,
    /// The cluster its object lies in.
    pub cluster: ClusterId,
    /// Name of the cluster.
    pub cluster_name: ClusterName,
    /// The namespace there.
    pub namespace: String,
    /// The object's spec.
    pub spec: Value,
    /// The object's status; null before there is any.
    pub status: Value,
    /// When the object was made.
    pub created_at: Option<Time>,
    /// When the agent last told of a change; absent while there is only the wish.
    pub observed_at: Option<Time>,
    /// Whether what is known may be out of date, as the cluster is not connected.
    pub stale: bool,
}

/// Which backups or restores of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct WorkFilter {
    /// Only those of this project's data services.
    pub project: Option<ProjectRef>,
    /// Only those in this cluster.
    pub cluster: Option<ClusterRef>,
    /// Only those of this data service.
    pub data_service: Option<DataServiceRef>,
    /// Only those in the target of this name.
    pub target: Option<String>,
    /// Only those in this state.
    pub state: Option<BackupState>,
}

/// Objects looked at in one go while a list is filtered.
const STRIDE: u64 = 200;

/// The place of an object in a list: when it was made, and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MadeAt(Time, Uuid);

impl FromStr for MadeAt {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, id) = text.split_once('.').ok_or(())?;
        let nanos = ms.parse::<i64>().map_err(|_| ())?;
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos) * 1_000_000).map_err(|_| ())?;
        Ok(Self(at, id.parse().map_err(|_| ())?))
    }
}

fn key(view: &WorkView) -> String {
    let at = view.created_at.unwrap_or(Time::UNIX_EPOCH);
    format!("{}.{}", at.unix_timestamp_nanos() / 1_000_000, view.id)
}

/// A filter whose references are resolved.
struct Wanted {
    project: Option<ProjectId>,
    service: Option<String>,
    target: Option<String>,
    state: Option<BackupState>,
}

impl Wanted {
    fn takes(&self, object: &ObservedObject) -> bool {
        let text = |path: &str| object.told.object.pointer(path).and_then(Value::as_str);
        let status = object.told.object.get("status").unwrap_or(&Value::Null);
        self.service.as_deref().is_none_or(|name| text("/spec/service") == Some(name))
            && self.target.as_deref().is_none_or(|name| target(&object.told.object) == Some(name))
            && self.state.is_none_or(|state| BackupState::of(status) == state)
    }
}

/// The target of a backup, or that a restore fetches from.
fn target(object: &Value) -> Option<&str> {
    let paths = ["/spec/target", "/spec/source/target", "/status/target"];
    paths.iter().find_map(|path| object.pointer(path).and_then(Value::as_str))
}

impl App {
    /// The caller's backups or restores, the newest first.
    pub async fn works(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        filter: &WorkFilter,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<WorkView>, Error> {
        let list = kind.as_str();
        let after: Option<MadeAt> = after.map(|cursor| cursor.key_of(list)).transpose()?;
        let store = self.store().org(caller);
        let (mut rows, wanted) = resolve(&store, kind, filter).await?;
        rows.after = after.map(|MadeAt(at, id)| (at, id));
        let mut found = Vec::new();
        loop {
            let objects = store.observed(&rows, STRIDE).await?;
            let last = (objects.len() as u64) < STRIDE;
            rows.after = objects.last().map(|object| (object.told.made_at, object.id));
            let taken: Vec<_> = objects.into_iter().filter(|object| wanted.takes(object)).collect();
            let around = self.around_work(&store, taken.iter().map(Thing::from).collect()).await?;
            found.extend(around.views(wanted.project));
            if last || found.len() > size.get() {
                return Ok(Page::cut(found, size, list, key));
            }
        }
    }

    /// One backup or restore.
    pub async fn work<I: Into<Uuid> + Copy>(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        which: &WorkRef<I>,
    ) -> Result<WorkView, Error> {
        let store = self.store().org(caller);
        let object = self.find_work(&store, kind, which).await?;
        let around = self.around_work(&store, vec![Thing::from(&object)]).await?;
        around.views(None).into_iter().next().ok_or(Error::NotFound(noun(kind)))
    }

    /// The object that a reference names: by its own id, by that under which it was asked for, or
    /// by its name.
    pub(super) async fn find_work<I: Into<Uuid> + Copy>(
        &self,
        store: &OrgStore,
        kind: ObjectKind,
        which: &WorkRef<I>,
    ) -> Result<ObservedObject, Error> {
        let of_kind = || ObservedFilter { kind: Some(kind), ..ObservedFilter::default() };
        let mut found = match which {
            WorkRef::Name(name) => {
                store.observed(&ObservedFilter { name: Some(name.to_string()), ..of_kind() }, 2).await?
            }
            WorkRef::Id(id) => {
                let id: Uuid = (*id).into();
                let own = store.observed(&ObservedFilter { id: Some(id), ..of_kind() }, 1).await?;
                if own.is_empty() { asked_for(store, kind, id).await? } else { own }
            }
        };
        if found.len() > 1 {
            let reason = format!("there is more than one {} of this name", noun(kind));
            return Err(Error::refused("name_ambiguous", reason, "use the id, which a list shows"));
        }
        found.pop().ok_or(Error::NotFound(noun(kind)))
    }

    /// What an operation is about, as it was asked for.
    pub(super) async fn asked_work(
        &self,
        store: &OrgStore,
        operation: &Operation,
    ) -> Result<WorkView, Error> {
        let thing = Thing::asked(operation).ok_or(Error::NotFound("operation"))?;
        let around = self.around_work(store, vec![thing]).await?;
        around.views(None).into_iter().next().ok_or(Error::NotFound("cluster"))
    }

    async fn around_work(&self, store: &OrgStore, things: Vec<Thing>) -> Result<Around, Error> {
        let ids: Vec<ClusterId> = things.iter().map(|thing| thing.cluster).collect();
        let mut names: Vec<String> = things.iter().filter_map(Thing::service).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        let services = store.data_services_called(&ids, &names).await?;
        let clusters = self.views(store, store.clusters_of(&ids).await?).await?;
        let clusters = clusters.into_iter().map(|view| (view.cluster, view.state)).collect();
        Ok(Around { things, clusters, services })
    }
}

/// The object that was asked for under an id, in the place that it was asked for. That an object
/// says so itself is not enough: it is the word of whichever cluster it lies in.
async fn asked_for(store: &OrgStore, kind: ObjectKind, id: Uuid) -> Result<Vec<ObservedObject>, Error> {
    let subject = id_text(kind, id);
    let rows = OperationRows { subject: Some(subject.clone()), ..OperationRows::default() };
    let operation = store.operations(&rows, None, 1).await?.pop();
    let place = operation.and_then(|operation| operation.cluster.zip(WorkIntent::of(&operation)));
    let Some((cluster, intent)) = place else { return Ok(Vec::new()) };
    let seen = store.observed_one(cluster, &intent.key(kind)).await?;
    Ok(seen.filter(|seen| seen.told.record.as_ref() == Some(&subject)).into_iter().collect())
}

/// What it is called in a sentence.
fn noun(kind: ObjectKind) -> &'static str {
    if kind == ObjectKind::Restore { "restore" } else { "backup" }
}

async fn resolve(
    store: &OrgStore,
    kind: ObjectKind,
    filter: &WorkFilter,
) -> Result<(ObservedFilter, Wanted), Error> {
    let mut rows = ObservedFilter { kind: Some(kind), ..ObservedFilter::default() };
    if let Some(which) = &filter.cluster {
        rows.cluster = Some(store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?.id);
    }
    let project = match &filter.project {
        Some(which) => Some(store.project(which).await?.ok_or(Error::NotFound("project"))?.id),
        None => None,
    };
    let service = match &filter.data_service {
        None => None,
        // Backups outlive the record of their service: the name is enough.
        Some(DataServiceRef::Name(name)) => Some(name.to_string()),
        Some(DataServiceRef::Id(id)) => {
            let service = store.data_service(*id).await?.ok_or(Error::NotFound("data service"))?;
            if rows.cluster.is_some_and(|cluster| cluster != service.cluster) {
                return Err(Error::NotFound("data service"));
            }
            rows.cluster = Some(service.cluster);
            rows.namespace = Some(service.namespace.to_string());
            Some(service.name.to_string())
        }
    };
    Ok((rows, Wanted { project, service, target: filter.target.clone(), state: filter.state }))
}

/// A backup or a restore, seen or asked for.
struct Thing {
    id: Uuid,
    cluster: ClusterId,
    object: Value,
    made_at: Option<Time>,
    observed_at: Option<Time>,
}

impl From<&ObservedObject> for Thing {
    fn from(seen: &ObservedObject) -> Self {
        Self {
            id: seen.id,
            cluster: seen.cluster,
            object: seen.told.object.clone(),
            made_at: Some(seen.told.made_at),
            observed_at: Some(seen.observed_at),
        }
    }
}

impl Thing {
    fn asked(operation: &Operation) -> Option<Self> {
        let intent = WorkIntent::of(operation)?;
        let text = &operation.subject.id;
        let id = match kind_of(operation.subject.kind) {
            ObjectKind::Restore => text.parse::<crate::domain::RestoreId>().ok()?.uuid(),
            _ => text.parse::<crate::domain::BackupId>().ok()?.uuid(),
        };
        let (made_at, observed_at) = (None, None);
        Some(Self { id, cluster: operation.cluster?, object: intent.object, made_at, observed_at })
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.object.pointer(path).and_then(Value::as_str)
    }

    fn service(&self) -> Option<&str> {
        self.text("/spec/service")
    }

    fn namespace(&self) -> &str {
        self.text("/metadata/namespace").unwrap_or_default()
    }
}

/// Backups or restores with what stands around them in a view.
struct Around {
    things: Vec<Thing>,
    clusters: Vec<(Cluster, ClusterState)>,
    services: Vec<DataService>,
}

impl Around {
    /// Those of a project, or all; without those whose cluster was deleted between two queries.
    fn views(self, project: Option<ProjectId>) -> Vec<WorkView> {
        let Self { things, clusters, services } = self;
        let view = |thing: Thing| {
            let (cluster, reached) = clusters.iter().find(|(cluster, _)| cluster.id == thing.cluster)?;
            // Alive ones come first: the one that has the place now, else the one that had it last.
            let service = services.iter().find(|service| {
                service.cluster == thing.cluster
                    && service.namespace.as_str() == thing.namespace()
                    && Some(service.name.as_str()) == thing.service()
            });
            if project.is_some_and(|wanted| service.is_none_or(|service| service.project != wanted)) {
                return None;
            }
            Some(WorkView {
                id: thing.id,
                name: thing.text("/metadata/name").unwrap_or_default().to_owned(),
                data_service: service.map(|service| (service.id, service.name.clone())),
                cluster: cluster.id,
                cluster_name: cluster.name.clone(),
                namespace: thing.namespace().to_owned(),
                spec: thing.object.get("spec").cloned().unwrap_or_default(),
                status: thing.object.get("status").cloned().unwrap_or_default(),
                created_at: thing.made_at,
                observed_at: thing.observed_at,
                stale: *reached != ClusterState::Connected,
            })
        };
        things.into_iter().filter_map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_list_reads_as_it_was_written() {
        let at = time::macros::datetime!(2026-03-01 10:00:00.123 UTC);
        let id = Uuid::from_u128(7);
        let text = format!("{}.{id}", at.unix_timestamp_nanos() / 1_000_000);
        assert_eq!(text.parse(), Ok(MadeAt(at, id)));
        for bad in ["", "1", "x.y", "99999999999999999.0", &format!("{}.{id}", i64::MAX)] {
            assert!(bad.parse::<MadeAt>().is_err(), "{bad}");
        }
    }
}
