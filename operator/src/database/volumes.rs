//! Volumes: how large they shall be, and which of them are on their way out.
use std::collections::BTreeMap;

use culvert_engines::Amount;
use culvert_resources::Storage;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A volume grows by itself when less than this part of it is free.
const NEARLY_FULL: i64 = 15;
/// It grows by a quarter, and at least by this.
const LEAST_STEP: i64 = 1 << 30;
/// Less than this part free is told as a fault.
pub(super) const FULL: i64 = 10;

/// How full a volume is, as its instance told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) total: i64,
    pub(super) free: i64,
}

impl Fill {
    /// Whether less than so many hundredths are free.
    pub(super) fn below(self, percent: i64) -> bool {
        self.total > 0 && self.free.saturating_mul(100) < self.total.saturating_mul(percent)
    }
}

/// Bytes that a claim asks for.
pub(super) fn asked(claim: &PersistentVolumeClaim) -> Option<i64> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Amount::of(requests.get("storage")?).ok().map(Amount::units)
}

/// Bytes that a claim has.
pub(super) fn has(claim: &PersistentVolumeClaim) -> Option<i64> {
    let capacity: &BTreeMap<String, Quantity> = claim.status.as_ref()?.capacity.as_ref()?;
    Amount::of(capacity.get("storage")?).ok().map(Amount::units)
}

/// Whether a claim waits for its growth.
pub(super) fn growing(claim: &PersistentVolumeClaim) -> bool {
    has(claim).zip(asked(claim)).is_some_and(|(has, asked)| has < asked)
}

/// Bytes that every volume of a database shall have: what was asked for, what any of them has already, and more
/// when one is nearly full and may grow.
pub(super) fn wanted(storage: &Storage, claims: &[PersistentVolumeClaim], fills: &[Fill]) -> i64 {
    let spec = Amount::of(&storage.size).map_or(0, Amount::units);
    let largest = claims.iter().filter_map(asked).max().unwrap_or(0).max(spec);
    let limit = storage.growth_limit.as_ref().and_then(|limit| Amount::of(limit).ok()).map(Amount::units);
    let due = fills.iter().any(|fill| fill.below(NEARLY_FULL)) && !claims.iter().any(growing);
    match limit {
        Some(limit) if due && limit > largest => {
            largest.saturating_add((largest / 4).max(LEAST_STEP)).min(limit)
        }
        _ => largest,
    }
}

/// The size as it was written in the spec when it is that, so that nothing seems to change; else in whole Mi.
pub(super) fn quantity(storage: &Storage, bytes: i64) -> Quantity {
    const MI: i64 = 1 << 20;
    if Amount::of(&storage.size).is_ok_and(|size| size.units() == bytes) {
        return storage.size.clone();
    }
    Quantity(format!("{}Mi", bytes.div_euclid(MI) + i64::from(bytes.rem_euclid(MI) != 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(asked: &str, has: &str) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({
            "spec": {"resources": {"requests": {"storage": asked}}},
            "status": {"capacity": {"storage": has}},
        }))
        .unwrap()
    }

    fn storage(size: &str, limit: Option<&str>) -> Storage {
        let quantity = |text: &str| Quantity(text.to_owned());
        Storage { size: quantity(size), class: None, growth_limit: limit.map(quantity) }
    }

    const GI: i64 = 1 << 30;
    const FULL_DISK: Fill = Fill { total: 100, free: 14 };

    #[test]
    fn a_volume_never_shrinks_and_grows_when_asked() {
        let claims = [claim("4Gi", "4Gi")];
        assert_eq!(wanted(&storage("2Gi", None), &claims, &[]), 4 * GI);
        assert_eq!(wanted(&storage("8Gi", None), &claims, &[]), 8 * GI);
    }

    #[test]
    fn it_grows_by_itself_up_to_its_limit_and_once_at_a_time() {
        let claims = [claim("8Gi", "8Gi")];
        assert_eq!(wanted(&storage("8Gi", Some("20Gi")), &claims, &[FULL_DISK]), 10 * GI);
        assert_eq!(wanted(&storage("8Gi", Some("9Gi")), &claims, &[FULL_DISK]), 9 * GI);
        assert_eq!(wanted(&storage("8Gi", None), &claims, &[FULL_DISK]), 8 * GI);
        let growing = [claim("10Gi", "8Gi")];
        assert_eq!(
            wanted(&storage("8Gi", Some("20Gi")), &growing, &[FULL_DISK]),
            10 * GI,
            "one step at a time"
        );
        let roomy = Fill { total: 100, free: 16 };
        assert_eq!(wanted(&storage("8Gi", Some("20Gi")), &claims, &[roomy]), 8 * GI);
    }

    #[test]
    fn a_size_keeps_the_words_of_the_spec() {
        let storage = storage("1Gi", None);
        assert_eq!(quantity(&storage, GI).0, "1Gi");
        assert_eq!(quantity(&storage, GI + 1).0, "1025Mi");
    }
}
