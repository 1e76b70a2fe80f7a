//! What is released: a spec of a person, resolved into a Database that leaves nothing to choose.
//!
//! A release stays as it is until the spec changes. It is kept beside the spec that it came from, so that the next
//! change is planned against what was asked for before, and so that neither a newer catalogue nor a newer image
//! reaches a database that nobody touched. One exception: an image that does not come up is replaced when the
//! DataPlane names another for the same version, because nothing is interrupted by that.
use culvert_engines::{Effect, Engine, Fault, Plan, Seen, plan};
use culvert_resources::{
    Archive, ConditionType, DataPlaneSpec, DataService, DataServiceSpec, DatabaseSpec, Image, PendingChange,
    WhoCanFix, Why, meta,
};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use super::preflight;
use super::surroundings::Surroundings;
use super::window::{Window, window};
use crate::driver;
use crate::jobs::names;
use crate::reconcile::Kept;
use crate::reconcile::kept::digest;
use crate::why::why;

/// Acts of a person are meant now; no window holds them up.
const ACTS: [&str; 3] = ["stopped", "restartedAt", "credentialsRotatedAt"];

/// What was released, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Released {
    /// What the person had asked for.
    pub(super) from: DataServiceSpec,
    /// What it became.
    pub(super) spec: DatabaseSpec,
}

/// A release, with the digest of what it came from.
pub(super) type Release = Kept<Released>;

/// What a round decided.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Why the spec cannot be carried out.
    pub(super) faults: Vec<Fault>,
    /// What is missing in the cluster, before there is a first release.
    pub(super) blocked: Option<Why>,
    /// What shall be in force; nothing when nothing can be.
    pub(super) release: Option<Release>,
    /// Changes that wait for the window.
    pub(super) pending: Vec<PendingChange>,
    /// A newer release of the engine that it could be upgraded to.
    pub(super) newer: Option<String>,
}

/// Decides.
pub(super) fn decide(service: &DataService, around: &Surroundings) -> Decided {
    let spec = &service.spec;
    let Some((engine, driver)) = driver::engine(&spec.engine) else {
        return Decided { faults: vec![unknown_engine(spec)], ..Decided::default() };
    };
    let open = match window(spec.maintenance.as_ref(), around.now) {
        Ok(open) => open,
        Err(unfit) => {
            return Decided {
                faults: vec![unfit_window(&unfit)],
                release: kept(around),
                ..Decided::default()
            };
        }
    };
    let case = Case {
        service,
        around,
        engine,
        driver: driver.name(),
        plane: around.plane.as_ref().map(|plane| &plane.spec),
        open,
    };
    let mut decided = match kept(around) {
        None => case.first(),
        Some(kept) if case.unchanged(&kept) => Decided { release: Some(kept), ..Decided::default() },
        Some(kept) => case.change(kept),
    };
    decided.newer = decided.release.as_ref().and_then(|release| case.newer(&release.value.spec.version));
    decided
}

/// The release in force, as the Database holds it.
fn kept(around: &Surroundings) -> Option<Release> {
    around.living().and_then(|database| Kept::of(&database.metadata))
}

fn fault(field: &str, code: &str, message: String, next: &str) -> Fault {
    Fault { field: field.to_owned(), code: code.to_owned(), message, next: next.to_owned() }
}

fn unknown_engine(spec: &DataServiceSpec) -> Fault {
    let known: Vec<&str> =
        culvert_engines::catalogue().engines().map(|engine| engine.name.as_str()).collect();
    let message = format!("there is no engine {}", spec.engine);
    let next = format!("Create a service with one of: {}.", known.join(", "));
    Fault { field: "spec.engine".to_owned(), code: "engine_unknown".to_owned(), message, next }
}

fn unfit_window(unfit: &crate::timetable::Unfit) -> Fault {
    fault("spec.maintenance", "window_unreadable", unfit.to_string(), "Correct the window, or take it away.")
}

struct Case<'a> {
    service: &'a DataService,
    around: &'a Surroundings,
    engine: &'static Engine,
    driver: &'static str,
    plane: Option<&'a DataPlaneSpec>,
    open: Window,
}

