//! The data service that a restore makes: what the manifest says of the old one, with what was asked for otherwise.
//!
//! Never the source's: credentials are made new with the service, and its log goes nowhere unless the restore names a
//! target, where its folder bears its own uid. A name that stands for something of the other cluster (a storage class)
//! is kept only when it exists here.
use culvert_engines::{Amount, catalogue};
use culvert_resources::job::Inspected;
use culvert_resources::{
    DataService, DataServiceSpec, DataSource, Method, Restore, RestoreOverrides, Topology, Why, meta,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use crate::jobs::causes::why;

/// Annotation on a service: the uid of the restore that made it, and may therefore remove it.
pub(crate) const MADE_BY: &str = "data.culvert.dev/made-by";

/// What of this cluster matters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Here {
    /// Storage classes.
    pub(crate) classes: Vec<String>,
    /// Exact versions of the engine that can run.
    pub(crate) versions: Vec<String>,
}

/// Refuses what cannot be brought back, with the cause.
pub(crate) fn check(
    restore: &Restore,
    found: &Inspected,
    digest: Option<&str>,
    now: Timestamp,
) -> Result<(), Why> {
    if let Some(failure) = &found.failure {
        return Err(crate::jobs::causes::why_of(failure));
    }
    if digest.is_some_and(|digest| digest != found.manifest_digest) {
        let message = "The manifest in the target is not the one that the backup wrote.";
        return Err(why(
            "backup_changed",
            message,
            "Restore another backup, and look who may write to the bucket.",
        ));
    }
    if catalogue().engine(&found.engine).is_none() {
        let message = format!("This operator knows no engine {}.", found.engine);
        return Err(why("wrong_engine", message, "Upgrade the operator, or restore another backup."));
    }
    check_version(restore, found)?;
    check_moment(restore, found, now)
}

fn check_version(restore: &Restore, found: &Inspected) -> Result<(), Why> {
    let wanted = restore.spec.overrides.as_ref().and_then(|overrides| overrides.version.as_deref());
    let Some(wanted) = wanted else { return Ok(()) };
    let numbers = catalogue().engine(&found.engine).map_or(1, |engine| engine.major_numbers);
    let (new, old) = (major(wanted, numbers), major(&found.version, numbers));
    let fits = match found.method {
        Method::Physical => new == old,
        Method::Logical => new >= old,
    };
    if fits {
        return Ok(());
    }
    let rule = match found.method {
        Method::Physical => "a physical backup can only be restored into the same major version",
        Method::Logical => "a logical backup can only be restored into the same version or a newer one",
    };
    let message =
        format!("The backup is of {} {}, and {rule}, not into {wanted}.", found.engine, found.version);
    Err(why("wrong_version", message, "Leave the version out, or restore a logical backup."))
}

fn check_moment(restore: &Restore, found: &Inspected, now: Timestamp) -> Result<(), Why> {
    let Some(wanted) = restore.spec.point_in_time.as_ref().map(|time| time.0) else { return Ok(()) };
    if wanted > now {
        let message = format!("{wanted} has not been yet.");
        return Err(why("point_in_future", message, "Choose a moment that has been."));
    }
    let window = (found.recoverable_from.parse::<Timestamp>(), found.recoverable_until.parse::<Timestamp>());
    let (Ok(from), Ok(until)) = window else {
        let message = "The manifest does not say which moments can be reached.";
        return Err(why("no_manifest", message, "Restore another backup."));
    };
    if (from..=until).contains(&wanted) {
        return Ok(());
    }
    let message = format!("{wanted} cannot be reached: the recoverable window is from {from} to {until}.");
    Err(why("point_outside_window", message, "Choose a moment within the window, or another backup."))
}

fn major(version: &str, numbers: usize) -> Vec<u32> {
    version.split('.').take(numbers).filter_map(|number| number.parse().ok()).collect()
}

/// The spec of the new service.
pub(crate) fn spec(restore: &Restore, found: &Inspected, here: &Here) -> Result<DataServiceSpec, Why> {
    let old: DataServiceSpec = serde_json::from_value(found.service_spec.clone()).map_err(|error| {
        let message = format!("The manifest's description of the old service cannot be read: {error}.");
        why("no_manifest", message, "Upgrade the operator, or restore another backup.")
    })?;
    let asked = restore.spec.overrides.clone().unwrap_or_default();
    let mut storage = asked.storage.clone().unwrap_or_else(|| old.storage.clone());
    if asked.storage.as_ref().is_none_or(|asked| asked.class.is_none()) {
        // Another size is no reason to leave the class.
        storage.class = old.storage.class.clone().filter(|class| here.classes.contains(class));
    }
    let new = DataServiceSpec {
        engine: found.engine.clone(),
        version: version(&asked, &old, found, here),
        topology: asked.topology.unwrap_or(old.topology),
        resources: asked.resources.unwrap_or(old.resources),
        storage,
        parameters: asked.parameters.unwrap_or(old.parameters),
        backup: asked.backup,
        source: Some(DataSource { restore: restore.name_any() }),
        stopped: false,
        restarted_at: None,
        credentials_rotated_at: None,
        template: None,
        ..old
    };
    check_size(&new, found)?;
    Ok(new)
}

