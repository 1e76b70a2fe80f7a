//! The checks of a cluster, as rules over what is there.
use culvert_engines::{Catalogue, Version};
use culvert_resources::{Check, CheckResult, DataPlaneSpec, EngineState};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;

use crate::driver;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The storage class of services that name none.
pub(crate) fn default_class<'a>(
    spec: &DataPlaneSpec,
    classes: &'a [StorageClass],
) -> Option<&'a StorageClass> {
    match &spec.storage_class {
        Some(name) => classes.iter().find(|class| class.name_any() == *name),
        None => classes
            .iter()
            .find(|class| class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true")),
    }
}

/// All checks.
pub(super) fn all(spec: &DataPlaneSpec, classes: &[StorageClass], engines: &[EngineState]) -> Vec<Check> {
    let class = default_class(spec, classes);
    vec![storage_class(spec, class), expansion(class), runner(spec), images(engines)]
}

fn check(name: &str, result: CheckResult, message: impl Into<String>, remedy: &str) -> Check {
    Check { name: name.to_owned(), result, message: message.into(), remedy: remedy.to_owned() }
}

fn storage_class(spec: &DataPlaneSpec, class: Option<&StorageClass>) -> Check {
    let name = "default-storage-class";
    match (class, &spec.storage_class) {
        (Some(class), _) => {
            let message = format!("Volumes are of the storage class {}.", class.name_any());
            check(name, CheckResult::Pass, message, "")
        }
        (None, Some(named)) => check(
            name,
            CheckResult::Fail,
            format!("There is no storage class {named}."),
            "Create it, or name another one in spec.storageClass.",
        ),
        (None, None) => check(
            name,
            CheckResult::Warn,
            "The cluster has no default storage class.",
            "Mark one as default; until then each service has to name one.",
        ),
    }
}

fn expansion(class: Option<&StorageClass>) -> Check {
    let name = "volume-expansion";
    let Some(class) = class else {
        return check(name, CheckResult::Warn, "It is not known whether volumes can grow.", "");
    };
    if class.allow_volume_expansion == Some(true) {
        return check(name, CheckResult::Pass, "Volumes can grow.", "");
    }
    let message = format!("Volumes of the storage class {} cannot grow.", class.name_any());
    check(name, CheckResult::Warn, message, "Set allowVolumeExpansion on it, if its provisioner can do that.")
}

fn runner(spec: &DataPlaneSpec) -> Check {
    let name = "runner-image";
    match spec.runner_image.as_deref().filter(|image| !image.is_empty()) {
        Some(image) => check(name, CheckResult::Pass, format!("Instances are run by {image}."), ""),
        None => check(
            name,
            CheckResult::Fail,
            "No image of the runner is named.",
            "Set spec.runnerImage, which the operator's chart does.",
        ),
    }
}

fn images(engines: &[EngineState]) -> Check {
    let name = "engine-images";
    let ready = engines.iter().filter(|engine| engine.ready).count();
    if ready == 0 {
        let remedy = "Name images in spec.engines, by engine and exact version.";
        return check(name, CheckResult::Fail, "No engine can run: no image is named.", remedy);
    }
    match engines.iter().find(|engine| !engine.ready) {
        Some(odd) => {
            let message = format!("{} {} cannot run: {}", odd.engine, odd.version, odd.message);
            check(name, CheckResult::Warn, message, "Correct spec.engines, or upgrade the operator.")
        }
        None => check(name, CheckResult::Pass, format!("{ready} releases of engines can run."), ""),
    }
}

/// The engines' releases that have an image here.
pub(super) fn engines(spec: &DataPlaneSpec, catalogue: &Catalogue) -> Vec<EngineState> {
    let mut states = Vec::new();
    for (engine, images) in &spec.engines {
        for (version, image) in &images.images {
            let message = unfit(catalogue, engine, version, image).unwrap_or_default();
            states.push(EngineState {
                engine: engine.clone(),
                version: version.clone(),
                image: image.clone(),
                ready: message.is_empty(),
                message,
            });
        }
    }
    states
}

fn unfit(catalogue: &Catalogue, engine: &str, version: &str, image: &str) -> Option<String> {
    let Some(known) = catalogue.engine(engine) else {
        return Some("This operator does not know the engine.".to_owned());
    };
    if driver::driver(&known.driver).is_none() {
        return Some("This operator has no driver for it.".to_owned());
    }
    let Some(exact) = Version::parse(version).filter(|_| version.contains('.')) else {
        return Some("The version is not exact, such as 17.9.".to_owned());
    };
    let majors = known.majors();
    if !majors.iter().filter_map(|major| Version::parse(major)).any(|major| exact.is_of(&major)) {
        return Some(format!("This operator knows only the majors {}.", majors.join(", ")));
    }
    image.trim().is_empty().then(|| "The image is empty.".to_owned())
}

/// What the cluster can do.
pub(super) fn capabilities(spec: &DataPlaneSpec, classes: &[StorageClass]) -> Vec<String> {
    let grows = default_class(spec, classes).is_some_and(|class| class.allow_volume_expansion == Some(true));
    grows.then(|| "volume-expansion".to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_engines::catalogue;

    fn spec(json: serde_json::Value) -> DataPlaneSpec {
        serde_json::from_value(json).unwrap()
    }

    fn class(name: &str, default: bool, grows: bool) -> StorageClass {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "annotations": {DEFAULT_CLASS: default.to_string()}},
            "provisioner": "p", "allowVolumeExpansion": grows,
        }))
        .unwrap()
    }

    fn result(spec: &DataPlaneSpec, classes: &[StorageClass], name: &str) -> CheckResult {
        let engines = engines(spec, catalogue());
        all(spec, classes, &engines).into_iter().find(|check| check.name == name).unwrap().result
    }

    #[test]
    fn storage_classes_are_looked_at() {
        let plain = spec(serde_json::json!({}));
        assert_eq!(result(&plain, &[], "default-storage-class"), CheckResult::Warn);
        let classes = [class("slow", false, true), class("fast", true, false)];
        assert_eq!(result(&plain, &classes, "default-storage-class"), CheckResult::Pass);
        assert_eq!(result(&plain, &classes, "volume-expansion"), CheckResult::Warn);
        let named = spec(serde_json::json!({"storageClass": "slow"}));
        assert_eq!(result(&named, &classes, "volume-expansion"), CheckResult::Pass);
        assert_eq!(capabilities(&named, &classes), ["volume-expansion"]);
        let wrong = spec(serde_json::json!({"storageClass": "none"}));
        assert_eq!(result(&wrong, &classes, "default-storage-class"), CheckResult::Fail);
    }

    #[test]
    fn what_cannot_run_says_why() {
        let spec = spec(serde_json::json!({"engines": {
            "postgresql": {"images": {"15.20": "a", "15": "b", "9.6": "c", "17.9": ""}}, "oracle": {"images": {"1.0": "d"}},
        }}));
        let states = engines(&spec, catalogue());
        let ready: Vec<&str> =
            states.iter().filter(|state| state.ready).map(|state| state.version.as_str()).collect();
        assert_eq!(ready, ["15.20"]);
        assert!(states.iter().filter(|state| !state.ready).all(|state| !state.message.is_empty()));
        assert_eq!(result(&spec, &[], "engine-images"), CheckResult::Warn);
        assert_eq!(result(&spec, &[], "runner-image"), CheckResult::Fail);
    }
}
