//! Whether a spec can be carried out: every fault at once, each with its field and the way out.

use culvert_resources::{DataServiceSpec, TlsMode};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::catalogue::{Engine, Range};
use crate::fault::Fault;
use crate::version::{self, Version};
use crate::{Amount, check_parameters};

/// Characters that the name of a data service may have: `<name>-primary-<hash>` stays a label's value.
pub const LONGEST_NAME: usize = 40;

/// Why `name` cannot be the name of a data service; the same rule stands in the resource's schema.
#[must_use]
pub fn check_name(name: &str) -> Option<Fault> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(allowed);
    (!good).then(|| {
        Fault::new(
            "metadata.name",
            "name_invalid",
            format!("the name has more than {LONGEST_NAME} characters, or others than a-z, 0-9 and dashes"),
            "Use lower-case letters, digits and dashes; begin with a letter and do not end with a dash.",
        )
    })
}

impl Engine {
    /// The newest of `available` that `wanted` means: `17` is the newest 17.x.
    ///
    /// # Errors
    ///
    /// The [`Fault`] that says which versions there are.
    pub fn resolve_version(&self, wanted: &str, available: &[String]) -> Result<String, Fault> {
        let parsed = Version::parse(wanted).ok_or_else(|| self.version_fault(wanted, available))?;
        let found = version::newest(&parsed, available);
        found.map(|version| version.to_string()).ok_or_else(|| self.version_fault(wanted, available))
    }

    fn version_fault(&self, wanted: &str, available: &[String]) -> Fault {
        let next = if available.is_empty() {
            format!("Add an image of {} to the cluster's DataPlane.", self.title)
        } else {
            format!("Choose one of {}, or add an image to the cluster's DataPlane.", available.join(", "))
        };
        let message = format!("{} {wanted} cannot run in this cluster: it has no image of it", self.title);
        Fault::new("spec.version", "version_unavailable", message, next)
    }

    /// Every fault of `spec` that can be told without looking at a cluster; none when it is good.
    #[must_use]
    pub fn check(&self, spec: &DataServiceSpec) -> Vec<Fault> {
        let mut faults = Vec::new();
        faults.extend(self.check_version(&spec.version));
        faults.extend(self.check_topology(spec));
        let limits = &self.limits;
        faults.extend(within("spec.resources.cpu", &spec.resources.cpu, &limits.cpu));
        faults.extend(within("spec.resources.memory", &spec.resources.memory, &limits.memory));
        faults.extend(within("spec.storage.size", &spec.storage.size, &limits.storage));
        faults.extend(self.check_growth(spec));
        faults.extend(self.check_tls(spec));
        let sized = !faults
            .iter()
            .any(|fault| fault.field.starts_with("spec.resources") || fault.field == "spec.storage.size");
        faults.extend(check_parameters::all(self, spec, sized));
        faults
    }

    fn check_version(&self, wanted: &str) -> Option<Fault> {
        let majors = self.majors();
        let parsed = Version::parse(wanted);
        let known = |major: &String| {
            let (major, parsed) = (Version::parse(major), parsed.as_ref());
            major.zip(parsed).is_some_and(|(major, parsed)| parsed.is_of(&major) || major.is_of(parsed))
        };
        (!majors.iter().any(known)).then(|| {
            let message = format!("{} {wanted} is not a version that Culvert knows", self.title);
            Fault::new(
                "spec.version",
                "version_unknown",
                message,
                format!("Choose one of {}.", majors.join(", ")),
            )
        })
    }

    /// Major versions, oldest first.
    #[must_use]
    pub fn majors(&self) -> Vec<String> {
        let mut majors: Vec<String> = self.releases.iter().map(|release| release.major.clone()).collect();
        majors.dedup();
        majors
    }