/// The version that was asked for; else the old wish, where it can be had here; else the newest of the same major.
fn version(asked: &RestoreOverrides, old: &DataServiceSpec, found: &Inspected, here: &Here) -> String {
    if let Some(version) = &asked.version {
        return version.clone();
    }
    let exact = old.version == found.version;
    if exact && !here.versions.contains(&old.version) {
        let numbers = catalogue().engine(&found.engine).map_or(1, |engine| engine.major_numbers);
        return old.version.split('.').take(numbers).collect::<Vec<_>>().join(".");
    }
    old.version.clone()
}

/// What was once stored must fit.
fn check_size(new: &DataServiceSpec, found: &Inspected) -> Result<(), Why> {
    let Ok(size) = Amount::of(&new.storage.size) else { return Ok(()) };
    if size.units() > found.data_bytes {
        return Ok(());
    }
    let message = format!(
        "The backup holds {} of data, more than the volume's {}.",
        culvert_engines::words(found.data_bytes),
        new.storage.size.0
    );
    Err(why("too_small", message, "Ask for a larger volume in overrides.storage."))
}

/// The service with this spec, marked as made by the restore.
pub(crate) fn service(restore: &Restore, name: &str, spec: DataServiceSpec) -> DataService {
    let pair = |key: &str, value: String| (key.to_owned(), value);
    let labels = [pair(meta::RESTORE, restore.name_any()), pair(meta::MANAGED_BY, "culvert".to_owned())];
    let annotations = [pair(MADE_BY, restore.uid().unwrap_or_default())];
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: restore.namespace(),
        labels: Some(labels.into()),
        annotations: Some(annotations.into()),
        ..ObjectMeta::default()
    };
    DataService { metadata, spec, status: None }
}

/// The stand-in that holds restored data until the volumes are exchanged: like the service that it stands in for, with one
/// instance and no backups of its own.
pub(crate) fn stand_in(
    restore: &Restore,
    like: &DataService,
    found: &Inspected,
) -> Result<DataServiceSpec, Why> {
    if like.spec.engine != found.engine {
        let message = format!("The service is {} and the backup is of {}.", like.spec.engine, found.engine);
        return Err(why(
            "wrong_engine",
            message,
            "Restore a backup of the same engine, or into a new service.",
        ));
    }
    let running = like.status.as_ref().and_then(|status| status.version.as_ref()?.running.clone());
    let version = running.unwrap_or_else(|| like.spec.version.clone());
    let numbers = catalogue().engine(&found.engine).map_or(1, |engine| engine.major_numbers);
    let (new, old) = (major(&version, numbers), major(&found.version, numbers));
    if new != old && (found.method == Method::Physical || new < old) {
        let message = format!("The service runs {version} and the backup is of {}.", found.version);
        return Err(why("wrong_version", message, "Restore into a new service."));
    }
    let new = DataServiceSpec {
        version,
        topology: Topology { replicas: 1, synchronous: false },
        backup: None,
        maintenance: None,
        source: Some(DataSource { restore: restore.name_any() }),
        stopped: false,
        restarted_at: None,
        credentials_rotated_at: None,
        template: None,
        ..like.spec.clone()
    };
    check_size(&new, found)?;
    Ok(new)
}

