//! The window itself: series of samples, each bounded, and all of them together.
//!
//! A sample takes 16 bytes, a whole series about 4 KiB: 240 samples and at most half a KiB of names. So
//! a cluster can fill 8 MiB, an organisation 32 MiB and all of them 128 MiB. Who comes when there is no
//! room is not taken, and pushes nobody out; what was not told of for the time of the window is dropped.
//! An instance that tells nothing counts as a series.

use std::collections::{HashMap, VecDeque};

use super::Of;
use crate::domain::figures::{SeriesKey, WINDOW};
use crate::domain::{ClusterId, OrgId, Time};

/// The most samples of a series: an hour of one each 15 seconds.
const SAMPLES_MAX: usize = 240;
/// The most series of one data service.
const SERVICE_MAX: usize = 512;
/// The most series of one cluster.
const CLUSTER_MAX: usize = 2_000;
/// The most series of one organisation.
const ORG_MAX: usize = 8_000;
/// The most series of all.
const TOTAL_MAX: usize = 32_000;

/// Whose figures.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) org: OrgId,
    pub(super) cluster: ClusterId,
    pub(super) of: Of,
}

/// One series as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it is.
    pub key: SeriesKey,
    /// When, and how much; oldest first.
    pub samples: Vec<(Time, f64)>,
}

/// An instance that told nothing when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProblem {
    /// The instance.
    pub instance: String,
    /// Why.
    pub problem: String,
    /// When it was asked.
    pub at: Time,
}

/// Recent figures of one data service, or of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// From when.
    pub since: Time,
    /// Until when.
    pub until: Time,
    /// Nothing new can come now: the cluster is not connected.
    pub stale: bool,
    /// By name and labels.
    pub series: Vec<Series>,
    /// Instances that told nothing.
    pub problems: Vec<SourceProblem>,
}

#[derive(Debug, Default)]
struct Service {
    series: HashMap<SeriesKey, VecDeque<(Time, f64)>>,
    problems: HashMap<String, (Time, String)>,
}

/// What is kept of all data services.
#[derive(Debug, Default)]
pub(super) struct Window {
    services: HashMap<Owner, Service>,
    clusters: HashMap<ClusterId, usize>,
    orgs: HashMap<OrgId, usize>,
    total: usize,
    swept: Option<Time>,
}

impl Window {
    /// Takes what an instance told; gives how many samples had no place.
    pub(super) fn take(
        &mut self,
        key: &Owner,
        instance: &str,
        problem: Option<String>,
        samples: Vec<(SeriesKey, f64)>,
        now: Time,
    ) -> u32 {
        self.sweep(now);
        match problem {
            Some(problem) => self.note(key, instance, (now, problem)),
            None => self.absolve(key, instance),
        }
        let refused = samples.into_iter().filter(|(name, value)| !self.put(key, name, *value, now)).count();
        u32::try_from(refused).unwrap_or(u32::MAX)
    }

    /// Keeps one sample; `false` when it is no number, or there is no room for its series.
    fn put(&mut self, key: &Owner, name: &SeriesKey, value: f64, now: Time) -> bool {
        if !value.is_finite() {
            return false;
        }
        let known = self.services.get_mut(key).and_then(|service| service.series.get_mut(name));
        if let Some(samples) = known {
            if samples.len() >= SAMPLES_MAX {
                samples.pop_front();
            }
            samples.push_back((now, value));
            return true;
        }
        let Some(service) = self.slot(key) else { return false };
        service.series.insert(name.clone(), VecDeque::from([(now, value)]));
        true
    }

    /// Keeps why an instance told nothing, if there is room.
    fn note(&mut self, key: &Owner, instance: &str, problem: (Time, String)) {
        let known = self.services.get_mut(key).and_then(|service| service.problems.get_mut(instance));
        if let Some(known) = known {
            *known = problem;
        } else if let Some(service) = self.slot(key) {
            service.problems.insert(instance.to_owned(), problem);
        }
    }

