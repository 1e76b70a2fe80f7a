//! What is to be done about a target, and what is to be said of it: from what was seen, without effect.
use culvert_resources::{BackupTarget, ConditionType, Probe, Why};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::jiff;

use crate::jobs::causes::{seen_in, why};
use crate::jobs::outcome::Outcome;
use crate::reconcile::{Conditions, Verdict};

/// A target that failed its check is looked at again after this time, unless it is checked more often anyway.
const RETRY: SignedDuration = SignedDuration::from_mins(5);
/// Clocks that differ by more have signatures refused by most stores after some time more; it is worth a word.
const SKEW_MS: i64 = 60_000;
/// A result that is older than this many intervals says nothing any more.
const STALE_AFTER: i32 = 3;

/// What is known of the Secret, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// The target names none.
    NotNamed,
    /// It does not exist.
    Missing,
    /// It exists.
    There {
        /// Names of its keys.
        keys: Vec<String>,
        /// Generation of the credentials in it; 0 when it does not tell.
        generation: i64,
    },
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen<'a> {
    /// The target.
    pub(crate) target: &'a BackupTarget,
    /// Its Secret.
    pub(crate) secret: Secret,
    /// Value of the annotation that asks for a check.
    pub(crate) asked: Option<String>,
    /// The newest check's Job.
    pub(crate) job: Outcome,
    /// The time.
    pub(crate) now: Timestamp,
}

impl Seen<'_> {
    fn generation(&self) -> i64 {
        self.target.metadata.generation.unwrap_or_default()
    }

    /// Generation of the credentials in its Secret; 0 when the Secret does not tell.
    pub(crate) fn credential_generation(&self) -> i64 {
        match self.secret {
            Secret::There { generation, .. } => generation,
            Secret::NotNamed | Secret::Missing => 0,
        }
    }

    fn probe(&self) -> Option<&Probe> {
        self.target.status.as_ref()?.probe.as_ref()
    }

    /// The last check, if it is one of what the target is now.
    fn current_probe(&self) -> Option<&Probe> {
        self.probe().filter(|probe| {
            probe.generation == self.generation()
                && probe.credential_generation == self.credential_generation()
        })
    }

    fn every(&self) -> Option<SignedDuration> {
        let seconds = self.target.spec.check_every_seconds;
        (seconds > 0).then(|| SignedDuration::from_secs(seconds))
    }

    /// Time until the next check; none when only a change calls for one.
    pub(crate) fn until_check(&self) -> Option<SignedDuration> {
        let Some(probe) = self.current_probe() else { return Some(SignedDuration::ZERO) };
        if self.asked.is_some() && self.asked != probe.asked {
            return Some(SignedDuration::ZERO);
        }
        let pause = if probe.ok { self.every()? } else { self.every()?.min(RETRY) };
        Some((pause - self.now.duration_since(probe.at.0)).max(SignedDuration::ZERO))
    }

    /// Why it cannot be checked at all.
    pub(crate) fn hindrance(&self) -> Option<Why> {
        let name = self.target.spec.secret.as_ref().map(|secret| secret.name.clone()).unwrap_or_default();
        if let Some(error) = self.target.status.as_ref().and_then(|status| status.credential_error.as_ref()) {
            let next = "Give the credentials again, so that they are sealed to the agent's present key.";
            return Some(why(
                "credentials_not_opened",
                format!("The agent cannot open the credentials: {error}."),
                next,
            ));
        }
        match &self.secret {
            Secret::NotNamed => None,
            Secret::Missing => {
                let next = "Make the Secret, or give the credentials through the control plane.";
                let cause = why("no_secret", format!("The Secret {name} does not exist."), next);
                Some(seen_in(cause, "Secret", &name))
            }
            Secret::There { keys, .. } => {
                let lacking = lacking(self.target, keys)?;
                let cause = why(
                    "secret_incomplete",
                    format!("The Secret {name} lacks {lacking}."),
                    "Add the key to the Secret.",
                );
                Some(seen_in(cause, "Secret", &name))
            }
        }
    }

    /// Whether a check shall begin now.
    pub(crate) fn check_now(&self) -> bool {
        !matches!(self.job, Outcome::Active { .. })
            && self.hindrance().is_none()
            && self.until_check() == Some(SignedDuration::ZERO)
    }

    /// What the Job of the next check is named after: the same until a check has ended.
    pub(crate) fn state(&self) -> String {
        let last = self.probe().map(|probe| probe.at.0.to_string()).unwrap_or_default();
        let asked = self.asked.as_deref().unwrap_or_default();
        format!("{}/{}/{asked}/{last}", self.generation(), self.credential_generation())
    }

    /// The deepest cause why it is not reachable.
    pub(crate) fn why(&self) -> Option<Why> {
        if let Some(hindrance) = self.hindrance() {
            return Some(hindrance);
        }
        match self.current_probe() {
            Some(probe) if !probe.ok => Some(cause_of(probe)),
            Some(probe) if !self.stale(probe) => None,
            _ => match &self.job {
                Outcome::Active { why, .. } => why.clone(),
                Outcome::Failed { failure, .. } => Some(crate::jobs::causes::why_of(failure)),
                Outcome::Absent | Outcome::Succeeded { .. } => None,
            },
        }
    }

    fn stale(&self, probe: &Probe) -> bool {
        self.every().is_some_and(|every| self.now.duration_since(probe.at.0) > every * STALE_AFTER + RETRY)
    }

    /// What is to be said.
    pub(crate) fn say(&self, conditions: &mut Conditions<'_>) {
        use ConditionType::{CredentialsValid, Reachable};
        if let Some(hindrance) = self.hindrance() {
            conditions.not(CredentialsValid, &hindrance).not(Reachable, &hindrance);
            return;
        }
        match (self.current_probe(), self.why()) {
            (Some(probe), None) if probe.ok && !self.stale(probe) => {
                let message =
                    format!("written, read, listed and deleted in {} ms{}", probe.took_ms, skew(probe));
                conditions.say(Reachable, true, "Checked", message);
                conditions.say(CredentialsValid, true, "Checked", "the store took them");
            }
            (Some(probe), Some(cause)) if !probe.ok => {
                conditions.not(Reachable, &cause);
                match probe.failed_step.as_deref() {
                    Some("authenticate") => conditions.not(CredentialsValid, &cause),
                    _ => conditions.say(
                        CredentialsValid,
                        Verdict::Unknown,
                        "NotAsked",
                        "the check did not get so far",
                    ),
                };
            }
            (_, cause) => {
                let message = cause.map_or_else(|| "being checked".to_owned(), |why| why.message);
                conditions.say(Reachable, Verdict::Unknown, "NotChecked", message.clone());
                conditions.say(CredentialsValid, Verdict::Unknown, "NotChecked", message);
            }
        }
    }
}

