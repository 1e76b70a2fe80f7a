//! What became of a Job, from the Job, its pods and the events about them.
//!
//! A runner that fails leaves a [`Failure`] as its pod's termination message. One that was killed leaves nothing, so the
//! cause is taken from what Kubernetes knows of the pod: out of memory, evicted, past its deadline, image not pulled.
use culvert_resources::{Failure, Why};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::causes::{failure_of, seen_in, why};

/// What became of a Job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// There is none.
    Absent,
    /// It is at work.
    Active {
        /// Attempts that have begun.
        attempts: i64,
        /// What keeps it from going on.
        why: Option<Why>,
    },
    /// It ended well.
    Succeeded {
        /// What the runner left behind.
        message: Option<String>,
        /// When.
        at: Option<Timestamp>,
    },
    /// It ended badly and is not tried again.
    Failed {
        /// Attempts that had begun.
        attempts: i64,
        /// Why.
        failure: Failure,
        /// When.
        at: Option<Timestamp>,
    },
}

impl Outcome {
    /// Whether it is at work.
    pub(crate) fn active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }
}

/// What became of `job`; `pods` are its pods, `events` the warnings about it and them.
pub(crate) fn judge(job: Option<&Job>, pods: &[Pod], events: &[Event]) -> Outcome {
    let Some(job) = job else { return Outcome::Absent };
    let attempts = attempts(job);
    if holds(job, "Complete") || holds(job, "SuccessCriteriaMet") {
        let message = newest(pods).and_then(terminated).and_then(|end| end.message);
        return Outcome::Succeeded { message, at: ended(job) };
    }
    match failed(job) {
        Some((reason, message)) => {
            let failure = cause_of_failure(job, &reason, &message, pods, events);
            Outcome::Failed { attempts, failure, at: ended(job) }
        }
        None => Outcome::Active { attempts, why: waiting_for(job, pods, events) },
    }
}

/// Attempts that have begun: pods that ended, and one that runs.
fn attempts(job: &Job) -> i64 {
    let status = job.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| i64::from(number.unwrap_or(0));
    count(status.failed) + count(status.succeeded) + count(status.active).min(1)
}

fn holds(job: &Job, kind: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// When the last of its conditions changed, which for a Job that is over is its end.
fn ended(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().filter_map(|one| one.last_transition_time.as_ref().map(|at| at.0)).max()
}

/// Reason and message of a Job that is over, badly. A Job that is about to fail (`FailureTarget`) still has a pod that
/// ends, so it is not over.
fn failed(job: &Job) -> Option<(String, String)> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let over =
        conditions.into_iter().find(|condition| condition.type_ == "Failed" && condition.status == "True")?;
    Some((over.reason.clone().unwrap_or_default(), over.message.clone().unwrap_or_default()))
}

/// The deepest cause that can be found.
fn cause_of_failure(job: &Job, reason: &str, message: &str, pods: &[Pod], events: &[Event]) -> Failure {
    if let Some(told) = newest(pods).and_then(told) {
        return told;
    }
    if reason == "DeadlineExceeded" {
        let seconds = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
        let stuck = waiting_for(job, pods, events).map(|why| format!(" It waited: {}", why.message));
        let message = format!("It did not end within {seconds} s.{}", stuck.unwrap_or_default());
        return failure_of(
            &why("deadline", message, "Raise the deadline, or look at what it waited for."),
            "run",
        );
    }
    let silent = newest(pods).and_then(killed).or_else(|| waiting_for(job, pods, events));
    let cause = silent.unwrap_or_else(|| {
        let name = job.name_any();
        let text =
            if message.is_empty() { "Its pods ended without a word.".to_owned() } else { message.to_owned() };
        why("job_failed", text, format!("Look at the log of the Job {name}, and at the events of its pods."))
    });
    failure_of(&cause, "run")
}

/// What the runner left behind when it failed.
fn told(pod: &Pod) -> Option<Failure> {
    serde_json::from_str(&terminated(pod)?.message?).ok()
}

/// Why Kubernetes ended a pod.
fn killed(pod: &Pod) -> Option<Why> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    if status.reason.as_deref() == Some("Evicted") {
        let told = status.message.clone().unwrap_or_default();
        let cause = why(
            "evicted",
            format!("The node evicted its pod: {told}"),
            "Make room on the node, or let the pod run on another.",
        );
        return Some(seen_in(cause, "Pod", &name));
    }
    let end = terminated(pod)?;
    let cause = match (end.reason.as_deref(), end.exit_code) {
        (Some("OOMKilled"), _) => why(
            "out_of_memory",
            "Its pod used more memory than it may and was killed.",
            "Look for other large processes on the node; if there are none, report it: a Job's memory is flat.",
        ),
        (_, 137) => why(
            "killed",
            "Its pod was killed before it could say why.",
            "Look at the node's events; the next attempt begins anew.",
        ),
        (reason, code) => why(
            "job_failed",
            format!("Its pod ended with code {code} ({}){}", reason.unwrap_or("no reason"), tail(&end)),
            format!("Look at the log of the pod {name}."),
        ),
    };
    Some(seen_in(cause, "Pod", &name))
}

