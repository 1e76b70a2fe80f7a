//! What to do with the sealed credentials of a target: rules without a cluster.
use std::collections::BTreeMap;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use culvert_pki::hpke::OpeningKey;
use culvert_resources::meta::{CREDENTIAL_GENERATION, MANAGED_BY, TARGET};
use culvert_resources::{BackupTarget, SealedCredentials};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Value of the label on everything of ours.
pub(super) const OURS: &str = "culvert";
/// Keys of a Secret, and bytes of one value: credentials are small.
const KEYS_MAX: usize = 16;
const VALUE_MAX: usize = 64 * 1024;
/// Largest ciphertext that is looked at, bytes of base64.
const CIPHERTEXT_MAX: usize = 256 * 1024;

/// Why sealed credentials are not put into their Secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unopened {
    /// The target names no Secret.
    #[error("the target has sealed credentials and names no Secret for them")]
    NoSecret,
    /// The agent's key changed.
    #[error(
        "sealed to the key {sealed}, and this agent has the key {ours}: the control plane has to seal anew"
    )]
    OtherKey {
        /// The key it was sealed to.
        sealed: String,
        /// The agent's key.
        ours: String,
    },
    /// Not what the agent's key opens at this place.
    #[error("the sealed credentials do not open: they were changed, or made for another target")]
    Broken,
    /// Opened, and no credentials.
    #[error("the sealed credentials are no JSON object of Secret keys and values")]
    Form,
    /// Older than what was applied.
    #[error("generation {sealed} is older than generation {applied}, which was applied before")]
    Older {
        /// What was sealed.
        sealed: i64,
        /// What was applied.
        applied: i64,
    },
    /// The Secret is not ours.
    #[error("the Secret {0} exists and was not made for this target: name another, or remove it")]
    Foreign(String),
}