/// The first key that the Secret must have and has not.
fn lacking(target: &BackupTarget, keys: &[String]) -> Option<&'static str> {
    let has = |key: &str| keys.iter().any(|held| held == key);
    let spec = &target.spec;
    if spec.s3.is_some() {
        // Without either of them the runner uses the identity of its node; with one alone it cannot sign.
        return match (has("access-key-id"), has("secret-access-key")) {
            (true, false) => Some("secret-access-key"),
            (false, true) => Some("access-key-id"),
            _ => None,
        };
    }
    if spec.azure.is_some() && !has("account-key") && !has("sas-token") {
        return Some("account-key or sas-token");
    }
    (spec.gcs.is_some() && !has("service-account.json")).then_some("service-account.json")
}

/// What the runner found; a refusal while the clocks differ is most likely the clocks' fault.
fn cause_of(probe: &Probe) -> Why {
    let told = probe.why.clone().unwrap_or_else(|| {
        let step = probe.failed_step.as_deref().unwrap_or("an unknown step");
        why("check_failed", format!("The check failed at {step}."), "Look at the log of the check's Job.")
    });
    match probe.clock_skew_ms {
        Some(skew) if skew.abs() > SKEW_MS && probe.failed_step.as_deref() == Some("authenticate") => why(
            "clock_skew",
            format!(
                "The clock of the node is {} s {} that of the store, which refuses the signature.",
                skew.abs() / 1000,
                if skew > 0 { "behind" } else { "ahead of" }
            ),
            "Set the clocks of the nodes by NTP.",
        ),
        _ => told,
    }
}

