//! What the API server's refusal of an object means.
use culvert_resources::{WhoCanFix, Why};
use kube::core::Status;

use super::{line, why};

/// The cause behind a refusal; nothing when it is one that passes by itself.
pub(crate) fn refusal(status: &Status) -> Option<Why> {
    of_text(&status.message).or_else(|| match status.code {
        403 => Some(why(
            "forbidden",
            WhoCanFix::PlatformOperator,
            format!("The operator may not do what it has to: {}.", line(&status.message)),
            "Upgrade the operator's chart, whose roles belong to this version.",
        )),
        422 => Some(why(
            "refused_object",
            WhoCanFix::PlatformOperator,
            format!("The API server does not take an object: {}.", line(&status.message)),
            "Look at the operator's log, and at the version of the cluster.",
        )),
        _ => None,
    })
}

/// The cause behind a message of admission, wherever it appears.
pub(super) fn of_text(message: &str) -> Option<Why> {
    if let Some(rest) = after(message, "exceeded quota: ") {
        let (quota, what) = rest.split_once(',').unwrap_or((rest, ""));
        return Some(why(
            "quota",
            WhoCanFix::PlatformOperator,
            format!("The quota {} of the namespace is used up: {}.", line(quota), line(what)),
            "Raise the quota, or make this or another service smaller.",
        ));
    }
    if message.contains("failed quota") {
        return Some(why(
            "quota",
            WhoCanFix::PlatformOperator,
            format!("The quota of the namespace wants what the pod does not say: {}.", line(message)),
            "Add a LimitRange with defaults to the namespace.",
        ));
    }
    if let Some(rest) = after(message, "admission webhook ") {
        let name = rest.trim_start_matches('"').split('"').next().unwrap_or_default();
        let said =
            rest.split_once("denied the request").map_or("", |(_, said)| said.trim_start_matches([':', ' ']));
        return Some(why(
            "denied_by_webhook",
            WhoCanFix::PlatformOperator,
            format!("The admission webhook {} refused an object: {}.", line(name), line(said)),
            "Allow Culvert's objects in that policy, or change the service so that it fits.",
        ));
    }
    if let Some(rest) = after(message, "ValidatingAdmissionPolicy ") {
        let name = rest.trim_start_matches('\'').split('\'').next().unwrap_or_default();
        let said = after(rest, "denied request: ").unwrap_or_default();
        return Some(why(
            "denied_by_policy",
            WhoCanFix::PlatformOperator,
            format!(
                "The admission policy {} refused an object: {}.",
                line(name),
                line(said).trim_end_matches('.')
            ),
            "Allow Culvert's objects in that policy, or change the service so that it fits.",
        ));
    }
    if message.contains("failed calling webhook") {
        return Some(why(
            "webhook_unreachable",
            WhoCanFix::PlatformOperator,
            format!("An admission webhook does not answer: {}.", line(message)),
            "Mend the webhook, or take its configuration away.",
        ));
    }
    if message.contains("violates PodSecurity") {
        return Some(why(
            "denied_by_policy",
            WhoCanFix::PlatformOperator,
            format!("The pod security of the namespace refuses the pod: {}.", line(message)),
            "Use the level restricted or a lower one; Culvert's pods need no more than that.",
        ));
    }
    if message.contains("usage per Container is") || message.contains("usage per PersistentVolumeClaim is") {
        return Some(why(
            "limit_range",
            WhoCanFix::Developer,
            format!("A LimitRange of the namespace does not allow this size: {}.", line(message)),
            "Choose a size within the limits of the namespace.",
        ));
    }
    None
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "pods \"o-0\" is forbidden: exceeded quota: small, requested: cpu=1, used: cpu=1, limited: cpu=1",
        "quota",
        "The quota small of the namespace"
    )]
    #[case(
        "admission webhook \"policy.example.com\" denied the request: no registry but ours",
        "denied_by_webhook",
        "policy.example.com refused an object: no registry but ours"
    )]
    #[case(
        "Internal error occurred: failed calling webhook \"x\": connect: refused",
        "webhook_unreachable",
        "does not answer"
    )]
    #[case(
        "pods \"o-0\" is forbidden: violates PodSecurity \"restricted:latest\": x",
        "denied_by_policy",
        "pod security"
    )]
    #[case(
        "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        "limit_range",
        "does not allow this size"
    )]
    fn admissions_words_are_understood(#[case] said: &str, #[case] code: &str, #[case] words: &str) {
        let why = of_text(said).unwrap();
        assert_eq!(why.code, code);
        assert!(why.message.contains(words), "{}", why.message);
    }

    #[test]
    fn a_conflict_is_no_cause() {
        assert_eq!(refusal(&Status { code: 409, ..Status::default() }), None);
        assert_eq!(refusal(&Status { code: 403, ..Status::default() }).unwrap().code, "forbidden");
    }
}