/// Opened credentials: keys and values of a Secret.
pub(super) struct Credentials(pub(super) BTreeMap<String, Zeroizing<String>>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Name of the Secret that a target's sealed credentials go to.
pub(super) fn secret_name(target: &BackupTarget) -> Option<&str> {
    target.spec.secret.as_ref().map(|secret| secret.name.as_str())
}

/// Whether a Secret was made for this target.
pub(super) fn is_ours(secret: &Secret, target: &str) -> bool {
    let label = |name: &str| secret.labels().get(name).map(String::as_str);
    label(MANAGED_BY) == Some(OURS) && label(TARGET) == Some(target)
}

/// Generation of the credentials in a Secret.
pub(super) fn generation_in(secret: &Secret) -> Option<i64> {
    secret.annotations().get(CREDENTIAL_GENERATION)?.parse().ok()
}

/// The newest generation that is known to have been applied.
fn applied(target: &BackupTarget, secret: Option<&Secret>) -> i64 {
    let told = target.status.as_ref().and_then(|status| status.credential_generation);
    let lies = secret.and_then(generation_in);
    told.unwrap_or_default().max(lies.unwrap_or_default())
}

/// Opens the credentials of a target, if they may go into the Secret that is there now.
pub(super) fn open(
    key: &OpeningKey,
    target: &BackupTarget,
    sealed: &SealedCredentials,
    present: Option<&Secret>,
) -> Result<Credentials, Unopened> {
    let name = secret_name(target).ok_or(Unopened::NoSecret)?;
    if present.is_some_and(|secret| !is_ours(secret, &target.name_any())) {
        return Err(Unopened::Foreign(name.to_owned()));
    }
    let applied = applied(target, present);
    if sealed.generation < applied {
        return Err(Unopened::Older { sealed: sealed.generation, applied });
    }
    let ours = key.public().id();
    if sealed.key_id != ours {
        // The field is anybody's text, and ends in a status.
        let sealed = sealed.key_id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        return Err(Unopened::OtherKey { sealed, ours });
    }
    let namespace = target.namespace().unwrap_or_default();
    let place = SealedCredentials::place(&namespace, &target.name_any(), name, sealed.generation);
    if sealed.ciphertext.len() > CIPHERTEXT_MAX {
        return Err(Unopened::Broken);
    }
    let ciphertext = BASE64_STANDARD.decode(&sealed.ciphertext).map_err(|_| Unopened::Broken)?;
    let opened = key.open(place.as_bytes(), &ciphertext).map_err(|_| Unopened::Broken)?;
    parse(&opened)
}

fn parse(opened: &[u8]) -> Result<Credentials, Unopened> {
    let values: BTreeMap<String, String> = serde_json::from_slice(opened).map_err(|_| Unopened::Form)?;
    let values: BTreeMap<_, _> =
        values.into_iter().map(|(key, value)| (key, Zeroizing::new(value))).collect();
    let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let good = |(key, value): (&String, &Zeroizing<String>)| {
        (1..=253).contains(&key.len()) && key.chars().all(letter) && value.len() <= VALUE_MAX
    };
    if values.is_empty() || values.len() > KEYS_MAX || !values.iter().all(good) {
        return Err(Unopened::Form);
    }
    Ok(Credentials(values))
}

#[cfg(test)]
mod tests {
    use culvert_resources::{BackupTargetSpec, BackupTargetStatus, S3Target, SecretRef};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn target(key: &OpeningKey, generation: i64, plain: &[u8]) -> (BackupTarget, SealedCredentials) {
        let spec = BackupTargetSpec {
            s3: Some(S3Target::default()),
            azure: None,
            gcs: None,
            file_share: None,
            prefix: String::new(),
            secret: Some(SecretRef { name: "s3-credentials".to_owned() }),
            ca_bundle: None,
            proxy: None,
            sealed: None,
            check_every_seconds: 0,
        };
        let mut target = BackupTarget::new("s3", spec);
        target.metadata.namespace = Some("data".to_owned());
        let place = SealedCredentials::place("data", "s3", "s3-credentials", generation);
        let sealed = SealedCredentials {
            generation,
            key_id: key.public().id(),
            ciphertext: BASE64_STANDARD.encode(key.public().seal(place.as_bytes(), plain).unwrap()),
        };
        (target, sealed)
    }

    fn secret(generation: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "s3-credentials",
            "labels": {MANAGED_BY: OURS, TARGET: "s3"},
            "annotations": {CREDENTIAL_GENERATION: generation}}}))
        .unwrap()
    }

    const PLAIN: &[u8] = br#"{"access-key-id": "id", "secret-access-key": "hush"}"#;

    #[test]
    fn credentials_open_for_their_own_target_and_secret() {
        let key = OpeningKey::generate().unwrap();
        let (mut target, sealed) = target(&key, 2, PLAIN);
        let opened = open(&key, &target, &sealed, None).unwrap();
        assert_eq!(opened.0["secret-access-key"].as_str(), "hush");
        assert!(!format!("{opened:?}").contains("hush"));
        assert!(open(&key, &target, &sealed, Some(&secret("1"))).is_ok());
        assert!(
            open(&key, &target, &sealed, Some(&secret("2"))).is_ok(),
            "a Secret that was edited is mended"
        );

        let moved = BackupTarget::new("other", target.spec.clone());
        assert_eq!(open(&key, &moved, &sealed, None).unwrap_err(), Unopened::Broken);
        let renamed = SealedCredentials { generation: 3, ..sealed.clone() };
        assert_eq!(open(&key, &target, &renamed, None).unwrap_err(), Unopened::Broken);
        target.spec.secret = Some(SecretRef { name: "elsewhere".to_owned() });
        assert_eq!(open(&key, &target, &sealed, None).unwrap_err(), Unopened::Broken);
        target.spec.secret = None;
        assert_eq!(open(&key, &target, &sealed, None).unwrap_err(), Unopened::NoSecret);
    }

    #[test]
    fn an_older_generation_is_refused_wherever_the_newer_one_is_remembered() {
        let key = OpeningKey::generate().unwrap();
        let (mut target, sealed) = target(&key, 2, PLAIN);
        let older = Unopened::Older { sealed: 2, applied: 3 };
        assert_eq!(open(&key, &target, &sealed, Some(&secret("3"))).unwrap_err(), older);
        let status = BackupTargetStatus { credential_generation: Some(3), ..BackupTargetStatus::default() };
        target.status = Some(status);
        assert_eq!(open(&key, &target, &sealed, None).unwrap_err(), older, "the Secret was deleted by hand");
    }

    #[test]
    fn a_secret_of_somebody_else_is_never_taken() {
        let key = OpeningKey::generate().unwrap();
        let (target, sealed) = target(&key, 2, PLAIN);
        let foreign = Unopened::Foreign("s3-credentials".to_owned());
        for labels in [
            json!({}),
            json!({MANAGED_BY: OURS}),
            json!({MANAGED_BY: OURS, TARGET: "x"}),
            json!({TARGET: "s3"}),
        ] {
            let present: Secret =
                serde_json::from_value(json!({"metadata": {"name": "s3-credentials", "labels": labels}}))
                    .unwrap();
            assert_eq!(open(&key, &target, &sealed, Some(&present)).unwrap_err(), foreign);
        }
    }

    #[test]
    fn another_key_is_named() {
        let (key, other) = (OpeningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        let (target, sealed) = target(&other, 2, PLAIN);
        let error = open(&key, &target, &sealed, None).unwrap_err().to_string();
        assert!(error.contains(&other.public().id()) && error.contains(&key.public().id()), "{error}");
        let lied = SealedCredentials { key_id: key.public().id(), ..sealed };
        assert_eq!(open(&key, &target, &lied, None).unwrap_err(), Unopened::Broken);
    }

    #[test]
    fn what_opens_and_is_no_credentials_is_refused_without_being_quoted() {
        let key = OpeningKey::generate().unwrap();
        let long = json!({"a": "x".repeat(VALUE_MAX + 1)}).to_string();
        for plain in ["hush", "{}", r#"{"a/b": "hush"}"#, r#"{"a": 5}"#, r#"{"": "hush"}"#, &long] {
            let (target, sealed) = target(&key, 1, plain.as_bytes());
            let error = open(&key, &target, &sealed, None).unwrap_err();
            assert_eq!(error, Unopened::Form);
            assert!(!error.to_string().contains("hush"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_ciphertext_is_refused(text in "\\PC{0,200}", bytes in any::<Vec<u8>>()) {
            let key = OpeningKey::generate().unwrap();
            let (target, sealed) = target(&key, 1, PLAIN);
            for ciphertext in [text, BASE64_STANDARD.encode(&bytes)] {
                let odd = SealedCredentials { ciphertext, ..sealed.clone() };
                prop_assert_eq!(open(&key, &target, &odd, None).unwrap_err(), Unopened::Broken);
            }
        }
    }
}