/// The last line that a pod left, as an appendix to a sentence.
fn tail(end: &ContainerStateTerminated) -> String {
    let last =
        end.message.as_deref().and_then(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
    last.map_or_else(|| ".".to_owned(), |line| format!(": {}", line.chars().take(300).collect::<String>()))
}

/// What keeps an active Job from going on.
fn waiting_for(job: &Job, pods: &[Pod], events: &[Event]) -> Option<Why> {
    match newest(pods) {
        None => refused(job, events),
        Some(pod) if phase(pod) == "Pending" => {
            let cause =
                not_pulled(pod).or_else(|| unschedulable(pod)).or_else(|| not_mounted(pod, events))?;
            Some(seen_in(cause, "Pod", &pod.name_any()))
        }
        Some(_) => None,
    }
}

/// Why no pod could be made.
fn refused(job: &Job, events: &[Event]) -> Option<Why> {
    let message = warning(events, job.uid().as_deref(), "FailedCreate")?;
    let (code, next) = if message.contains("exceeded quota") {
        ("quota", "Raise the namespace's ResourceQuota, or free some of it.")
    } else if message.contains("denied the request") || message.contains("webhook") {
        ("denied_webhook", "Ask who runs the admission webhook to let this pod through.")
    } else {
        ("pod_refused", "Mend what the message names.")
    };
    Some(seen_in(why(code, format!("Kubernetes makes no pod: {message}"), next), "Job", &job.name_any()))
}

/// An image that cannot be pulled, or a container that cannot be made.
fn not_pulled(pod: &Pod) -> Option<Why> {
    let status = pod.status.as_ref()?;
    let containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in containers {
        let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) else {
            continue;
        };
        let told = waiting.message.clone().unwrap_or_default();
        match waiting.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                return Some(why(
                    "image_pull",
                    format!("The image {} cannot be pulled: {told}", container.image),
                    "Check the image in the DataPlane, the registry and the pull Secret.",
                ));
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return Some(why(
                    "container_not_made",
                    format!("The container cannot be made: {told}"),
                    "Mend what the message names.",
                ));
            }
            _ => {}
        }
    }
    None
}

fn unschedulable(pod: &Pod) -> Option<Why> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let stuck = conditions
        .into_iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let told = stuck.message.clone().unwrap_or_default();
    Some(why(
        "unschedulable",
        format!("No node takes its pod: {told}"),
        "Add room, or remove what keeps it away.",
    ))
}

fn not_mounted(pod: &Pod, events: &[Event]) -> Option<Why> {
    let told = warning(events, pod.uid().as_deref(), "FailedMount")?;
    Some(why("volume_mount", format!("A volume cannot be mounted: {told}"), "See that what it names exists."))
}

/// The newest warning with a reason about an object.
fn warning(events: &[Event], uid: Option<&str>, reason: &str) -> Option<String> {
    let about = events.iter().filter(|event| {
        event.involved_object.uid.as_deref() == uid && event.reason.as_deref() == Some(reason)
    });
    about.max_by_key(|event| event.last_timestamp.clone()).and_then(|event| event.message.clone())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()))
}

