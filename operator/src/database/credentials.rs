//! Passwords: made once, of 256 random bits, and made anew only when that is asked for or one is missing.
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::reconcile::Error;

/// Keys of the Secret, in the order in which the runner digests them.
pub(super) const KEYS: [&str; 4] =
    ["admin-password", "owner-password", "replication-password", "monitor-password"];
/// Annotation: the `credentialsRotatedAt` of the spec that the passwords were made for.
pub(super) const ROTATED_AT: &str = "data.culvert.dev/credentials-rotated-at";

/// The passwords of a database. Hidden in `Debug`, wiped when dropped.
pub(super) struct Credentials {
    values: BTreeMap<&'static str, Zeroizing<String>>,
    /// The wish that they were made for.
    pub(super) rotated_at: Option<String>,
    /// Keys that were made in this round.
    pub(super) made: Vec<&'static str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("rotated_at", &self.rotated_at)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// What shall be in force: what the Secret holds, unless `wanted` asks for new ones.
    pub(super) fn settle(held: Option<&Secret>, wanted: Option<&str>) -> Result<Self, Error> {
        let made_for = held.and_then(|secret| secret.annotations().get(ROTATED_AT)).map(String::as_str);
        // A Secret without the annotation is as old as the database, whatever has been asked for since.
        let keep = held.is_some() && (wanted.is_none() || wanted == made_for);
        let mut settled =
            Self { values: BTreeMap::new(), rotated_at: wanted.map(str::to_owned), made: Vec::new() };
        for key in KEYS {
            let value = match held.filter(|_| keep).and_then(|secret| usable(secret, key)) {
                Some(value) => value,
                None => {
                    settled.made.push(key);
                    password()?
                }
            };
            settled.values.insert(key, value);
        }
        Ok(settled)
    }

    /// One of the passwords; empty when there is no such key.
    pub(super) fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", |value| value.as_str())
    }

    /// What the runner calls `credentialsDigest`: SHA-256 over length and text of each.
    pub(super) fn digest(&self) -> String {
        let mut sum = Sha256::new();
        for key in KEYS {
            let text = self.get(key);
            sum.update(text.len().to_be_bytes());
            sum.update(text.as_bytes());
        }
        sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The contents of the Secret.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        self.values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect()
    }
}

/// A password that the runner would accept.
fn usable(secret: &Secret, key: &str) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()?;
    let bare = text.strip_suffix('\n').unwrap_or(text);
    (!bare.is_empty() && bare.len() <= 512 && !bare.chars().any(char::is_control))
        .then(|| Zeroizing::new(bare.to_owned()))
}

/// 256 random bits as text that needs no escaping anywhere.
fn password() -> Result<Zeroizing<String>, Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| Error::making("the operating system gave no random bytes"))?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes));
    bytes.zeroize();
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(credentials: &Credentials) -> Secret {
        let mut secret = Secret { data: Some(credentials.data()), ..Secret::default() };
        if let Some(at) = &credentials.rotated_at {
            secret.annotations_mut().insert(ROTATED_AT.to_owned(), at.clone());
        }
        secret
    }

    #[test]
    fn passwords_stay_until_new_ones_are_asked_for() {
        let first = Credentials::settle(None, None).unwrap();
        assert_eq!(first.made, KEYS);
        assert_eq!(first.get("owner-password").len(), 43, "256 bits in base64");
        let again = Credentials::settle(Some(&secret(&first)), None).unwrap();
        assert!(again.made.is_empty());
        assert_eq!(again.digest(), first.digest());
        let rotated = Credentials::settle(Some(&secret(&first)), Some("t1")).unwrap();
        assert_eq!(rotated.made, KEYS);
        let kept = Credentials::settle(Some(&secret(&rotated)), Some("t1")).unwrap();
        assert!(kept.made.is_empty());
        assert_eq!(kept.digest(), rotated.digest());
    }

    #[test]
    fn only_what_is_missing_or_broken_is_made() {
        let first = Credentials::settle(None, None).unwrap();
        let mut broken = secret(&first);
        let data = broken.data.as_mut().unwrap();
        data.remove("monitor-password");
        data.insert("admin-password".to_owned(), ByteString(b"two\nlines".to_vec()));
        let mended = Credentials::settle(Some(&broken), None).unwrap();
        assert_eq!(mended.made, ["admin-password", "monitor-password"]);
        assert_eq!(mended.get("owner-password"), first.get("owner-password"));
    }

    #[test]
    fn a_wish_that_was_taken_back_rotates_nothing() {
        let first = Credentials::settle(None, Some("t1")).unwrap();
        let back = Credentials::settle(Some(&secret(&first)), None).unwrap();
        assert!(back.made.is_empty());
    }

    #[test]
    fn debug_shows_no_password() {
        let credentials = Credentials::settle(None, None).unwrap();
        let shown = format!("{credentials:?}");
        assert!(KEYS.iter().all(|key| !shown.contains(credentials.get(key))));
    }
}