    /// An instance tells again.
    fn absolve(&mut self, key: &Owner, instance: &str) {
        let had = self.services.get_mut(key).and_then(|service| service.problems.remove(instance));
        if had.is_some() {
            self.total -= 1;
            let parts = [self.clusters.get_mut(&key.cluster), self.orgs.get_mut(&key.org)];
            parts.into_iter().flatten().for_each(|count| *count -= 1);
        }
    }

    /// Claims room for one more series or problem of a data service.
    fn slot(&mut self, key: &Owner) -> Option<&mut Service> {
        let full = self.services.get(key).is_some_and(|service| service.entries() >= SERVICE_MAX);
        if full || !self.has_room(key) {
            return None;
        }
        *self.clusters.entry(key.cluster).or_default() += 1;
        *self.orgs.entry(key.org).or_default() += 1;
        self.total += 1;
        Some(self.services.entry(key.clone()).or_default())
    }

    fn has_room(&self, key: &Owner) -> bool {
        self.total < TOTAL_MAX
            && self.clusters.get(&key.cluster).is_none_or(|count| *count < CLUSTER_MAX)
            && self.orgs.get(&key.org).is_none_or(|count| *count < ORG_MAX)
    }

    /// Drops what is older than the window; at most once in a minute, as it looks at everything.
    fn sweep(&mut self, now: Time) {
        let minute = time::Duration::minutes(1);
        if self.swept.is_some_and(|swept| now >= swept && now - swept < minute) {
            return;
        }
        self.swept = Some(now);
        let oldest = now - WINDOW;
        let mut left = Self { swept: self.swept, ..Self::default() };
        for (key, mut service) in std::mem::take(&mut self.services) {
            service.forget(oldest);
            let count = service.entries();
            if count == 0 {
                continue;
            }
            *left.clusters.entry(key.cluster).or_default() += count;
            *left.orgs.entry(key.org).or_default() += count;
            left.total += count;
            left.services.insert(key, service);
        }
        *self = left;
    }

    /// What is known of a data service.
    pub(super) fn figures(&self, key: &Owner, since: Time, until: Time, stale: bool) -> Figures {
        let mut figures = Figures { since, until, stale, series: Vec::new(), problems: Vec::new() };
        let Some(service) = self.services.get(key) else { return figures };
        for (name, samples) in &service.series {
            let samples: Vec<_> = samples.iter().filter(|(at, _)| *at >= since).copied().collect();
            if !samples.is_empty() {
                figures.series.push(Series { key: name.clone(), samples });
            }
        }
        figures.series.sort_by(|a, b| a.key.cmp(&b.key));
        for (instance, (at, problem)) in &service.problems {
            if *at >= since {
                let (instance, problem) = (instance.clone(), problem.clone());
                figures.problems.push(SourceProblem { instance, problem, at: *at });
            }
        }
        figures.problems.sort_by(|a, b| a.instance.cmp(&b.instance));
        figures
    }
}

impl Service {
    /// What counts: series and problems.
    fn entries(&self) -> usize {
        self.series.len() + self.problems.len()
    }