/// How the container that works ended, or else the one that ended badly before it.
fn terminated(pod: &Pod) -> Option<ContainerStateTerminated> {
    let status = pod.status.as_ref()?;
    let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let working = status.container_statuses.iter().flatten().find_map(|container| ended(&container.state));
    let installing = || {
        let ends =
            status.init_container_statuses.iter().flatten().find_map(|container| ended(&container.state));
        ends.filter(|end| end.exit_code != 0)
    };
    working.or_else(installing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn job(status: Value) -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": "b-backup", "namespace": "shop", "uid": "job"},
            "spec": {"activeDeadlineSeconds": 60, "template": {"spec": {"containers": []}}},
            "status": status,
        }))
        .unwrap()
    }

    fn over(reason: &str) -> Job {
        job(
            json!({"failed": 3, "conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": "over"}]}),
        )
    }

    fn pod(status: Value) -> Pod {
        let metadata = json!({"name": "p", "uid": "pod", "creationTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn finished(state: Value) -> Pod {
        let container = json!({"name": "runner", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": state}});
        pod(json!({"phase": "Failed", "containerStatuses": [container]}))
    }

    fn pending(reason: &str) -> Pod {
        let container = json!({"name": "runner", "image": "registry/none:1", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "not found"}}});
        pod(json!({"phase": "Pending", "containerStatuses": [container]}))
    }

    fn event(uid: &str, reason: &str, message: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {"uid": uid}, "reason": reason, "message": message,
            "lastTimestamp": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    fn code(outcome: Outcome) -> String {
        match outcome {
            Outcome::Active { why, .. } => why.map_or_else(|| "none".to_owned(), |why| why.code),
            Outcome::Failed { failure, .. } => failure.code,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_the_runner_says_comes_first() {
        let said = json!({"step": "upload", "code": "no_bucket", "message": "There is no bucket b.", "hint": "Make it."});
        let pods = [finished(json!({"exitCode": 65, "reason": "OOMKilled", "message": said.to_string()}))];
        let Outcome::Failed { attempts, failure, .. } = judge(Some(&over("PodFailurePolicy")), &pods, &[])
        else {
            panic!("it failed")
        };
        assert_eq!((attempts, failure.step.as_str(), failure.code.as_str()), (3, "upload", "no_bucket"));
    }

    #[rstest]
    #[case(json!({"exitCode": 137, "reason": "OOMKilled"}), "out_of_memory")]
    #[case(json!({"exitCode": 137, "reason": "Error"}), "killed")]
    #[case(json!({"exitCode": 1, "reason": "Error", "message": "boom\n\n"}), "job_failed")]
    fn one_that_died_without_a_word_has_a_cause(#[case] state: Value, #[case] expected: &str) {
        assert_eq!(code(judge(Some(&over("BackoffLimitExceeded")), &[finished(state)], &[])), expected);
    }

    #[test]
    fn an_eviction_a_deadline_and_nothing_at_all() {
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert_eq!(code(judge(Some(&over("BackoffLimitExceeded")), &[evicted], &[])), "evicted");
        let late = judge(Some(&over("DeadlineExceeded")), &[pending("ImagePullBackOff")], &[]);
        assert!(
            matches!(&late, Outcome::Failed { failure, .. } if failure.message.contains("cannot be pulled"))
        );
        assert_eq!(code(late), "deadline");
        assert_eq!(code(judge(Some(&over("BackoffLimitExceeded")), &[], &[])), "job_failed");
    }

    #[rstest]
    #[case("ImagePullBackOff", "image_pull")]
    #[case("CreateContainerConfigError", "container_not_made")]
    #[case("ContainerCreating", "none")]
    fn a_pod_that_does_not_start_has_a_cause(#[case] reason: &str, #[case] expected: &str) {
        assert_eq!(code(judge(Some(&job(json!({"active": 1}))), &[pending(reason)], &[])), expected);
    }

    #[test]
    fn quota_webhook_and_volume_are_told_by_events() {
        let waiting = job(json!({}));
        let quota = event("job", "FailedCreate", "pods \"x\" is forbidden: exceeded quota: q");
        assert_eq!(code(judge(Some(&waiting), &[], std::slice::from_ref(&quota))), "quota");
        let webhook = event("job", "FailedCreate", "admission webhook \"w\" denied the request: no");
        assert_eq!(code(judge(Some(&waiting), &[], &[webhook])), "denied_webhook");
        let mount = event("pod", "FailedMount", "secret \"keys\" not found");
        let creating = pending("ContainerCreating");
        assert_eq!(code(judge(Some(&waiting), &[creating], &[mount])), "volume_mount");
        let other = Event { involved_object: Default::default(), ..quota };
        assert_eq!(code(judge(Some(&waiting), &[], &[other])), "none");
    }

    #[test]
    fn a_job_that_is_about_to_fail_is_not_over() {
        let ending = job(
            json!({"active": 1, "failed": 1, "conditions": [{"type": "FailureTarget", "status": "True"}]}),
        );
        assert!(matches!(judge(Some(&ending), &[], &[]), Outcome::Active { attempts: 2, .. }));
        assert_eq!(judge(None, &[], &[]), Outcome::Absent);
    }

    #[test]
    fn a_success_brings_its_message() {
        let done = job(json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}));
        let pods = [finished(json!({"exitCode": 0, "message": "{}"}))];
        assert_eq!(
            judge(Some(&done), &pods, &[]),
            Outcome::Succeeded { message: Some("{}".to_owned()), at: None }
        );
    }
}