fn skew(probe: &Probe) -> String {
    match probe.clock_skew_ms {
        Some(ms) if ms.abs() > SKEW_MS => format!("; the clocks differ by {} s", ms.abs() / 1000),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const NOW: &str = "2026-05-01T12:00:00Z";

    fn target(spec: Value, probe: Value) -> BackupTarget {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupTarget",
            "metadata": {"name": "away", "namespace": "shop", "generation": 2},
            "spec": spec, "status": {"probe": probe},
        }))
        .unwrap()
    }

    fn s3() -> Value {
        json!({"s3": {"bucket": "b"}, "secret": {"name": "keys"}, "checkEverySeconds": 1800})
    }

    fn probe(at: &str, ok: bool) -> Value {
        json!({"at": at, "generation": 2, "credentialGeneration": 7, "ok": ok, "asked": "a"})
    }

    fn keys() -> Secret {
        let keys = vec!["access-key-id".to_owned(), "secret-access-key".to_owned()];
        Secret::There { keys, generation: 7 }
    }

    fn seen(target: &BackupTarget) -> Seen<'_> {
        let (secret, asked) = (keys(), Some("a".to_owned()));
        Seen { target, secret, asked, job: Outcome::Absent, now: NOW.parse().unwrap() }
    }

    fn verdict(seen: &Seen<'_>, kind: ConditionType) -> (String, String) {
        let mut conditions = Conditions::new(&[], Some(2), seen.now);
        seen.say(&mut conditions);
        let made = conditions.done();
        let one = made.iter().find(|condition| condition.type_ == kind.as_str()).unwrap();
        (one.status.clone(), one.reason.clone())
    }

    #[test]
    fn one_that_was_never_checked_is_checked_now() {
        let target = target(s3(), Value::Null);
        assert!(seen(&target).check_now());
        assert_eq!(verdict(&seen(&target), ConditionType::Reachable).0, "Unknown");
    }

    #[test]
    fn one_that_was_checked_waits_for_its_interval() {
        let target = target(s3(), probe("2026-05-01T11:50:00Z", true));
        let seen = seen(&target);
        assert_eq!(seen.until_check(), Some(SignedDuration::from_mins(20)));
        assert!(!seen.check_now());
        assert_eq!(verdict(&seen, ConditionType::Reachable), ("True".to_owned(), "Checked".to_owned()));
        assert_eq!(seen.why(), None);
    }

    #[test]
    fn a_change_of_spec_of_credentials_or_a_wish_calls_for_a_check() {
        let target = target(s3(), probe("2026-05-01T11:59:00Z", true));
        let mut rotated = seen(&target);
        rotated.secret = match keys() {
            Secret::There { keys, .. } => Secret::There { keys, generation: 8 },
            other => other,
        };
        assert!(rotated.check_now());
        let mut wished = seen(&target);
        wished.asked = Some("b".to_owned());
        assert!(wished.check_now());
        let mut changed = target.clone();
        changed.metadata.generation = Some(3);
        assert!(seen(&changed).check_now());
        assert_eq!(verdict(&seen(&changed), ConditionType::Reachable).0, "Unknown");
    }

    #[test]
    fn never_two_at_once_and_each_has_its_name() {
        let target = target(s3(), Value::Null);
        let mut busy = seen(&target);
        busy.job = Outcome::Active { attempts: 1, why: None };
        assert!(!busy.check_now());
        let before = busy.state();
        busy.asked = Some("b".to_owned());
        assert_ne!(before, busy.state());
    }

    #[test]
    fn one_that_failed_is_looked_at_sooner() {
        let target = target(s3(), probe("2026-05-01T11:56:00Z", false));
        assert_eq!(seen(&target).until_check(), Some(SignedDuration::from_mins(1)));
    }

    #[test]
    fn without_an_interval_only_a_change_counts() {
        let mut spec = s3();
        spec["checkEverySeconds"] = json!(0);
        let target = target(spec, probe("2020-01-01T00:00:00Z", true));
        assert_eq!(seen(&target).until_check(), None);
        assert_eq!(verdict(&seen(&target), ConditionType::Reachable).0, "True");
    }

    #[test]
    fn a_result_that_is_too_old_says_nothing() {
        let target = target(s3(), probe("2026-05-01T09:00:00Z", true));
        let mut seen = seen(&target);
        let cause = why("image_pull", "no image", "mend it");
        seen.job = Outcome::Active { attempts: 1, why: Some(cause.clone()) };
        assert_eq!(verdict(&seen, ConditionType::Reachable).0, "Unknown");
        assert_eq!(seen.why(), Some(cause));
        seen.job = Outcome::Absent;
        assert_eq!(verdict(&seen, ConditionType::Reachable).0, "Unknown");
    }

    #[rstest]
    #[case(Secret::Missing, "no_secret")]
    #[case(Secret::There { keys: vec!["access-key-id".to_owned()], generation: 1 }, "secret_incomplete")]
    fn a_secret_that_does_not_do_has_a_cause(#[case] secret: Secret, #[case] code: &str) {
        let target = target(s3(), probe("2026-05-01T11:59:00Z", true));
        let mut seen = seen(&target);
        seen.secret = secret;
        assert_eq!(seen.why().unwrap().code, code);
        assert_eq!(verdict(&seen, ConditionType::CredentialsValid).0, "False");
        assert!(!seen.check_now());
    }

    #[test]
    fn a_refusal_is_told_apart_from_a_wrong_clock() {
        let mut refused = probe("2026-05-01T11:59:00Z", false);
        refused["failedStep"] = json!("authenticate");
        refused["why"] =
            json!({"code": "credentials_expired", "message": "m", "who": "storage-owner", "next": "n"});
        let expired = target(s3(), refused.clone());
        assert_eq!(seen(&expired).why().unwrap().code, "credentials_expired");
        assert_eq!(
            verdict(&seen(&expired), ConditionType::CredentialsValid),
            ("False".to_owned(), "CredentialsExpired".to_owned())
        );
        refused["clockSkewMs"] = json!(601_000);
        let late = target(s3(), refused);
        let cause = seen(&late).why().unwrap();
        assert_eq!(cause.code, "clock_skew");
        assert!(cause.message.contains("601 s behind"), "{}", cause.message);
    }
}
