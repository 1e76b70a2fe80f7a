//! How much the port takes on before anybody is known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The numbers of the accept loop.
#[derive(Debug, Clone)]
pub(crate) struct EdgeLimits {
    /// Handshakes in flight, of all clients. When all are taken the loop waits.
    pub(crate) handshakes: usize,
    /// Handshakes in flight of one IPv4 address or one IPv6 /64. More are closed at once.
    pub(crate) handshakes_per_source: usize,
    /// Time from the TCP connection to the end of the ClientHello.
    pub(crate) hello: Duration,
    /// Time from the TCP connection to the end of the TLS handshake.
    pub(crate) handshake: Duration,
    /// Connections open at once. Agents on one side and people on the other may each take
    /// three quarters of them, so that neither shuts the other out.
    pub(crate) connections: usize,
    /// Connections open of one IPv4 address or one IPv6 /64. More are closed at once.
    pub(crate) connections_per_source: usize,
    /// Handshakes of agents begun per second; a stampede is spread out to this pace.
    pub(crate) agents_per_second: u32,
    /// The longest an agent's handshake is held back by that pace; beyond it the connection is
    /// closed, and the agent's own back-off takes over.
    pub(crate) agents_wait: Duration,
}

impl EdgeLimits {
    /// Connections that one side may have open.
    pub(crate) fn side(&self) -> usize {
        self.connections.saturating_sub(self.connections / 4)
    }
}

impl Default for EdgeLimits {
    fn default() -> Self {
        EdgeLimits {
            handshakes: 512,
            handshakes_per_source: 128,
            hello: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            connections: 10_000,
            connections_per_source: 200,
            agents_per_second: 400,
            agents_wait: Duration::from_secs(3),
        }
    }
}

/// Counts what is taken per network.
#[derive(Debug, Clone)]
pub(crate) struct PerSource {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One place of a network; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    network: IpAddr,
}

impl PerSource {
    pub(crate) fn new(limit: usize) -> Self {
        PerSource { limit, counts: Arc::default() }
    }

    /// A place for `address`, if its network has one left.
    pub(crate) fn place(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { counts: self.counts.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// An IPv6 host commonly owns its whole /64, so that is what is counted.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// Spreads a rush to a steady pace: each taker is told how long to wait for its turn.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    burst: Duration,
    longest: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// One second's worth of turns may be taken at once.
    pub(crate) fn new(per_second: u32, longest: Duration) -> Self {
        let burst = Duration::from_secs(1);
        Pace { interval: burst / per_second.max(1), burst, longest, next: Mutex::new(None) }
    }

    /// How long to wait from `now`, or `None` when that would be longer than the limit.
    pub(crate) fn turn(&self, now: Instant) -> Option<Duration> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        let turn = next.map_or(earliest, |turn| turn.max(earliest));
        let wait = turn.saturating_duration_since(now);
        if wait > self.longest {
            return None;
        }
        *next = Some(turn + self.interval);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_network_and_given_back() {
        let places = PerSource::new(2);
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let held = [places.place(v4), places.place("::ffff:192.0.2.7".parse().unwrap())];
        assert!(held.iter().all(Option::is_some));
        assert!(places.place(v4).is_none());
        assert!(places.place("192.0.2.8".parse().unwrap()).is_some());
        drop(held);
        assert!(places.counts.lock().unwrap().is_empty());

        let _six =
            [places.place("2001:db8::1".parse().unwrap()), places.place("2001:db8::2".parse().unwrap())];
        assert!(places.place("2001:db8::3".parse().unwrap()).is_none());
        assert!(places.place("2001:db8:0:1::3".parse().unwrap()).is_some());
    }

    #[test]
    fn a_rush_is_spread_and_then_refused() {
        let pace = Pace::new(10, Duration::from_secs(2));
        let now = Instant::now() + Duration::from_secs(60);
        let waits: Vec<_> = (0..40).map(|_| pace.turn(now)).collect();
        assert!(waits.iter().take(11).all(|wait| *wait == Some(Duration::ZERO)));
        assert_eq!(waits[15], Some(Duration::from_millis(500)));
        assert_eq!(waits[30], Some(Duration::from_secs(2)));
        assert_eq!(waits[31], None);
        assert_eq!(pace.turn(now + Duration::from_secs(4)), Some(Duration::ZERO));
    }
}