    fn check_topology(&self, spec: &DataServiceSpec) -> Vec<Fault> {
        let (replicas, field) = (spec.topology.replicas, "spec.topology.replicas");
        let mut faults = Vec::new();
        if !(1..=self.max_replicas).contains(&replicas) {
            let message = format!(
                "{replicas} instances are not possible: {} runs with 1 to {}",
                self.title, self.max_replicas
            );
            faults.push(Fault::new(
                field,
                "replicas_out_of_range",
                message,
                "Choose a number in that range; to stop the service, set spec.stopped.",
            ));
        }
        if spec.topology.synchronous && !self.supports.synchronous {
            let message = format!("{} does not replicate synchronously", self.title);
            faults.push(Fault::new(
                "spec.topology.synchronous",
                "synchronous_unsupported",
                message,
                "Set it to false.",
            ));
        } else if spec.topology.synchronous && replicas < 2 {
            let message = "synchronous replication needs at least 2 instances";
            faults.push(Fault::new(
                field,
                "synchronous_needs_replicas",
                message,
                "Ask for 2 instances or more, or set spec.topology.synchronous to false.",
            ));
        }
        faults
    }

    fn check_tls(&self, spec: &DataServiceSpec) -> Option<Fault> {
        (spec.tls.mode == TlsMode::Preferred && !self.supports.plaintext).then(|| {
            let message = format!("{} takes connections without TLS at another port only", self.title);
            Fault::new("spec.tls.mode", "plaintext_unsupported", message, "Set it to Required.")
        })
    }

    fn check_growth(&self, spec: &DataServiceSpec) -> Option<Fault> {
        let field = "spec.storage.growthLimit";
        let limit = spec.storage.growth_limit.as_ref()?;
        if let Some(fault) = within(field, limit, &self.limits.storage) {
            return Some(fault);
        }
        let (limit, size) = (Amount::of(limit).ok()?, Amount::of(&spec.storage.size).ok()?);
        (limit < size).then(|| {
            let message = "the volume is already larger than the size up to which it may grow";
            Fault::new(field, "growth_limit_below_size", message, "Raise the limit, or leave it out.")
        })
    }
}