impl Case<'_> {
    /// No instance runs: it was stopped, or a restore exchanges the volumes.
    fn held(&self) -> bool {
        self.service.annotations().contains_key(meta::HELD)
    }

    fn available_versions(&self) -> Vec<String> {
        let images = self.plane.and_then(|plane| plane.engines.get(&self.engine.name));
        images.into_iter().flat_map(|engine| engine.images.keys().cloned()).collect()
    }

    fn image(&self, version: &str) -> Option<String> {
        let images = &self.plane?.engines.get(&self.engine.name)?.images;
        images.get(version).filter(|image| !image.trim().is_empty()).cloned()
    }

    fn newer(&self, running: &str) -> Option<String> {
        use culvert_engines::Version;
        let now = Version::parse(running)?;
        let major = self
            .engine
            .majors()
            .into_iter()
            .find(|major| Version::parse(major).is_some_and(|major| now.is_of(&major)))?;
        let newest = self.engine.resolve_version(&major, &self.available_versions()).ok()?;
        Version::parse(&newest).is_some_and(|newest| newest > now).then_some(newest)
    }

    fn first(&self) -> Decided {
        let spec = &self.service.spec;
        let seen = self.seen(None);
        let faults = plan(self.engine, None, spec, &seen).faults;
        let Some(version) = self.version(spec, None).filter(|_| faults.is_empty()) else {
            return Decided { faults, ..Decided::default() };
        };
        let name = self.service.name_any();
        if let Some(why) = preflight::missing(&name, spec, self.engine, &version, self.around) {
            return Decided { blocked: Some(why), ..Decided::default() };
        }
        Decided { release: self.release(spec.clone(), version, None, true), ..Decided::default() }
    }

    /// Whether what is in force came from the very spec that is there now.
    fn unchanged(&self, kept: &Release) -> bool {
        let same = digest(&(&self.service.spec, self.held())).is_ok_and(|digest| digest == kept.inputs);
        same && !self.image_to_mend(kept)
    }

    fn image_to_mend(&self, kept: &Release) -> bool {
        let spec = &kept.value.spec;
        let runner = self.plane.and_then(|plane| plane.runner_image.as_ref());
        let other = self.image(&spec.version).is_some_and(|image| image != spec.image.engine)
            || runner.is_some_and(|runner| *runner != spec.image.runner);
        other && !spec.stopped && self.image_is_the_cause()
    }

    /// Whether the images in force are why it does not serve. Any other outage leaves them alone: a failover must
    /// not become the hour of an upgrade.
    fn image_is_the_cause(&self) -> bool {
        let why = self.around.database.as_ref().and_then(|database| database.status.as_ref()?.why.as_ref());
        let of_image = ["image_pull", "container_not_made", "crash_loop"];
        !self.serves() && why.is_some_and(|why| of_image.contains(&why.code.as_str()))
    }

    /// Whether the database serves now. A database that does not has nothing to interrupt.
    fn serves(&self) -> bool {
        let conditions = self.around.database.iter().filter_map(|database| database.status.as_ref());
        let mut conditions = conditions.flat_map(|status| status.conditions.iter());
        conditions.any(|one| one.type_ == ConditionType::Available.as_str() && one.status == "True")
    }

    fn seen(&self, kept: Option<&Release>) -> Seen {
        let status = self.around.database.as_ref().and_then(|database| database.status.as_ref());
        let running = status.and_then(|status| status.running_version.clone());
        Seen {
            running_version: running.or_else(|| kept.map(|kept| kept.value.spec.version.clone())),
            available_versions: self.available_versions(),
            can_expand: kept.and_then(|kept| self.can_expand(&kept.value.spec)),
            replicas: status.and_then(|status| status.replicas).unwrap_or(0),
        }
    }

    fn can_expand(&self, spec: &DatabaseSpec) -> Option<bool> {
        let class = match &spec.storage.class {
            Some(name) => self.around.classes.iter().find(|class| class.name_any() == *name)?,
            None => crate::data_plane::default_class(self.plane?, &self.around.classes)?,
        };
        Some(class.allow_volume_expansion == Some(true))
    }

    fn change(&self, kept: Release) -> Decided {
        let (spec, before) = (&self.service.spec, &kept.value.from);
        let seen = self.seen(Some(&kept));
        let planned = plan(self.engine, Some(before), spec, &seen);
        if !planned.faults.is_empty() {
            return Decided { faults: planned.faults, release: Some(kept), ..Decided::default() };
        }
        let held = self.to_hold(&planned);
        let (spec, mut same_version) = hold(spec, before, &held);
        let version = if same_version {
            Some(kept.value.spec.version.clone())
        } else {
            self.version(&spec, Some(&kept))
        };
        same_version = version.as_ref() == Some(&kept.value.spec.version);
        let Some(version) = version else { return Decided { release: Some(kept), ..Decided::default() } };
        let interrupts = !same_version
            || (held.is_empty() && planned.changes.iter().any(|change| interrupts(change.effect)));
        let fresh = interrupts || self.image_to_mend(&kept);
        Decided {
            release: self.release(spec, version, Some(&kept), fresh),
            pending: held.iter().map(|change| self.pending(change)).collect(),
            ..Decided::default()
        }
    }

    /// Changes that wait for the window.
    fn to_hold<'p>(&self, planned: &'p Plan) -> Vec<&'p culvert_engines::Change> {
        if self.open == Window::Open || !self.serves() {
            return Vec::new();
        }
        let waits = |change: &&culvert_engines::Change| {
            interrupts(change.effect) && !ACTS.contains(&change.field.as_str())
        };
        planned.changes.iter().filter(waits).collect()
    }

    fn pending(&self, change: &culvert_engines::Change) -> PendingChange {
        let waits_for = match &self.open {
            Window::Closed(Some(at)) => format!("the maintenance window at {at}"),
            _ => "the maintenance window".to_owned(),
        };
        PendingChange {
            field: change.field.clone(),
            from: change.from.clone(),
            to: change.to.clone(),
            effect: effect(change.effect).to_owned(),
            waits_for,
        }
    }

    /// The exact version; what runs already stays when its image was taken away.
    fn version(&self, spec: &DataServiceSpec, kept: Option<&Release>) -> Option<String> {
        let found = self.engine.resolve_version(&spec.version, &self.available_versions()).ok();
        found.or_else(|| kept.map(|kept| kept.value.spec.version.clone()))
    }

    /// The Database. `fresh` takes the images that the DataPlane names now; else those in force stay.
    fn release(
        &self,
        from: DataServiceSpec,
        version: String,
        kept: Option<&Release>,
        fresh: bool,
    ) -> Option<Release> {
        let before = kept.map(|kept| &kept.value.spec);
        let same = before.filter(|before| before.version == version);
        let stays = same.filter(|_| !fresh).map(|before| before.image.clone());
        let image = match stays {
            Some(image) => image,
            None => Image {
                engine: self.image(&version).or_else(|| same.map(|before| before.image.engine.clone()))?,
                runner: self
                    .plane
                    .and_then(|plane| plane.runner_image.clone())
                    .or_else(|| before.map(|before| before.image.runner.clone()))?,
                pull_secrets: self.plane.map(|plane| plane.image_pull_secrets.clone()).unwrap_or_default(),
            },
        };
        let spec = self.resolved(&from, version, image, before);
        let inputs = digest(&(&from, self.held())).ok()?;
        Some(Kept { inputs, value: Released { from, spec } })
    }

    fn resolved(
        &self,
        from: &DataServiceSpec,
        version: String,
        image: Image,
        before: Option<&DatabaseSpec>,
    ) -> DatabaseSpec {
        let mut storage = from.storage.clone();
        // Where the first volume went, there go the others.
        storage.class = from.storage.class.clone().or_else(|| match before {
            Some(before) => before.storage.class.clone(),
            None => self.plane.and_then(|plane| plane.storage_class.clone()),
        });
        DatabaseSpec {
            engine: from.engine.clone(),
            driver: self.driver.to_owned(),
            version,
            image,
            topology: from.topology.clone(),
            resources: from.resources.clone(),
            storage,
            parameters: self.engine.resolve_parameters(from),
            network: from.network.clone(),
            tls: from.tls.clone(),
            archive: self.archive(from),
            source: from.source.clone(),
            stopped: from.stopped || self.held(),
            restarted_at: from.restarted_at.clone(),
            credentials_rotated_at: from.credentials_rotated_at.clone(),
        }
    }

    fn archive(&self, from: &DataServiceSpec) -> Option<Archive> {
        let plan = from.backup.as_ref().filter(|plan| plan.archive && self.engine.supports.archive)?;
        let (name, namespace) = (self.service.name_any(), self.service.namespace()?);
        let path = names::folder(&namespace, &name, &self.service.uid()?);
        Some(Archive { target: plan.target.clone(), path })
    }
}

