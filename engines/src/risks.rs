//! Changes that cannot be made, and those that can be made and may surprise.

use culvert_resources::DataServiceSpec;

use crate::Amount;
use crate::catalogue::Engine;
use crate::fault::Fault;
use crate::plan::Seen;
use crate::version::Version;

/// Changes that cannot be made.
pub(crate) fn refused(
    engine: &Engine,
    current: &DataServiceSpec,
    desired: &DataServiceSpec,
    seen: &Seen,
    version: Option<&str>,
) -> Vec<Fault> {
    let elsewhere = "Create a new service and restore a backup into it.";
    let mut faults = Vec::new();
    if current.engine != desired.engine {
        faults.push(Fault::new(
            "spec.engine",
            "immutable",
            "the engine of a data service cannot be changed",
            elsewhere,
        ));
    }
    if current.source != desired.source {
        let message = "what a service begins with cannot be changed";
        faults.push(Fault::new("spec.source", "immutable", message, "Leave it as it was."));
    }
    if current.storage.class != desired.storage.class {
        faults.push(Fault::new(
            "spec.storage.class",
            "immutable",
            "the storage class of a volume cannot be changed",
            elsewhere,
        ));
    }
    faults.extend(volume(current, desired, seen));
    faults.extend(versions(engine, current, desired, seen, version));
    faults
}

fn volume(current: &DataServiceSpec, desired: &DataServiceSpec, seen: &Seen) -> Option<Fault> {
    let (was, is) = (Amount::of(&current.storage.size).ok()?, Amount::of(&desired.storage.size).ok()?);
    if is < was {
        let (message, next) = (
            "a volume cannot shrink",
            "Create a new service with a smaller volume and restore a backup into it.",
        );
        return Some(Fault::new("spec.storage.size", "volume_cannot_shrink", message, next));
    }
    (is > was && seen.can_expand == Some(false)).then(|| {
        let message = "the storage class does not let volumes grow";
        let next = "Set allowVolumeExpansion on the storage class, or restore a backup into a new service with larger volumes.";
        Fault::new("spec.storage.size", "volume_cannot_grow", message, next)
    })
}

/// Refuses what the engine's files do not bear: an older release, or another major.
fn versions(
    engine: &Engine,
    current: &DataServiceSpec,
    desired: &DataServiceSpec,
    seen: &Seen,
    version: Option<&str>,
) -> Option<Fault> {
    let from = Version::parse(seen.running_version.as_deref().unwrap_or(&current.version))?;
    let to = Version::parse(version.unwrap_or(&desired.version))?;
    if !from.shares(&to, engine.major_numbers) {
        let message =
            format!("{} {from} cannot become {to} in place: the majors have different files", engine.title);
        let next = format!("Take a logical backup and restore it into a new service of version {to}.");
        return Some(Fault::new("spec.version", "version_major_change", message, next));
    }
    (to < from && !from.is_of(&to)).then(|| {
        let message = format!("{} {from} cannot go back to {to}", engine.title);
        Fault::new(
            "spec.version",
            "version_downgrade",
            message,
            format!("Stay at {from}, or choose a newer release."),
        )
    })
}

/// What can be done and may surprise.
pub(crate) fn warnings(
    engine: &Engine,
    current: &DataServiceSpec,
    desired: &DataServiceSpec,
    seen: &Seen,
) -> Vec<String> {
    let mut warnings = lowered(engine, current, desired, seen);
    let (was, is) = (Amount::of(&current.storage.size).ok(), Amount::of(&desired.storage.size).ok());
    if was.zip(is).is_some_and(|(was, is)| is > was) && seen.can_expand.is_none() {
        warnings.push("Whether the storage class lets volumes grow is not known yet.".to_owned());
    }
    if desired.topology.replicas < current.topology.replicas && desired.topology.replicas == 1 {
        warnings.push("No replica remains: a lost volume is then only in the backups.".to_owned());
    }
    if current.backup.is_some() && desired.backup.is_none() {
        warnings.push(
            "Without a backup target the log is archived no more: recent points in time are lost.".to_owned(),
        );
    }
    warnings
}

/// Parameters that a replica needs as high as its primary, and that are lowered.
fn lowered(
    engine: &Engine,
    current: &DataServiceSpec,
    desired: &DataServiceSpec,
    seen: &Seen,
) -> Vec<String> {
    if seen.replicas < 2 {
        return Vec::new();
    }
    let (was, is) = (engine.resolve_parameters(current), engine.resolve_parameters(desired));
    let needed = engine.parameters.iter().filter(|(_, parameter)| parameter.replicas_need_as_much);
    let fell = needed.filter(|(name, _)| {
        engine.set_number(name, &was).zip(engine.set_number(name, &is)).is_some_and(|(was, is)| is < was)
    });
    fell.map(|(name, _)| {
        format!("{name} is lowered: a replica keeps the old value until the primary has restarted with the new one.")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use crate::Seen;
    use crate::tests::{changed, seen, set};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use rstest::rstest;

    #[rstest]
    #[case("512Mi", Some(true), "volume_cannot_shrink")]
    #[case("2Gi", Some(false), "volume_cannot_grow")]
    fn volumes_do_not_shrink_nor_grow_where_they_cannot(
        #[case] size: &str,
        #[case] can_expand: Option<bool>,
        #[case] code: &str,
    ) {
        let plan =
            changed(&Seen { can_expand, ..seen(1) }, |spec| spec.storage.size = Quantity(size.to_owned()));
        assert_eq!(plan.faults[0].code, code);
        assert!(plan.summary.starts_with("This cannot be done"), "{}", plan.summary);
    }

    #[rstest]
    #[case("15", "version_major_change")]
    #[case("17.8", "version_downgrade")]
    #[case("17.99", "version_unavailable")]
    #[case("18", "version_unknown")]
    fn versions_that_the_files_do_not_bear_are_refused(#[case] version: &str, #[case] code: &str) {
        let mut seen = seen(1);
        seen.available_versions.push("17.8".to_owned());
        let plan = changed(&seen, |spec| spec.version = version.to_owned());
        assert!(plan.faults.iter().any(|fault| fault.code == code), "{:?}", plan.faults);
    }

    #[test]
    fn an_image_that_was_taken_away_stops_no_other_change() {
        let seen = Seen { available_versions: vec![], ..seen(1) };
        assert_eq!(changed(&seen, set("log_statement", "ddl")).faults, []);
    }

    #[test]
    fn a_lower_limit_than_on_a_replica_is_told() {
        let told = |replicas| changed(&seen(replicas), set("max_connections", "20")).warnings;
        assert!(told(2).iter().any(|warning| warning.contains("max_connections is lowered")));
        assert!(!told(1).iter().any(|warning| warning.contains("max_connections is lowered")));
    }
}
