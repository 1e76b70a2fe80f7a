//! What services use, and what a project allows them to use together.

use culvert_engines::Amount;
use culvert_resources::DataServiceSpec;
use serde::{Deserialize, Serialize};

/// What a service, or all of a project, claims: instances counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// Services.
    pub data_services: u64,
    /// CPU, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Volumes, bytes.
    pub storage_bytes: u64,
}

/// Bounds of a project; what is absent is without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Services.
    pub data_services: Option<u64>,
    /// CPU, thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Volumes, bytes.
    pub storage_bytes: Option<u64>,
}

/// One bound that would be passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// `data_services`, `cpu`, `memory` or `storage`.
    pub what: &'static str,
    /// The bound, as people write it.
    pub allowed: String,
    /// In use, without the new claim.
    pub used: String,
    /// The new claim.
    pub asked: String,
}

/// A quantity that is none, by the field that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a quantity such as 500m, 2 or 1Gi")]
pub struct NotAQuantity(pub &'static str);

impl Claim {
    /// What a service of this spec claims, whether it runs or is stopped: a stopped one can be
    /// started at any time.
    pub fn of(spec: &DataServiceSpec) -> Result<Self, NotAQuantity> {
        let instances = u64::try_from(spec.topology.replicas.max(1)).unwrap_or(1);
        let read = |field, text: &str| quantity(text).ok_or(NotAQuantity(field));
        let cpu = milli(read("spec.resources.cpu", &spec.resources.cpu.0)?);
        let memory = whole(read("spec.resources.memory", &spec.resources.memory.0)?);
        let storage = whole(read("spec.storage.size", &spec.storage.size.0)?);
        Ok(Self {
            data_services: 1,
            cpu_milli: cpu.saturating_mul(instances),
            memory_bytes: memory.saturating_mul(instances),
            storage_bytes: storage.saturating_mul(instances),
        })
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            data_services: self.data_services.saturating_add(other.data_services),
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            storage_bytes: self.storage_bytes.saturating_add(other.storage_bytes),
        }
    }
}

impl Quota {
    /// The bounds that `claim` would pass beside what is `used`. A bound that `claim` does not
    /// touch is not looked at: what is over a quota that was lowered can still shrink.
    #[must_use]
    pub fn exceeded_by(&self, used: Claim, claim: Claim, before: Claim) -> Vec<Exceeded> {
        let bounds = [
            (
                "data_services",
                self.data_services,
                used.data_services,
                claim.data_services,
                before.data_services,
            ),
            ("cpu", self.cpu_milli, used.cpu_milli, claim.cpu_milli, before.cpu_milli),
            ("memory", self.memory_bytes, used.memory_bytes, claim.memory_bytes, before.memory_bytes),
            ("storage", self.storage_bytes, used.storage_bytes, claim.storage_bytes, before.storage_bytes),
        ];
        let passed = bounds.into_iter().filter(|(_, bound, used, claim, before)| {
            claim > before && bound.is_some_and(|bound| used.saturating_add(*claim) > bound)
        });
        passed
            .map(|(what, bound, used, claim, _)| Exceeded {
                what,
                allowed: shown(what, bound.unwrap_or_default()),
                used: shown(what, used),
                asked: shown(what, claim),
            })
            .collect()
    }
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, allowed, used, asked } = self;
        write!(f, "{what}: {used} of {allowed} are in use, and this asks for {asked}")
    }
}

/// An amount as people write it.
#[must_use]
pub fn shown(what: &str, amount: u64) -> String {
    match what {
        "cpu" if !amount.is_multiple_of(1000) => format!("{amount}m"),
        "cpu" => (amount / 1000).to_string(),
        "memory" | "storage" => bytes(amount),
        _ => amount.to_string(),
    }
}

/// Bytes as people write them: in the largest unit that loses nothing.
fn bytes(amount: u64) -> String {
    let units = [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.into_iter().find(|(size, _)| amount >= *size && amount.is_multiple_of(*size));
    unit.map_or_else(|| amount.to_string(), |(size, name)| format!("{}{name}", amount / size))
}

/// A quantity as Kubernetes writes it; `None` when it is none, or negative.
#[must_use]
pub fn quantity(text: &str) -> Option<Amount> {
    text.parse::<Amount>().ok().filter(|amount| *amount >= Amount::whole(0))
}

/// Thousandths of the unit, rounded up.
#[must_use]
pub fn milli(amount: Amount) -> u64 {
    u64::try_from(amount.thousandths()).unwrap_or_default()
}

/// Whole units, rounded up.
#[must_use]
pub fn whole(amount: Amount) -> u64 {
    u64::try_from(amount.units()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_claim_is_never_negative() {
        assert_eq!(quantity("1.5").map(milli), Some(1500));
        assert_eq!(quantity("0.5Ki").map(whole), Some(512));
        assert_eq!(quantity("-1"), None);
        assert_eq!(quantity("1x"), None);
    }

    #[test]
    fn instances_are_counted() {
        let mut spec = DataServiceSpec::default();
        spec.topology.replicas = 3;
        let claim = Claim::of(&spec).unwrap();
        assert_eq!((claim.data_services, claim.cpu_milli), (1, 750));
        assert_eq!((claim.memory_bytes, claim.storage_bytes), ((3 * 512) << 20, 3 << 30));
        spec.storage.size.0 = "big".to_owned();
        assert_eq!(Claim::of(&spec), Err(NotAQuantity("spec.storage.size")));
    }

    #[test]
    fn a_refusal_has_its_numbers() {
        let quota = Quota { cpu_milli: Some(1000), data_services: Some(1), ..Quota::default() };
        let used = Claim { cpu_milli: 750, ..Claim::default() };
        let asked = Claim { data_services: 1, cpu_milli: 500, memory_bytes: 1 << 40, storage_bytes: 0 };
        let exceeded = quota.exceeded_by(used, asked, Claim::default());
        let said: Vec<_> = exceeded.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["cpu: 750m of 1 are in use, and this asks for 500m"]);
    }

    #[test]
    fn what_is_over_a_lowered_quota_can_shrink_and_stay() {
        let quota = Quota { cpu_milli: Some(100), ..Quota::default() };
        let (used, before) = (Claim::default(), Claim { cpu_milli: 900, ..Claim::default() });
        let smaller = Claim { cpu_milli: 800, ..Claim::default() };
        assert_eq!(quota.exceeded_by(used, smaller, before), []);
        assert_eq!(quota.exceeded_by(used, before, before), []);
        let larger = Claim { cpu_milli: 901, ..Claim::default() };
        assert_eq!(quota.exceeded_by(used, larger, before).len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(amount in 0..1_u64 << 50) {
            prop_assert_eq!(quantity(&shown("cpu", amount)).map(milli), Some(amount));
            prop_assert_eq!(quantity(&shown("storage", amount)).map(whole), Some(amount));
        }
    }
}