/// Whether a service was made by this very restore.
pub(crate) fn made_by(service: &DataService, restore: &Restore) -> bool {
    let maker = service.annotations().get(MADE_BY);
    maker.is_some() && maker.cloned() == restore.uid()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    pub(crate) fn restore(spec: Value) -> Restore {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Restore",
            "metadata": {"name": "r", "namespace": "shop", "uid": "r-uid", "creationTimestamp": "2026-05-01T12:00:00Z"},
            "spec": spec,
        }))
        .unwrap()
    }

    pub(crate) fn inspected() -> Inspected {
        Inspected {
            path: "services/a.orders.1/backups/b".to_owned(),
            manifest_digest: "d".to_owned(),
            engine: "postgresql".to_owned(),
            version: "17.5".to_owned(),
            method: Method::Physical,
            data_bytes: 1 << 30,
            recoverable_from: "2026-05-01T10:00:00Z".to_owned(),
            recoverable_until: "2026-05-01T11:00:00Z".to_owned(),
            service_spec: json!({"engine": "postgresql", "version": "17.5", "topology": {"replicas": 3},
                "storage": {"size": "5Gi", "class": "fast"}, "backup": {"target": "old"},
                "parameters": {"work_mem": "8MB"}, "restartedAt": "x", "stopped": true}),
            failure: None,
        }
    }

    fn now() -> Timestamp {
        "2026-05-01T12:00:00Z".parse().unwrap()
    }

    fn plain(extra: Value) -> Restore {
        let mut spec = json!({"service": "orders2", "source": {"backup": "b"}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        restore(spec)
    }

    #[test]
    fn nothing_of_the_sources_identity_is_taken_over() {
        let here = Here { classes: vec!["slow".to_owned()], versions: vec!["17.5".to_owned()] };
        let spec = spec(&plain(json!({})), &inspected(), &here).unwrap();
        assert_eq!(spec.backup, None);
        assert_eq!(spec.storage.class, None, "the class of the other cluster");
        assert_eq!((spec.version.as_str(), spec.topology.replicas), ("17.5", 3));
        assert_eq!((spec.stopped, spec.restarted_at), (false, None));
        assert_eq!(spec.source.unwrap().restore, "r");
        assert_eq!(spec.parameters["work_mem"], "8MB");
    }

    #[test]
    fn an_exact_version_that_cannot_be_had_here_becomes_its_major() {
        let here = Here { classes: Vec::new(), versions: vec!["17.6".to_owned()] };
        assert_eq!(spec(&plain(json!({})), &inspected(), &here).unwrap().version, "17");
    }

    #[test]
    fn overrides_come_first() {
        let asked = json!({"overrides": {"topology": {"replicas": 1}, "storage": {"size": "9Gi"},
            "backup": {"target": "new"}, "version": "17"}});
        let here = Here { classes: vec!["fast".to_owned()], versions: Vec::new() };
        let spec = spec(&plain(asked), &inspected(), &here).unwrap();
        assert_eq!((spec.topology.replicas, spec.storage.size.0.as_str()), (1, "9Gi"));
        assert_eq!(spec.storage.class.as_deref(), Some("fast"), "only the size was asked for");
        assert_eq!(spec.backup.unwrap().target, "new");
        assert_eq!(spec.version, "17");
    }

    #[test]
    fn a_volume_that_is_too_small_is_refused() {
        let asked = json!({"overrides": {"storage": {"size": "512Mi"}}});
        let refused = spec(&plain(asked), &inspected(), &Here::default()).unwrap_err();
        assert_eq!(refused.code, "too_small");
    }

    #[rstest]
    #[case("2026-05-01T10:00:00Z", None)]
    #[case("2026-05-01T11:00:00Z", None)]
    #[case("2026-05-01T09:59:59Z", Some("point_outside_window"))]
    #[case("2026-05-01T11:00:01Z", Some("point_outside_window"))]
    #[case("2026-05-01T12:00:01Z", Some("point_in_future"))]
    fn a_moment_outside_the_window_is_refused_with_the_window(#[case] at: &str, #[case] code: Option<&str>) {
        let refused = check(&plain(json!({"pointInTime": at})), &inspected(), None, now()).err();
        assert_eq!(refused.as_ref().map(|why| why.code.as_str()), code);
        if code == Some("point_outside_window") {
            assert!(refused.unwrap().message.contains("from 2026-05-01T10:00:00Z to 2026-05-01T11:00:00Z"));
        }
    }

    #[rstest]
    #[case(Method::Physical, "17", true)]
    #[case(Method::Physical, "18", false)]
    #[case(Method::Logical, "18", true)]
    #[case(Method::Logical, "16", false)]
    fn versions_fit_by_method(#[case] method: Method, #[case] version: &str, #[case] fits: bool) {
        let found = Inspected { method, ..inspected() };
        let asked = plain(json!({"overrides": {"version": version}}));
        assert_eq!(check(&asked, &found, None, now()).is_ok(), fits);
    }

    #[test]
    fn another_manifest_than_the_backups_is_refused() {
        let code =
            |digest| check(&plain(json!({})), &inspected(), Some(digest), now()).err().map(|why| why.code);
        assert_eq!(code("d"), None);
        assert_eq!(code("e").as_deref(), Some("backup_changed"));
    }

    #[test]
    fn only_what_a_restore_made_is_its_own() {
        let one = plain(json!({}));
        let made = service(&one, "orders2", spec(&one, &inspected(), &Here::default()).unwrap());
        assert!(made_by(&made, &one));
        let mut other = one.clone();
        other.metadata.uid = Some("another".to_owned());
        assert!(!made_by(&made, &other));
        assert!(!made_by(&DataService::new("x", DataServiceSpec::default()), &one));
    }
}
