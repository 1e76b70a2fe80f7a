//! What services use, and what a project allows them to use together.

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
        let cpu = read("spec.resources.cpu", &spec.resources.cpu.0)?.milli();
        let memory = read("spec.resources.memory", &spec.resources.memory.0)?.whole();
        let storage = read("spec.storage.size", &spec.storage.size.0)?.whole();
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

/// A quantity in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thousandths(u128);

impl Thousandths {
    /// Thousandths of the unit.
    #[must_use]
    pub fn milli(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn whole(self) -> u64 {
        u64::try_from(self.0.div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

/// A quantity as Kubernetes writes it, rounded up to a thousandth; `None` when it is none, is
/// negative, or is beyond what a cluster can have.
#[must_use]
pub fn quantity(text: &str) -> Option<Thousandths> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(split)?;
    let (multiplier, divisor) = scale(suffix)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let number: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let divisor = divisor * 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let milli = number.checked_mul(multiplier)?.checked_mul(1000)?.div_ceil(divisor);
    // 2^63 units are the bound of Kubernetes itself.
    (milli <= 1000_u128 << 63).then_some(Thousandths(milli))
}

/// What a suffix multiplies with, and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|s| *s == suffix);
    if let Some(power) = binary {
        return Some((1 << (10 * (power + 1)), 1));
    }
    let decimal = ["", "k", "M", "G", "T", "P", "E"].iter().position(|s| *s == suffix);
    if let Some(power) = decimal {
        return Some((10_u128.pow(3 * u32::try_from(power).ok()?), 1));
    }
    let small = ["m", "u", "n"].iter().position(|s| *s == suffix);
    if let Some(power) = small {
        return Some((1, 10_u128.pow(3 * (u32::try_from(power).ok()? + 1))));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<u32>().ok()?;
    (exponent <= 18).then(|| (10_u128.pow(exponent), 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let milli = |text| quantity(text).map(Thousandths::milli);
        assert_eq!(milli("500m"), Some(500));
        assert_eq!(milli("2"), Some(2000));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("1u"), Some(1));
        let whole = |text| quantity(text).map(Thousandths::whole);
        assert_eq!(whole("1Gi"), Some(1 << 30));
        assert_eq!(whole("0.5Ki"), Some(512));
        assert_eq!(whole("3e3"), Some(3000));
        assert_eq!(whole("1M"), Some(1_000_000));
        for bad in ["", "-1", "+", ".", "1..2", "1x", "1 Gi", "1KiB", "9999999999999999999", "20Ei", "1e99"] {
            assert_eq!(quantity(bad), None, "{bad}");
        }
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
        fn any_text_is_a_quantity_or_none(text in "\\PC{0,30}") {
            let _ = quantity(&text);
        }

        #[test]
        fn what_is_shown_is_read_back(amount in 0..1_u64 << 50) {
            prop_assert_eq!(quantity(&shown("cpu", amount)).map(Thousandths::milli), Some(amount));
            prop_assert_eq!(quantity(&shown("storage", amount)).map(Thousandths::whole), Some(amount));
        }
    }
}
