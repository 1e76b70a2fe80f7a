//! Why pods are not even created: what the StatefulSet's controller was refused.
use culvert_resources::{WhoCanFix, Why};

use super::{Snapshot, event, line, refusal, seen_in, why};

pub(super) fn cause(seen: &Snapshot<'_>) -> Option<Why> {
    let refused = event(seen, "StatefulSet", seen.stateful_set, &["FailedCreate", "FailedUpdate"])?;
    let message = refused.message.as_deref().unwrap_or_default();
    let found = refusal::of_text(message).unwrap_or_else(|| {
        why(
            "pod_refused",
            WhoCanFix::PlatformOperator,
            format!("The pod is not created: {}.", line(message)),
            "Look at the events of the StatefulSet.",
        )
    });
    Some(seen_in(found, "StatefulSet", seen.stateful_set))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cause, event};

    #[test]
    fn a_denied_pod_names_the_webhook() {
        let denied = event(
            "StatefulSet",
            "orders",
            "FailedCreate",
            "create Pod orders-0 in StatefulSet orders failed error: admission webhook \"deny.example\" denied the request: not here",
        );
        let found = cause(&[], &[], &[denied], 1).unwrap();
        assert_eq!(found.code, "denied_by_webhook");
        assert_eq!(found.object.as_deref(), Some("StatefulSet/orders"));
    }

    #[test]
    fn an_unknown_refusal_is_told_as_it_is() {
        let odd = event("StatefulSet", "orders", "FailedCreate", "something else");
        assert!(cause(&[], &[], &[odd], 1).unwrap().message.contains("something else"));
    }
}