    fn forget(&mut self, oldest: Time) {
        self.series.retain(|_, samples| {
            samples.retain(|(at, _)| *at >= oldest);
            !samples.is_empty()
        });
        self.problems.retain(|_, (at, _)| *at >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = time::macros::datetime!(2026-03-01 10:00 UTC);

    fn key(org: OrgId, cluster: ClusterId, service: &str) -> Owner {
        let (namespace, service) = ("data".to_owned(), service.to_owned());
        Owner { org, cluster, of: Of::Service { namespace, service } }
    }

    fn name(n: usize) -> SeriesKey {
        SeriesKey::parse("orders-0", &format!("culvert_x{n}"), Vec::new()).unwrap()
    }

    fn seconds(n: i64) -> time::Duration {
        time::Duration::seconds(n)
    }

    #[test]
    fn a_series_keeps_its_last_samples() {
        let (mut window, key) = (Window::default(), key(OrgId::generate(), ClusterId::generate(), "orders"));
        for n in 0..1000_i32 {
            let now = T0 + seconds(i64::from(n));
            assert_eq!(window.take(&key, "orders-0", None, vec![(name(0), f64::from(n))], now), 0);
        }
        let now = T0 + seconds(999);
        let all = window.figures(&key, T0, now, false);
        assert_eq!((all.series.len(), all.series[0].samples.len()), (1, SAMPLES_MAX));
        assert_eq!(all.series[0].samples.last(), Some(&(now, 999.0)));
        let late = window.figures(&key, now - seconds(9), now, false);
        assert_eq!(late.series[0].samples.len(), 10);
    }

    /// Tells `many` series, spread over as many services as are needed.
    fn flood(window: &mut Window, org: OrgId, cluster: ClusterId, many: usize) -> u32 {
        (0..many.div_ceil(SERVICE_MAX))
            .map(|service| {
                let samples = (0..SERVICE_MAX).map(|n| (name(n), 1.0)).collect();
                window.take(&key(org, cluster, &format!("s{service}")), "i", None, samples, T0)
            })
            .sum()
    }

    #[test]
    fn nobody_can_fill_more_than_their_part() {
        let mut window = Window::default();
        let (org, cluster) = (OrgId::generate(), ClusterId::generate());
        let samples = (0..SERVICE_MAX + 7).map(|n| (name(n), 1.0)).collect();
        assert_eq!(window.take(&key(org, cluster, "one"), "i", None, samples, T0), 7);
        flood(&mut window, org, cluster, 10_000);
        assert_eq!(window.total, CLUSTER_MAX);
        for _ in 0..9 {
            flood(&mut window, org, ClusterId::generate(), 10_000);
        }
        assert_eq!(window.total, ORG_MAX);
        for _ in 0..20 {
            let org = OrgId::generate();
            for _ in 0..4 {
                flood(&mut window, org, ClusterId::generate(), 2_000);
            }
        }
        assert_eq!(window.total, TOTAL_MAX);
        // Who was there goes on.
        let now = T0 + seconds(15);
        assert_eq!(window.take(&key(org, cluster, "one"), "i", None, vec![(name(0), 2.0)], now), 0);
        // An hour later everything else is gone, and there is room again.
        let now = T0 + seconds(3610);
        flood(&mut window, OrgId::generate(), ClusterId::generate(), 0);
        assert_eq!(window.take(&key(org, cluster, "new"), "i", None, vec![(name(0), 2.0)], now), 0);
        assert_eq!(window.total, 2);
        assert_eq!(window.services.len(), 2);
    }

    #[test]
    fn an_instance_that_tells_again_has_no_problem_any_more() {
        let (mut window, key) = (Window::default(), key(OrgId::generate(), ClusterId::generate(), "orders"));
        for n in 0..2 * SERVICE_MAX {
            window.take(&key, &format!("orders-{n}"), Some("silent".to_owned()), Vec::new(), T0);
        }
        let problems = |window: &Window| window.figures(&key, T0, T0, false).problems;
        assert_eq!((problems(&window).len(), window.total), (SERVICE_MAX, SERVICE_MAX));
        window.take(&key, "orders-0", None, vec![(name(0), 1.0)], T0);
        assert!(problems(&window).iter().all(|problem| problem.instance != "orders-0"));
        assert_eq!(window.total, SERVICE_MAX, "its series took the place of its problem");
    }

    #[test]
    fn what_is_no_number_and_what_is_anothers_is_not_shown() {
        let (mut window, org) = (Window::default(), OrgId::generate());
        let ours = key(org, ClusterId::generate(), "orders");
        let samples = vec![(name(0), f64::NAN), (name(1), f64::INFINITY)];
        assert_eq!(window.take(&ours, "i", None, samples, T0), 2);
        window.take(&ours, "i", None, vec![(name(2), 1.0)], T0);
        let theirs = Owner { org: OrgId::generate(), ..ours.clone() };
        assert!(window.figures(&theirs, T0, T0, false).series.is_empty());
        let elsewhere = Owner { cluster: ClusterId::generate(), ..ours.clone() };
        assert!(window.figures(&elsewhere, T0, T0, false).series.is_empty());
        assert_eq!(window.figures(&ours, T0, T0, true).series.len(), 1);
    }
}
