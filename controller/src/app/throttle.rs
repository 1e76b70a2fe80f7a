//! How often one address may try something.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::Time;

/// Addresses remembered at once; above that the ones that were idle are dropped.
const ADDRESSES: usize = 10_000;

/// A bucket of attempts per address that fills up again with time.
#[derive(Debug)]
pub(super) struct Throttle {
    burst: f64,
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Time,
}

impl Throttle {
    /// `burst` attempts at once, then `per_minute`.
    pub(super) fn new(burst: u32, per_minute: u32) -> Self {
        Self {
            burst: f64::from(burst),
            per_second: f64::from(per_minute) / 60.0,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one attempt of `address`, or says how long to wait.
    pub(super) fn take(&self, address: IpAddr, now: Time) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.burst);
            if buckets.len() >= ADDRESSES {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(network_of(address)).or_insert(Bucket { left: self.burst, at: now });
        let left = self.filled(bucket, now);
        *bucket = Bucket { left: (left - 1.0).max(0.0), at: now };
        if left >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) / self.per_second)) }
    }

    fn filled(&self, bucket: &Bucket, now: Time) -> f64 {
        let passed = (now - bucket.at).as_seconds_f64().max(0.0);
        (bucket.left + passed * self.per_second).min(self.burst)
    }
}

/// One household has a whole /64 of IPv6 to itself.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let throttle = Throttle::new(3, 60);
        let here = IpAddr::from([10, 0, 0, 1]);
        let start = Time::UNIX_EPOCH;
        for _ in 0..3 {
            assert_eq!(throttle.take(here, start), Ok(()));
        }
        let wait = throttle.take(here, start).unwrap_err();
        assert!(wait <= Duration::from_secs(1));
        assert_eq!(throttle.take(IpAddr::from([10, 0, 0, 2]), start), Ok(()));
        assert_eq!(throttle.take(here, start + Duration::from_millis(1100)), Ok(()));
        assert!(throttle.take(here, start + Duration::from_millis(1100)).is_err());
    }

    #[test]
    fn a_network_of_version_six_is_one_address() {
        let throttle = Throttle::new(1, 1);
        assert!(throttle.take("2001:db8::1".parse().unwrap(), Time::UNIX_EPOCH).is_ok());
        assert!(throttle.take("2001:db8::2".parse().unwrap(), Time::UNIX_EPOCH).is_err());
        assert!(throttle.take("2001:db8:0:1::1".parse().unwrap(), Time::UNIX_EPOCH).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new(2, 60);
        for i in 0..(ADDRESSES as u32 * 2) {
            let _ = throttle.take(IpAddr::V4(i.into()), Time::UNIX_EPOCH);
        }
        assert!(throttle.buckets.lock().unwrap().len() <= ADDRESSES);
    }
}
