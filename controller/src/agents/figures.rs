//! Samples from the wire to the app: what cannot be read is left out.

use culvert_proto::telemetry::v1 as wire;

use crate::app::{Of, Source};
use crate::domain::agent::bounded_text;
use crate::domain::figures::SeriesKey;
use crate::domain::observed::ObjectKey;

/// The roles of sources whose samples are kept.
const INSTANCE: &str = "instance";
const OPERATOR: &str = "operator";
/// The most characters kept of a problem.
const PROBLEM_MAX: usize = 300;

/// What can be kept of these sources, and how many samples or sources cannot.
pub(super) fn read(sources: Vec<wire::Source>) -> (Vec<Source>, usize) {
    let mut unread = 0;
    let read = sources.into_iter().filter_map(|source| {
        let told = source.samples.len();
        let read = of_source(source);
        unread += told - read.as_ref().map_or(0, |source| source.samples.len());
        read
    });
    (read.collect(), unread)
}

fn of_source(source: wire::Source) -> Option<Source> {
    let wire::Source { role, namespace, pod, service, problem, samples, .. } = source;
    // Names of Kubernetes, and nothing else: they are shown.
    let named = |name: &str| ObjectKey::parse("Database", &namespace, name).is_ok();
    let of = match role.as_str() {
        INSTANCE if named(&service) && named(&pod) => Of::Service { namespace, service },
        OPERATOR if ObjectKey::parse("DataPlane", "", &pod).is_ok() => Of::Operator,
        _ => return None,
    };
    let samples = samples.into_iter().filter_map(|sample| {
        let labels = sample.labels.into_iter().map(|label| (label.name, label.value)).collect();
        Some((SeriesKey::parse(&pod, &sample.name, labels)?, sample.value))
    });
    let samples = samples.collect();
    let problem = (!problem.is_empty()).then(|| bounded_text(&problem, PROBLEM_MAX));
    Some(Source { of, instance: pod, problem, samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(role: &str, pod: &str) -> wire::Source {
        let sample = |name: &str| wire::Sample { name: name.to_owned(), labels: Vec::new(), value: 1.0 };
        wire::Source {
            role: role.to_owned(),
            namespace: "data".to_owned(),
            pod: pod.to_owned(),
            service: "orders".to_owned(),
            samples: vec![sample("culvert_x"), sample("go_threads"), sample("culvert_\u{1b}")],
            problem: "\u{1b}[31mno".to_owned(),
            left_out: 0,
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let (read, unread) = read(vec![
            source("instance", "orders-0"),
            source("operator", "operator"),
            source("operator", "../../x"),
            source("instance", "../../x"),
            wire::Source::default(),
        ]);
        assert_eq!((read.len(), unread), (2, 10));
        assert_eq!(read[0].samples.len(), 1);
        assert_eq!(read[1].of, Of::Operator);
        assert!(!read[0].problem.as_deref().unwrap().contains('\u{1b}'));
    }
}