fn interrupts(effect: Effect) -> bool {
    effect >= Effect::RollingRestart
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "none",
        Effect::Reload => "reload",
        Effect::Grow => "grow",
        Effect::RollingRestart => "rolling-restart",
        Effect::Restart => "restart",
        Effect::Recreate => "recreate",
    }
}

/// What may be done now of `wanted`: the fields of `held` stay as they were. True when the version stays too.
fn hold(
    wanted: &DataServiceSpec,
    before: &DataServiceSpec,
    held: &[&culvert_engines::Change],
) -> (DataServiceSpec, bool) {
    let (mut spec, mut same_version) = (wanted.clone(), false);
    for change in held {
        match change.field.as_str() {
            "version" => {
                spec.version = before.version.clone();
                same_version = true;
            }
            "resources.cpu" => spec.resources.cpu = before.resources.cpu.clone(),
            "resources.memory" => spec.resources.memory = before.resources.memory.clone(),
            "backup.target" | "backup.archive" => spec.backup = before.backup.clone(),
            other => match other.strip_prefix("parameters.") {
                Some(name) => match before.parameters.get(name) {
                    Some(value) => drop(spec.parameters.insert(name.to_owned(), value.clone())),
                    None => drop(spec.parameters.remove(name)),
                },
                // A field that cannot be held alone holds all of them.
                None => return (before.clone(), true),
            },
        }
    }
    (spec, same_version)
}

