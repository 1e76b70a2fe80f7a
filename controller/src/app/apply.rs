//! Applying manifests: the objects that kubectl takes, as records.
//!
//! All objects are read and placed before the first is written, so a file with a mistake in
//! its last object changes nothing.

use culvert_engines::Plan;
use culvert_resources::meta;
use serde_json::Value;

use super::data_services::{Begun, DataServiceChange, NewDataService};
use super::{App, Error, require_admin, spec};
use crate::domain::{Caller, ClusterRef, DataService, Fault, Namespace, ProjectRef, ServiceName};

/// The most objects in one request.
const OBJECTS_MAX: usize = 100;

/// What is to be applied, and where.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// Objects of `data.culvert.dev`.
    pub objects: Vec<Value>,
    /// The project that new ones count in.
    pub project: ProjectRef,
    /// The cluster.
    pub cluster: ClusterRef,
    /// The namespace of objects that name none; the project's own when absent.
    pub namespace: Option<Namespace>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of one object.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: ServiceName,
    /// What was done.
    pub result: AppliedResult,
}

/// What was done with an object.
#[derive(Debug, Clone)]
pub enum AppliedResult {
    /// A record was made.
    Created(Box<Begun>),
    /// A record was changed.
    Updated(Box<Begun>),
    /// The record says so already.
    Unchanged,
    /// Nothing; this would be done.
    Planned(Box<Plan>),
}

/// An object that was read.
struct Wanted {
    name: ServiceName,
    namespace: Option<Namespace>,
    spec: Value,
}

impl App {
    /// Brings records to what manifests say.
    pub async fn apply(&self, caller: &Caller, manifests: Manifests) -> Result<Vec<Applied>, Error> {
        if !manifests.dry_run {
            require_admin(caller)?;
        }
        let wanted = read(&manifests.objects)?;
        let store = self.store().org(caller);
        let project = store.project(&manifests.project).await?.ok_or(Error::NotFound("project"))?;
        let cluster = store.cluster(&manifests.cluster).await?.ok_or(Error::NotFound("cluster"))?;
        let mut placed = Vec::new();
        for object in wanted {
            let namespace = object.namespace.clone().or_else(|| manifests.namespace.clone());
            let namespace = namespace.unwrap_or_else(|| project.name.namespace());
            let known = store.data_service_at(cluster.id, &namespace, &object.name).await?;
            let new = NewDataService {
                name: object.name,
                project: ProjectRef::Id(project.id),
                cluster: ClusterRef::Id(cluster.id),
                namespace: Some(namespace),
                template: None,
                spec: object.spec,
            };
            placed.push((new, known));
        }
        let mut applied = Vec::new();
        for (new, known) in placed {
            let name = new.name.clone();
            let result = self.apply_one(caller, new, known, manifests.dry_run).await?;
            applied.push(Applied { kind: "DataService", name, result });
        }
        Ok(applied)
    }

    async fn apply_one(
        &self,
        caller: &Caller,
        new: NewDataService,
        known: Option<DataService>,
        dry_run: bool,
    ) -> Result<AppliedResult, Error> {
        let Some(known) = known else {
            return Ok(match dry_run {
                true => AppliedResult::Planned(Box::new(self.plan_data_service(caller, &new).await?.plan)),
                false => AppliedResult::Created(Box::new(self.create_data_service(caller, new, None).await?)),
            });
        };
        if spec::read::<culvert_resources::DataServiceSpec>(&new.spec).map_err(Error::Invalid)? == known.spec
        {
            return Ok(AppliedResult::Unchanged);
        }
        let change = DataServiceChange {
            revision: Some(known.revision),
            spec: new.spec,
            replace: true,
            ..DataServiceChange::default()
        };
        let which = known.id.into();
        Ok(match dry_run {
            true => {
                let planned = self.plan_data_service_change(caller, &which, &change).await?;
                AppliedResult::Planned(Box::new(planned.plan))
            }
            false => {
                let begun = self.update_data_service(caller, &which, change, None).await?;
                AppliedResult::Updated(Box::new(begun))
            }
        })
    }
}

fn read(objects: &[Value]) -> Result<Vec<Wanted>, Error> {
    if objects.is_empty() || objects.len() > OBJECTS_MAX {
        let detail = format!("must be 1 to {OBJECTS_MAX} objects");
        return Err(Error::invalid("objects", "out_of_range", detail));
    }
    let (mut wanted, mut faults) = (Vec::new(), Vec::new());
    for (n, object) in objects.iter().enumerate() {
        match read_one(object) {
            Ok(read) => wanted.push(read),
            Err(found) => faults.extend(
                found
                    .into_iter()
                    .map(|fault| Fault { field: format!("objects[{n}].{}", fault.field), ..fault }),
            ),
        }
    }
    if faults.is_empty() { Ok(wanted) } else { Err(Error::Invalid(faults)) }
}

fn read_one(object: &Value) -> Result<Wanted, Vec<Fault>> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let version = format!("{}/{}", meta::GROUP, meta::VERSION);
    let mut faults = Vec::new();
    if text("/apiVersion") != Some(version.as_str()) {
        faults.push(Fault::new("apiVersion", "invalid", format!("must be {version}")));
    }
    if text("/kind") != Some("DataService") {
        let detail =
            "only DataService can be applied here; apply other kinds with kubectl or their own commands";
        faults.push(Fault::new("kind", "unsupported_kind", detail));
    }
    let name = text("/metadata/name").unwrap_or_default().parse::<ServiceName>();
    let namespace = text("/metadata/namespace").map(str::parse::<Namespace>).transpose();
    let spec = object.get("spec").cloned().unwrap_or_default();
    match (name, namespace, faults.is_empty()) {
        (Ok(name), Ok(namespace), true) => {
            spec::read::<culvert_resources::DataServiceSpec>(&spec)?;
            Ok(Wanted { name, namespace, spec })
        }
        (name, namespace, _) => {
            faults.extend(name.err().map(|error| error.of("metadata.name")));
            faults.extend(namespace.err().map(|error| error.of("metadata.namespace")));
            Err(faults)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataService",
            "metadata": {"name": "orders"}, "spec": {"engine": "postgresql", "version": "17"}})
    }

    #[test]
    fn every_fault_of_every_object_is_named() {
        let mut secret = object();
        secret["kind"] = json!("Secret");
        let mut hostile = object();
        hostile["metadata"] = json!({"name": "../x", "namespace": "kube-system"});
        let mut mistyped = object();
        mistyped["spec"]["versoin"] = json!("17");
        let Err(Error::Invalid(faults)) = read(&[object(), secret, hostile, mistyped, json!(7)]) else {
            panic!("not refused")
        };
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "objects[1].kind",
                "objects[2].metadata.name",
                "objects[2].metadata.namespace",
                "objects[3].spec.versoin",
                "objects[4].apiVersion",
                "objects[4].kind",
                "objects[4].metadata.name"
            ]
        );
        assert_eq!(read(&[object()]).unwrap().len(), 1);
        assert!(read(&[]).is_err());
    }
}
