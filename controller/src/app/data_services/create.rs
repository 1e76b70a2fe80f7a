//! Making data services.

use culvert_engines::Plan;
use culvert_resources::{DataServiceSpec, TemplateRef as FromTemplate};
use serde_json::{Value, json};

use super::{Begun, Kept};
use crate::app::engines::{over_quota, refuse};
use crate::app::{App, Error, Once, require_admin, spec};
use crate::domain::template::merge;
use crate::domain::{
    Act, Caller, Claim, Cluster, ClusterRef, DataService, DataServiceId, Fault, Namespace, Operation,
    OperationKind, Project, ProjectRef, ServiceName, Subject, SubjectKind, TemplateRef,
};
use crate::store::{OrgStore, StoreError};

/// What a new data service shall be.
#[derive(Debug, Clone)]
pub struct NewDataService {
    /// Its name.
    pub name: ServiceName,
    /// The project it counts in.
    pub project: ProjectRef,
    /// Where it runs.
    pub cluster: ClusterRef,
    /// The namespace there; the project's own when absent.
    pub namespace: Option<Namespace>,
    /// What its spec begins with.
    pub template: Option<TemplateRef>,
    /// Its spec, or what differs from the template's.
    pub spec: Value,
}

/// What a new or changed data service would be, and cost.
#[derive(Debug, Clone)]
pub struct DataServicePlan {
    /// What is altered, restarted and refused.
    pub plan: Plan,
    /// The whole spec that would be sent.
    pub spec: DataServiceSpec,
    /// What it would claim of its project's quota.
    pub claim: Claim,
}

/// A new data service that can be written.
struct Prepared {
    project: Project,
    cluster: Cluster,
    namespace: Namespace,
    spec: DataServiceSpec,
    claim: Claim,
    plan: Plan,
}

impl App {
    /// Takes on a new data service: reserves its quota, and begins the operation that makes it.
    pub async fn create_data_service(
        &self,
        caller: &Caller,
        new: NewDataService,
        once: Option<&Once>,
    ) -> Result<Begun, Error> {
        require_admin(caller)?;
        let now = self.now();
        let prepared = self.prepare(caller, &new).await?;
        refuse(&prepared.plan)?;
        let service = record(&new, &prepared, now);
        let mut operation = operation(&service, OperationKind::Create, caller, json!({}), now);
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.begun(caller, &kept).await;
        }
        let used = self.reserve(&tx, service.project, service.id, prepared.claim, Claim::default()).await?;
        operation.done_already("reserve-quota", &in_use(&prepared.project, used), now);
        let added = tx.add_data_service(&service, prepared.claim).await;
        added.map_err(|error| taken(error, &service))?;
        if let Some(plan) = &service.spec.backup {
            self.want_target(&tx, &plan.target, service.cluster, &service.namespace).await?;
        }
        let operation = self.begin_operation(&tx, operation).await?;
        tx.audit(Act::DataServiceCreated, service.id, service.name.as_str(), now).await?;
        let kept = Kept { service: service.id, operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce(caller, &kept).await
    }

    /// What making a data service would do. Nothing is written.
    pub async fn plan_data_service(
        &self,
        caller: &Caller,
        new: &NewDataService,
    ) -> Result<DataServicePlan, Error> {
        let Prepared { project, spec, claim, mut plan, .. } = self.prepare(caller, new).await?;
        let used = self.store().org(caller).used_of(project.id, None).await?;
        let quota = project.quota.unwrap_or_default();
        plan.faults.extend(over_quota(&quota.exceeded_by(used, claim, Claim::default())));
        Ok(DataServicePlan { plan, spec, claim })
    }

    async fn prepare(&self, caller: &Caller, new: &NewDataService) -> Result<Prepared, Error> {
        let store = self.store().org(caller);
        let project = store.project(&new.project).await?.ok_or(Error::NotFound("project"))?;
        let cluster = store.cluster(&new.cluster).await?.ok_or(Error::NotFound("cluster"))?;
        let spec = resolve(&store, new).await?;
        let spec = spec::read(&spec).map_err(Error::Invalid)?;
        let claim = claim_of(&spec)?;
        let namespace = new.namespace.clone().unwrap_or_else(|| project.name.namespace());
        let plan = self.plan_in(caller, cluster.id, None, &spec).await?;
        Ok(Prepared { project, cluster, namespace, spec, claim, plan })
    }
}

/// The spec with the template's under it. The template's name and revision stay in it.
async fn resolve(store: &OrgStore, new: &NewDataService) -> Result<Value, Error> {
    let Some(which) = &new.template else { return Ok(new.spec.clone()) };
    let template = store.template(which).await?.ok_or(Error::NotFound("template"))?;
    let revision = i64::try_from(template.revision).unwrap_or(i64::MAX);
    let origin = FromTemplate { name: template.name.to_string(), revision };
    let base = merge(&json!({"engine": template.engine}), &template.spec);
    Ok(merge(&merge(&base, &new.spec), &json!({"template": origin})))
}

fn record(new: &NewDataService, prepared: &Prepared, now: crate::domain::Time) -> DataService {
    DataService {
        id: DataServiceId::generate(),
        project: prepared.project.id,
        cluster: prepared.cluster.id,
        namespace: prepared.namespace.clone(),
        name: new.name.clone(),
        spec: prepared.spec.clone(),
        revision: 1,
        sent_revision: 0,
        unmanaged: false,
        created_at: now,
        updated_at: now,
        deleted_at: None,
        undelete_until: None,
        seen: None,
    }
}

/// A new operation on a data service.
pub(super) fn operation(
    service: &DataService,
    kind: OperationKind,
    caller: &Caller,
    intent: Value,
    now: crate::domain::Time,
) -> Operation {
    Operation::new(kind, subject(service), Some(service.cluster), intent, caller.actor().name(), now)
}

/// A data service as the subject of operations.
pub(super) fn subject(service: &DataService) -> Subject {
    let (id, name) = (service.id.to_string(), service.name.to_string());
    Subject { kind: SubjectKind::DataService, id, name }
}

/// What a spec claims.
pub(in crate::app) fn claim_of(spec: &DataServiceSpec) -> Result<Claim, Error> {
    Claim::of(spec).map_err(|error| {
        Error::Invalid(vec![Fault::new(error.0, "invalid", "must be a quantity such as 500m, 2 or 1Gi")])
    })
}

/// What a project uses, in words.
pub(super) fn in_use(project: &Project, used: Claim) -> String {
    use crate::domain::quota::shown;
    format!(
        "the project {} now has {} data service(s) with {} CPU, {} of memory and {} of storage",
        project.name,
        used.data_services,
        shown("cpu", used.cpu_milli),
        shown("memory", used.memory_bytes),
        shown("storage", used.storage_bytes)
    )
}

pub(super) fn taken(error: StoreError, service: &DataService) -> Error {
    match error {
        StoreError::Duplicate(_) => {
            let (name, namespace) = (&service.name, &service.namespace);
            let reason =
                format!("there is a data service {name} in the namespace {namespace} of this cluster");
            Error::refused("name_taken", reason, "choose another name or another namespace")
        }
        other => other.into(),
    }
}