/// The first fault as a cause.
pub(super) fn cause(faults: &[Fault]) -> Option<Why> {
    let first = faults.first()?;
    let more = faults.len().saturating_sub(1);
    let others = if more == 0 { String::new() } else { format!(" ({more} more)") };
    Some(why(
        &first.code,
        WhoCanFix::Developer,
        format!("{}: {}{others}.", first.field, first.message),
        first.next.clone(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_resources::Database;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> DataService {
        let mut whole = json!({"engine": "postgresql", "version": "15"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut service = DataService::new("orders", serde_json::from_value(whole).unwrap());
        service.metadata.namespace = Some("shop".to_owned());
        service.metadata.uid = Some("0123456789ab".to_owned());
        service
    }

    /// A Wednesday at noon.
    fn around() -> Surroundings {
        let plane = json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataPlane", "metadata": {"name": "default"},
            "spec": {"runnerImage": "runner:1", "engines": {"postgresql": {"images": {"15.18": "pg:15.18", "15.20": "pg:15.20"}}}}});
        let class = json!([{"metadata": {"name": "std", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "p", "allowVolumeExpansion": true}]);
        Surroundings {
            plane: Some(serde_json::from_value(plane).unwrap()),
            classes: serde_json::from_value(class).unwrap(),
            now: "2026-11-25T12:00:00Z".parse().unwrap(),
            ..Surroundings::default()
        }
    }

    /// The surroundings once `release` is in force and the database serves, or not.
    fn running(release: &Release, serves: bool) -> Surroundings {
        let mut database = Database::new("orders", release.value.spec.clone());
        database.metadata.annotations = Some([release.annotation().unwrap()].into());
        let available = json!({"type": "Available", "status": if serves { "True" } else { "False" }, "reason": "R",
            "message": "", "lastTransitionTime": "2026-11-25T11:00:00Z"});
        database.status = Some(
            serde_json::from_value(json!({"replicas": 1,
            "runningVersion": release.value.spec.version, "conditions": [available]}))
            .unwrap(),
        );
        Surroundings { database: Some(database), ..around() }
    }

    fn first(spec: serde_json::Value) -> Release {
        decide(&service(spec), &around()).release.unwrap()
    }

    #[test]
    fn a_first_release_leaves_nothing_to_choose() {
        let spec = first(json!({})).value.spec;
        assert_eq!((spec.version.as_str(), spec.image.engine.as_str()), ("15.20", "pg:15.20"));
        assert!(spec.parameters.contains_key("shared_buffers"), "{:?}", spec.parameters);
    }

    #[test]
    fn faults_are_all_told_and_nothing_is_released() {
        let decided = decide(&service(json!({"version": "99", "parameters": {"no_such": "1"}})), &around());
        assert!(decided.release.is_none() && decided.faults.len() >= 2, "{:?}", decided.faults);
        assert!(cause(&decided.faults).unwrap().message.contains("more"));
    }

    #[test]
    fn a_newer_operator_and_newer_images_move_nothing() {
        let release = first(json!({"version": "15.18"}));
        let mut later = running(&release, true);
        let plane = &mut later.plane.as_mut().unwrap().spec;
        plane.runner_image = Some("runner:2".to_owned());
        plane
            .engines
            .get_mut("postgresql")
            .unwrap()
            .images
            .insert("15.18".to_owned(), "moved:15.18".to_owned());
        let decided = decide(&service(json!({"version": "15.18"})), &later);
        assert_eq!(decided.release.unwrap(), release);
        assert_eq!(decided.newer.as_deref(), Some("15.20"));
    }

    #[test]
    fn a_change_that_restarts_nothing_brings_no_new_runner_with_it() {
        let release = first(json!({}));
        let mut later = running(&release, true);
        later.plane.as_mut().unwrap().spec.runner_image = Some("runner:2".to_owned());
        let reload = decide(&service(json!({"parameters": {"work_mem": "8MB"}})), &later).release.unwrap();
        assert_eq!(reload.value.spec.image, release.value.spec.image);
        assert_eq!(reload.value.spec.parameters["work_mem"], "8MB");
        let restart = decide(&service(json!({"resources": {"memory": "1Gi"}})), &later).release.unwrap();
        assert_eq!(restart.value.spec.image.runner, "runner:2");
    }

    #[test]
    fn an_image_that_does_not_come_up_is_replaced() {
        let release = first(json!({}));
        let mut later = running(&release, false);
        let images = &mut later.plane.as_mut().unwrap().spec.engines.get_mut("postgresql").unwrap().images;
        images.insert("15.20".to_owned(), "right:15.20".to_owned());
        let image = |around: &Surroundings| {
            decide(&service(json!({})), around).release.unwrap().value.spec.image.engine
        };
        assert_eq!(image(&later), "pg:15.20", "another outage is no reason");
        let status = later.database.as_mut().unwrap().status.as_mut().unwrap();
        status.why = Some(why("image_pull", WhoCanFix::PlatformOperator, "", ""));
        assert_eq!(image(&later), "right:15.20");
    }

    #[test]
    fn outside_the_window_only_what_does_not_interrupt_is_released() {
        let window = json!({"cron": "0 3 * * 0", "minutes": 60});
        let release = first(json!({"maintenance": window}));
        let wanted = json!({"maintenance": window, "resources": {"memory": "2Gi"},
            "parameters": {"work_mem": "8MB"}, "storage": {"size": "2Gi"}});
        let decided = decide(&service(wanted.clone()), &running(&release, true));
        let spec = decided.release.unwrap().value.spec;
        assert_eq!(spec.resources, release.value.spec.resources);
        assert_eq!((spec.storage.size.0.as_str(), spec.parameters["work_mem"].as_str()), ("2Gi", "8MB"));
        assert!(
            decided
                .pending
                .iter()
                .any(|change| change.field == "resources.memory" && change.waits_for.contains("2026-11-29"))
        );

        let mut sunday = running(&release, true);
        sunday.now = "2026-11-29T03:30:00Z".parse().unwrap();
        let decided = decide(&service(wanted.clone()), &sunday);
        assert!(decided.pending.is_empty());
        assert_eq!(decided.release.unwrap().value.spec.resources.memory.0, "2Gi");
        // The way back from a bad setting is open at any hour.
        let decided = decide(&service(wanted), &running(&release, false));
        assert!(decided.pending.is_empty());
    }

    #[test]
    fn a_stop_waits_for_no_window() {
        let window = json!({"cron": "0 3 * * 0", "minutes": 60});
        let release = first(json!({"maintenance": window}));
        let decided =
            decide(&service(json!({"maintenance": window, "stopped": true})), &running(&release, true));
        assert!(decided.release.unwrap().value.spec.stopped && decided.pending.is_empty());
    }

    #[test]
    fn a_fault_later_leaves_in_force_what_was_released() {
        let release = first(json!({}));
        let decided = decide(&service(json!({"version": "17"})), &running(&release, true));
        assert_eq!(decided.release, Some(release));
        assert!(!decided.faults.is_empty());
    }

    #[test]
    fn a_restore_that_exchanges_volumes_stops_the_instances() {
        let release = first(json!({}));
        let mut held = service(json!({}));
        held.annotations_mut().insert(meta::HELD.to_owned(), "back".to_owned());
        assert!(decide(&held, &running(&release, true)).release.unwrap().value.spec.stopped);
        assert!(!decide(&service(json!({})), &running(&release, true)).release.unwrap().value.spec.stopped);
    }

    #[test]
    fn a_hand_edit_of_the_database_is_undone_from_what_is_kept() {
        let release = first(json!({}));
        let mut edited = running(&release, true);
        edited.database.as_mut().unwrap().spec.image.engine = "evil".to_owned();
        assert_eq!(decide(&service(json!({})), &edited).release, Some(release));
    }
}
