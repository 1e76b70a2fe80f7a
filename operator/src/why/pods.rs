//! Why a pod does not run: scheduling, nodes, mounts, images, containers.
use culvert_resources::{WhoCanFix, Why};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt as _;

use super::{Snapshot, event, line, seen_in, why};

/// A pod that should have ended by now is on a node that does not answer.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn cause(seen: &Snapshot<'_>, pod: &Pod) -> Option<Why> {
    let found = node_lost(seen, pod)
        .or_else(|| unschedulable(pod))
        .or_else(|| mounts(seen, pod))
        .or_else(|| statuses(pod).find_map(|status| image(status).or_else(|| config(status))))
        .or_else(|| statuses(pod).find_map(|status| crash(seen, pod, status)))
        .or_else(|| evicted(pod));
    found.map(|why| seen_in(why, "Pod", &pod.name_any()))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn node_lost(seen: &Snapshot<'_>, pod: &Pod) -> Option<Why> {
    // The time of deletion is the one at which the grace period ends.
    let due = pod.metadata.deletion_timestamp.as_ref()?.0;
    (seen.now.duration_since(due) > OVERDUE).then(|| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        why(
            "node_lost",
            WhoCanFix::PlatformOperator,
            format!("The node {node} does not answer, so the pod on it cannot end."),
            "Bring the node back, or delete it from the cluster.",
        )
    })
}

fn unschedulable(pod: &Pod) -> Option<Why> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let refused = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let message = line(refused.message.as_deref().unwrap_or_default());
    // Which claims are unbound, and why, is told by the claims themselves when it is known.
    let next = if message.contains("Insufficient") {
        "Add a node, or ask for less CPU and memory."
    } else if message.contains("volume node affinity") {
        "The volume is on a node or in a zone that has no room: make room there."
    } else {
        "Look at taints, selectors and volumes of the nodes."
    };
    Some(why(
        "unschedulable",
        WhoCanFix::PlatformOperator,
        format!("No node takes the pod: {message}."),
        next,
    ))
}

fn mounts(seen: &Snapshot<'_>, pod: &Pod) -> Option<Why> {
    let starting = statuses(pod).all(|status| {
        status.state.as_ref().is_some_and(|state| {
            state.waiting.as_ref().is_some_and(|waiting| {
                matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing"))
            })
        })
    });
    let reasons = ["FailedMount", "FailedAttachVolume"];
    let failed = event(seen, "Pod", &pod.name_any(), &reasons)
        .filter(|_| starting && statuses(pod).next().is_some())?;
    let message = failed.message.as_deref().unwrap_or_default();
    if message.contains("secret") && message.contains("not found") {
        return Some(why(
            "no_secret",
            WhoCanFix::Developer,
            format!("The pod waits for a Secret: {}.", line(message)),
            "Create the Secret that the backup target names.",
        ));
    }
    Some(why(
        "mount_failed",
        WhoCanFix::PlatformOperator,
        format!("A volume cannot be mounted: {}.", line(message)),
        "Look at the node and at the storage behind the volume.",
    ))
}

fn image(status: &ContainerStatus) -> Option<Why> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if !matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") {
        return None;
    }
    let said = waiting.message.as_deref().unwrap_or(reason);
    let next = if ["401", "403", "denied", "unauthorized", "authorization"]
        .iter()
        .any(|word| said.contains(word))
    {
        "Name a pull Secret that may read it in spec.imagePullSecrets of the DataPlane."
    } else if said.contains("not found") || said.contains("no such image") || reason == "ErrImageNeverPull" {
        "Push the image, or correct its name in spec.engines of the DataPlane."
    } else {
        "Look at the way from the nodes to the registry."
    };
    let message = format!("The image {} cannot be pulled: {}.", status.image, line(said));
    Some(why("image_pull", WhoCanFix::PlatformOperator, message, next))
}

fn config(status: &ContainerStatus) -> Option<Why> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if !matches!(reason, "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") {
        return None;
    }
    let said = line(waiting.message.as_deref().unwrap_or(reason));
    Some(why(
        "container_not_made",
        WhoCanFix::PlatformOperator,
        format!("The container {} is not made: {said}.", status.name),
        "Look at the image: it has to run as user 999 with a read-only root.",
    ))
}