fn within(field: &str, quantity: &Quantity, range: &Range) -> Option<Fault> {
    let amount = match Amount::of(quantity) {
        Ok(amount) => amount,
        Err(error) => {
            return Some(Fault::new(
                field,
                "quantity_invalid",
                error.to_string(),
                "Write it as Kubernetes does.",
            ));
        }
    };
    let (min, max): (Amount, Amount) = (range.min.parse().ok()?, range.max.parse().ok()?);
    (amount < min || amount > max).then(|| {
        let message =
            format!("{} is not possible: it must be from {} to {}", quantity.0, range.min, range.max);
        Fault::new(field, "size_out_of_range", message, "Choose a size in that range.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::tests::spec;
    use proptest::prelude::*;
    use rstest::rstest;

    fn codes(spec: &DataServiceSpec) -> Vec<(String, String)> {
        let engine = catalogue().engine(&spec.engine).unwrap();
        engine.check(spec).into_iter().map(|fault| (fault.field, fault.code)).collect()
    }

    fn fault(field: &str, code: &str) -> Vec<(String, String)> {
        vec![(field.to_owned(), code.to_owned())]
    }

    #[test]
    fn the_smallest_specs_are_good() {
        for engine in catalogue().engines() {
            assert_eq!(codes(&spec(&engine.name, &engine.releases[0].major)), []);
        }
    }

    #[rstest]
    #[case("14", true)]
    #[case("1", true)]
    #[case("nonsense", true)]
    #[case("17", false)]
    #[case("17.12", false)]
    #[case("17.99", false)]
    fn only_known_majors_are_accepted(#[case] version: &str, #[case] refused: bool) {
        let expected = if refused { fault("spec.version", "version_unknown") } else { vec![] };
        assert_eq!(codes(&spec("postgresql", version)), expected);
    }

    #[rstest]
    #[case(0, false, "replicas_out_of_range")]
    #[case(6, false, "replicas_out_of_range")]
    #[case(i32::MIN, false, "replicas_out_of_range")]
    #[case(1, true, "synchronous_needs_replicas")]
    fn impossible_topologies_are_refused(
        #[case] replicas: i32,
        #[case] synchronous: bool,
        #[case] code: &str,
    ) {
        let mut spec = spec("postgresql", "17");
        spec.topology.replicas = replicas;
        spec.topology.synchronous = synchronous;
        assert_eq!(codes(&spec), fault("spec.topology.replicas", code));
    }

    #[test]
    fn an_engine_without_synchronous_replication_says_so() {
        let mut spec = spec("valkey", "8.1");
        spec.topology.replicas = 3;
        spec.topology.synchronous = true;
        assert_eq!(codes(&spec), fault("spec.topology.synchronous", "synchronous_unsupported"));
    }

    #[test]
    fn an_engine_with_one_port_takes_tls_only() {
        let mut spec = spec("valkey", "8.1");
        spec.tls.mode = TlsMode::Preferred;
        assert_eq!(codes(&spec), fault("spec.tls.mode", "plaintext_unsupported"));
    }

    #[rstest]
    #[case("16Mi", "size_out_of_range")]
    #[case("99Ei", "quantity_invalid")]
    #[case("64Ti", "size_out_of_range")]
    #[case("-1Gi", "size_out_of_range")]
    #[case("much", "quantity_invalid")]
    fn impossible_sizes_are_refused(#[case] memory: &str, #[case] code: &str) {
        let mut spec = spec("postgresql", "17");
        spec.resources.memory = Quantity(memory.to_owned());
        assert_eq!(codes(&spec), fault("spec.resources.memory", code));
    }

    #[test]
    fn a_growth_limit_is_not_below_the_size() {
        let mut spec = spec("postgresql", "17");
        spec.storage.growth_limit = Some(Quantity("1023Mi".to_owned()));
        assert_eq!(codes(&spec), fault("spec.storage.growthLimit", "growth_limit_below_size"));
        spec.storage.growth_limit = Some(Quantity("1024Mi".to_owned()));
        assert_eq!(codes(&spec), []);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut spec = spec("postgresql", "9");
        spec.topology.replicas = 9;
        spec.resources.cpu = Quantity("1000".to_owned());
        spec.parameters.insert("nonsense".to_owned(), "1".to_owned());
        assert_eq!(codes(&spec).len(), 4);
    }

    #[test]
    fn a_missing_version_names_those_that_are_there() {
        let engine = catalogue().engine("postgresql").unwrap();
        let available = ["15.20".to_owned(), "17.12".to_owned()];
        assert_eq!(engine.resolve_version("17", &available), Ok("17.12".to_owned()));
        let fault = engine.resolve_version("16", &available).unwrap_err();
        assert!(fault.next.contains("15.20, 17.12"), "{}", fault.next);
        assert!(engine.resolve_version("17", &[]).unwrap_err().next.contains("DataPlane"));
    }

    #[rstest]
    #[case("a", true)]
    #[case("orders-2", true)]
    #[case("a234567890123456789012345678901234567890", true)]
    #[case("a2345678901234567890123456789012345678901", false)]
    #[case("", false)]
    #[case("2a", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("A", false)]
    #[case("a.b", false)]
    #[case("ä", false)]
    fn names_at_the_limits(#[case] name: &str, #[case] good: bool) {
        assert_eq!(check_name(name).is_none(), good, "{name:?}");
    }

    proptest! {
        #[test]
        fn any_spec_is_checked_without_harm(version in ".{0,12}", memory in ".{0,12}", name in ".{0,60}", value in ".{0,30}") {
            for engine in catalogue().engines() {
                let mut spec = spec(&engine.name, &version);
                spec.resources.memory = Quantity(memory.clone());
                spec.parameters.insert(name.clone(), value.clone());
                let _ = (engine.check(&spec), engine.resolve_parameters(&spec), check_name(&name));
            }
        }
    }
}
