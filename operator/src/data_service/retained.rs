//! Volumes that outlived an earlier service of the same name: whether a new one may take them.
use culvert_engines::{Engine, Version};
use culvert_resources::{WhoCanFix, Why, meta};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;

use crate::why::why;

/// Annotation on a retained claim: exact version of the engine that wrote it.
pub(super) const VERSION: &str = "data.culvert.dev/version";

/// Why the claims that are there cannot be taken over; nothing when there are none, or they can.
pub(super) fn obstacle(
    name: &str,
    engine: &Engine,
    version: &str,
    filled: bool,
    claims: &[PersistentVolumeClaim],
) -> Option<Why> {
    claims.iter().find_map(|claim| {
        let found = one(name, engine, version, filled, claim)?;
        Some(Why { object: Some(format!("PersistentVolumeClaim/{}", claim.name_any())), ..found })
    })
}

fn one(
    name: &str,
    engine: &Engine,
    version: &str,
    filled: bool,
    claim: &PersistentVolumeClaim,
) -> Option<Why> {
    let label = |key: &str| claim.labels().get(key).map(String::as_str);
    if label(meta::SERVICE) != Some(name) {
        return Some(why(
            "volume_of_another",
            WhoCanFix::Developer,
            format!("The claim {} is there already and belongs to nothing of Culvert.", claim.name_any()),
            "Choose another name for the service, or delete the claim.",
        ));
    }
    let held = label(meta::ENGINE).unwrap_or_default();
    if held != engine.name {
        return Some(why(
            "volume_of_another_engine",
            WhoCanFix::Developer,
            format!("A volume of an earlier service {name} is kept, and it is of {held}."),
            "Choose another name for the service, or delete the claim if its data is not needed.",
        ));
    }
    if filled {
        return Some(why(
            "volume_in_the_way",
            WhoCanFix::Developer,
            format!(
                "A volume of an earlier service {name} is kept, and this one is to be filled by a restore."
            ),
            "Choose another name for the service, or delete the claim if its data is not needed.",
        ));
    }
    let wrote = claim.annotations().get(VERSION).and_then(|version| Version::parse(version));
    let fits =
        wrote.zip(Version::parse(version)).is_none_or(|(wrote, wanted)| same_files(engine, &wrote, &wanted));
    (!fits).then(|| {
        let wrote = claim.annotations().get(VERSION).cloned().unwrap_or_default();
        why(
            "volume_of_another_version",
            WhoCanFix::Developer,
            format!("A volume of an earlier service {name} is kept, and {} {wrote} wrote it.", engine.title),
            "Ask for that version, or choose another name for the service.",
        )
    })
}

/// Whether one version reads the files of the other: the same major, and not an older release of it.
fn same_files(engine: &Engine, wrote: &Version, wanted: &Version) -> bool {
    let majors: Vec<Version> = engine.majors().iter().filter_map(|major| Version::parse(major)).collect();
    let one_major = majors.iter().any(|major| wrote.is_of(major) && wanted.is_of(major));
    one_major && wanted >= wrote
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_engines::catalogue;
    use rstest::rstest;

    fn claim(service: &str, engine: &str, version: &str) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({"metadata": {
            "name": "data-orders-0", "labels": {meta::SERVICE: service, meta::ENGINE: engine},
            "annotations": {VERSION: version},
        }}))
        .unwrap()
    }

    #[rstest]
    #[case("orders", "postgresql", "15.18", false, None)]
    #[case("orders", "valkey", "8.1.1", false, Some("volume_of_another_engine"))]
    #[case("other", "postgresql", "15.18", false, Some("volume_of_another"))]
    #[case("orders", "postgresql", "15.18", true, Some("volume_in_the_way"))]
    #[case("orders", "postgresql", "17.9", false, Some("volume_of_another_version"))]
    #[case("orders", "postgresql", "15.21", false, Some("volume_of_another_version"))]
    #[case("orders", "postgresql", "", false, None)]
    fn only_volumes_of_the_same_engine_and_major_are_taken_over(
        #[case] service: &str,
        #[case] engine: &str,
        #[case] version: &str,
        #[case] filled: bool,
        #[case] code: Option<&str>,
    ) {
        let postgresql = catalogue().engine("postgresql").unwrap();
        let found = obstacle("orders", postgresql, "15.20", filled, &[claim(service, engine, version)]);
        assert_eq!(found.as_ref().map(|why| why.code.as_str()), code);
    }
}