fn crash(seen: &Snapshot<'_>, pod: &Pod, status: &ContainerStatus) -> Option<Why> {
    let state = status.state.as_ref()?;
    let looping =
        state.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"));
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0).or(last.filter(|_| looping))?;
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Some(why(
            "out_of_memory",
            WhoCanFix::Developer,
            "The engine was killed because it needed more memory than it has.",
            "Give it more memory in spec.resources.memory, or allow fewer connections.",
        ));
    }
    Some(why(
        "crash_loop",
        WhoCanFix::PlatformOperator,
        format!(
            "The container {} ends with code {}: {}.",
            status.name,
            ended.exit_code,
            last_words(seen, pod, ended)
        ),
        "Read the log of the instance; if a change came before, take it back.",
    ))
}

/// What it left as termination message, else the last line of its log.
fn last_words(seen: &Snapshot<'_>, pod: &Pod, ended: &ContainerStateTerminated) -> String {
    let left = ended.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let last = left.and_then(|message| message.lines().next_back());
    let logged = seen.logs.get(&pod.name_any()).map(String::as_str);
    line(last.or(logged).unwrap_or("it said nothing"))
}

fn evicted(pod: &Pod) -> Option<Why> {
    let status = pod.status.as_ref()?;
    (status.reason.as_deref() == Some("Evicted")).then(|| {
        let said = line(status.message.as_deref().unwrap_or_default());
        why(
            "evicted",
            WhoCanFix::PlatformOperator,
            format!("The node put the pod out: {said}."),
            "Give the node more room, or the service a node of its own.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cause, event, pod};
    use super::*;
    use serde_json::json;

    fn waiting(reason: &str, message: &str) -> Pod {
        pod(json!({"status": {"phase": "Pending", "containerStatuses": [{
            "name": "engine", "image": "localhost/pg:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}},
        }]}}))
    }

    fn code(pod: Pod) -> Option<String> {
        cause(&[pod], &[], &[], 0).map(|why| why.code)
    }

    #[test]
    fn an_image_that_cannot_be_pulled() {
        let missing = cause(&[waiting("ImagePullBackOff", "manifest not found")], &[], &[], 0).unwrap();
        assert_eq!(missing.code, "image_pull");
        assert!(missing.message.contains("localhost/pg:1") && missing.next.contains("Push the image"));
        let denied = cause(&[waiting("ErrImagePull", "401 unauthorized")], &[], &[], 0).unwrap();
        assert!(denied.next.contains("pull Secret"));
        assert_eq!(denied.object.as_deref(), Some("Pod/orders-0"));
    }

    #[test]
    fn a_crash_tells_its_last_words() {
        let crashed = |message: Option<&str>, reason: &str| {
            pod(json!({"status": {"containerStatuses": [{
                "name": "engine", "image": "i", "imageID": "", "ready": false, "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": reason, "message": message}},
            }]}}))
        };
        let left = cause(&[crashed(Some("starting\nno such setting\n"), "Error")], &[], &[], 0).unwrap();
        assert!(left.message.ends_with("code 1: no such setting."), "{}", left.message);
        let logged = cause(&[crashed(None, "Error")], &[], &[], 0).unwrap();
        assert!(logged.message.contains("FATAL: no space"), "{}", logged.message);
        assert_eq!(code(crashed(None, "OOMKilled")).as_deref(), Some("out_of_memory"));
    }

    #[test]
    fn a_node_that_is_gone_is_told_only_when_the_grace_is_over() {
        let ending = |at: &str| {
            pod(json!({"metadata": {"deletionTimestamp": at}, "spec": {"nodeName": "n1", "containers": []}}))
        };
        assert_eq!(code(ending("2026-11-25T11:59:00Z")).as_deref(), Some("node_lost"));
        assert_eq!(code(ending("2026-11-25T12:00:10Z")), None);
    }

    #[test]
    fn a_mount_counts_while_the_containers_wait_for_it() {
        let failed =
            event("Pod", "orders-0", "FailedMount", "MountVolume.SetUp failed: secret \"keys\" not found");
        let found =
            cause(&[waiting("ContainerCreating", "")], &[], std::slice::from_ref(&failed), 0).unwrap();
        assert_eq!(found.code, "no_secret");
        let runs = pod(json!({"status": {"containerStatuses": [{
            "name": "engine", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
        }]}}));
        assert_eq!(cause(&[runs], &[], &[failed], 0), None);
    }

    #[test]
    fn too_little_room_says_what_to_add() {
        let full = pod(json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient memory."}]}}));
        let found = cause(&[full], &[], &[], 0).unwrap();
        assert!(found.next.starts_with("Add a node"), "{}", found.next);
    }
}
