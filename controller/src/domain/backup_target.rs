//! Backup targets as the control plane keeps them: where backups go, the credentials for it, and
//! in which clusters both are wanted.
//!
//! A target's endpoint is dialled from the customer's clusters and never by the control plane, so
//! a private address is as good as any here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use culvert_resources::{BackupTargetSpec, TargetKind};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{BackupTargetId, ClusterId, Fault, Namespace, TargetName, Time};

/// The longest value of a credential, bytes.
const VALUE_MAX: usize = 32 * 1024;

/// A backup target's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupTarget {
    /// Its id.
    pub id: BackupTargetId,
    /// Its name, and that of its objects; unique in the organisation.
    pub name: TargetName,
    /// Where backups go, without credentials.
    pub spec: BackupTargetSpec,
    /// Grows by one with each change of what its objects shall be.
    pub revision: u64,
    /// Counts the changes of the credentials, from 1.
    pub credential_generation: u64,
    /// When somebody last asked for a check.
    pub check_asked_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
    /// When it was asked to go; it is gone when no cluster has it any more.
    pub deleted_at: Option<Time>,
}

impl BackupTarget {
    /// Name of the Secret that the agent of a cluster puts the credentials into.
    #[must_use]
    pub fn secret(&self) -> String {
        format!("backup-target-{}", self.name)
    }
}

/// A namespace of a cluster in which a target is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The target.
    pub target: BackupTargetId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The namespace there.
    pub namespace: Namespace,
    /// What was last sent.
    pub sent: Option<Sent>,
    /// Why the last attempt to send it failed; empty when it did not.
    pub trouble: String,
    /// When to try next.
    pub due_at: Time,
}

/// What a cluster was sent of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The target's revision.
    pub revision: u64,
    /// Name of the agent's key that the credentials were sealed to; empty when it had none.
    pub key: String,
}

/// A target as a caller names it: by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackupTargetRef {
    /// By id.
    Id(BackupTargetId),
    /// By name.
    Name(TargetName),
}

/// A text that can name no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the id nor the name of a backup target")]
pub struct NotATarget;

impl FromStr for BackupTargetRef {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotATarget)
    }
}

/// Credentials of a target: keys and values of the Secret that they end in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, Zeroizing<String>>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Credentials {
    /// Reads credentials for a target of this kind.
    ///
    /// # Errors
    /// Every fault; none of them quotes a value.
    pub fn parse(kind: TargetKind, given: BTreeMap<String, String>) -> Result<Self, Vec<Fault>> {
        let given: BTreeMap<String, Zeroizing<String>> =
            given.into_iter().map(|(key, value)| (key, Zeroizing::new(value))).collect();
        let mut faults = Vec::new();
        let known = keys(kind);
        for (key, value) in &given {
            let field = format!("credentials.{}", super::agent::bounded_text(key, 40));
            if !known.iter().flat_map(|set| set.iter()).any(|(name, _)| name == key) {
                faults.push(Fault::new(field, "unknown_field", "this kind of target has no such credential"));
            } else if value.is_empty() || value.len() > VALUE_MAX {
                faults.push(Fault::new(field, "invalid", "must have 1 to 32768 bytes"));
            } else if key != SERVICE_ACCOUNT && value.chars().any(char::is_control) {
                faults.push(Fault::new(field, "invalid", "must be one line"));
            }
        }
        if !given.is_empty() && faults.is_empty() && !known.iter().any(|set| fits(set, &given)) {
            let needed: Vec<String> = known.iter().map(|set| required(set)).collect();
            let detail = format!("this kind of target needs {}", needed.join(", or "));
            faults.push(Fault::new("credentials", "missing", detail));
        }
        if faults.is_empty() { Ok(Self(given)) } else { Err(faults) }
    }

    /// The text in which they are kept: a JSON object.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let plain: BTreeMap<&str, &str> =
            self.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Zeroizing::new(serde_json::to_string(&plain).unwrap_or_default())
    }

    /// Credentials as they were kept.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let plain: BTreeMap<String, String> = serde_json::from_slice(text).ok()?;
        Some(Self(plain.into_iter().map(|(key, value)| (key, Zeroizing::new(value))).collect()))
    }

    /// The same with the key under which backups are encrypted.
    #[must_use]
    pub fn with_encryption_key(mut self, key: &[u8]) -> Self {
        let key = data_encoding::BASE64.encode(key);
        self.0.insert("encryption-key".to_owned(), Zeroizing::new(key));
        self
    }
}

/// The one credential that is a file of lines.
const SERVICE_ACCOUNT: &str = "service-account.json";

/// Sets of credentials that a kind of target takes: each key, and whether it is needed.
fn keys(kind: TargetKind) -> &'static [&'static [(&'static str, bool)]] {
    match kind {
        TargetKind::S3 => {
            &[&[("access-key-id", true), ("secret-access-key", true), ("session-token", false)]]
        }
        TargetKind::Azure => &[&[("account-key", true)], &[("sas-token", true)]],
        TargetKind::Gcs => &[&[(SERVICE_ACCOUNT, true)]],
        TargetKind::FileShare => &[],
    }
}

fn fits(set: &[(&str, bool)], given: &BTreeMap<String, Zeroizing<String>>) -> bool {
    let whole = set.iter().all(|(name, needed)| !needed || given.contains_key(*name));
    whole && given.keys().all(|key| set.iter().any(|(name, _)| name == key))
}

fn required(set: &[(&str, bool)]) -> String {
    let names: Vec<&str> = set.iter().filter(|(_, needed)| *needed).map(|(name, _)| *name).collect();
    names.join(" and ")
}

/// Reads a target's spec as a caller writes it.
///
/// # Errors
/// Every fault that can be told without asking the store.
pub fn read_spec(spec: &Value) -> Result<BackupTargetSpec, Vec<Fault>> {
    for (field, detail) in [
        ("secret", "the credentials are given apart, and the Secret is made by the cluster's agent"),
        ("sealed", "the credentials are given apart, and sealed for each cluster here"),
    ] {
        if spec.get(field).is_some_and(|value| !value.is_null()) {
            return Err(vec![Fault::new(format!("spec.{field}"), "unknown_field", detail)]);
        }
    }
    let read: Result<BackupTargetSpec, _> = serde_json::from_value(spec.clone());
    let spec = read.map_err(|error| vec![Fault::new("spec", "invalid", error.to_string())])?;
    let mut faults = Vec::new();
    if spec.kind().is_none() {
        faults.push(Fault::new("spec", "invalid", "give exactly one of s3, azure, gcs, fileShare"));
    }
    check_names(&spec, &mut faults);
    for (field, endpoint, plain) in endpoints(&spec) {
        faults.extend(check_url(field, endpoint, plain));
    }
    if let Some(proxy) = &spec.proxy {
        faults.extend(check_url("spec.proxy", proxy, true));
    }
    if let Some(ca) = &spec.ca_bundle
        && culvert_pki::pem::certificates_from_pem(ca).map_or(true, |found| found.is_empty())
    {
        faults.push(Fault::new("spec.caBundle", "invalid", "must be certificates in PEM"));
    }
    if spec.prefix.starts_with('/') || spec.prefix.contains("..") || spec.prefix.len() > 512 {
        faults.push(Fault::new(
            "spec.prefix",
            "invalid",
            "must be a relative path without .., at most 512 bytes",
        ));
    }
    if !(0..=86_400).contains(&spec.check_every_seconds) {
        faults.push(Fault::new("spec.checkEverySeconds", "invalid", "must be 0 to 86400"));
    }
    if faults.is_empty() { Ok(spec) } else { Err(faults) }
}

/// Names that end in a URL or a path: plain, and of a length that any store takes.
fn check_names(spec: &BackupTargetSpec, faults: &mut Vec<Fault>) {
    let mut names: Vec<(&str, &str)> = Vec::new();
    if let Some(s3) = &spec.s3 {
        names.extend([("spec.s3.bucket", s3.bucket.as_str()), ("spec.s3.region", s3.region.as_str())]);
    }
    if let Some(azure) = &spec.azure {
        names.push(("spec.azure.account", azure.account.as_str()));
        names.push(("spec.azure.container", azure.container.as_str()));
    }
    if let Some(gcs) = &spec.gcs {
        names.push(("spec.gcs.bucket", gcs.bucket.as_str()));
    }
    if let Some(share) = &spec.file_share {
        names.push(("spec.fileShare.claim", share.claim.as_str()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._$".contains(c);
    for (field, name) in names {
        if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
            faults.push(Fault::new(field, "invalid", "must be 1 to 253 letters, digits, dots and dashes"));
        }
    }
}

/// Endpoints of a spec, and whether each may be without TLS.
fn endpoints(spec: &BackupTargetSpec) -> Vec<(&'static str, &str, bool)> {
    let s3 = spec.s3.as_ref().map(|t| ("spec.s3.endpoint", &t.endpoint, t.allow_http));
    let azure = spec.azure.as_ref().map(|t| ("spec.azure.endpoint", &t.endpoint, t.allow_http));
    let gcs = spec.gcs.as_ref().map(|t| ("spec.gcs.endpoint", &t.endpoint, t.allow_http));
    let given = [s3, azure, gcs].into_iter().flatten();
    given.filter_map(|(field, endpoint, plain)| Some((field, endpoint.as_deref()?, plain))).collect()
}

fn check_url(field: &'static str, text: &str, plain: bool) -> Option<Fault> {
    let wrong = |detail| Some(Fault::new(field, "invalid", detail));
    let Ok(uri) = text.parse::<Uri>() else { return wrong("must be a URL, as https://host:port") };
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if plain => {}
        Some("http") => return wrong("must be https://; set allowHttp for one without TLS"),
        _ => return wrong("must be a URL, as https://host:port"),
    }
    match uri.authority() {
        // It would lie in clear text in the spec, for every reader.
        Some(authority) if authority.as_str().contains('@') => wrong("must hold no user or password"),
        Some(authority) if !authority.host().is_empty() => None,
        _ => wrong("must name a host"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn faults(spec: &Value) -> Vec<String> {
        read_spec(spec).err().unwrap_or_default().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn a_spec_is_one_place_that_can_be_dialled() {
        let good = json!({"s3": {"bucket": "b", "endpoint": "https://10.0.0.7:9000", "pathStyle": true}});
        assert_eq!(faults(&good), [""; 0], "a private address is the cluster's affair");
        for (spec, field) in [
            (json!({}), "spec"),
            (json!({"s3": {"bucket": "b"}, "gcs": {"bucket": "b"}}), "spec"),
            (json!({"s3": {"bucket": ""}}), "spec.s3.bucket"),
            (json!({"s3": {"bucket": "a/b"}}), "spec.s3.bucket"),
            (json!({"s3": {"bucket": "b", "endpoint": "http://x"}}), "spec.s3.endpoint"),
            (json!({"s3": {"bucket": "b", "endpoint": "ftp://x"}}), "spec.s3.endpoint"),
            (json!({"s3": {"bucket": "b", "endpoint": "https://u:p@x"}}), "spec.s3.endpoint"),
            (json!({"s3": {"bucket": "b", "endpoint": "nonsense"}}), "spec.s3.endpoint"),
            (json!({"gcs": {"bucket": "b"}, "proxy": "http://u:p@x"}), "spec.proxy"),
            (json!({"gcs": {"bucket": "b"}, "caBundle": "x"}), "spec.caBundle"),
            (json!({"gcs": {"bucket": "b"}, "prefix": "../x"}), "spec.prefix"),
            (json!({"gcs": {"bucket": "b"}, "checkEverySeconds": -1}), "spec.checkEverySeconds"),
            (json!({"gcs": {"bucket": "b"}, "secret": {"name": "x"}}), "spec.secret"),
            (json!({"gcs": {"bucket": "b"}, "sealed": {"generation": 1}}), "spec.sealed"),
            (json!({"tape": {}}), "spec"),
        ] {
            assert_eq!(faults(&spec), [field], "{spec}");
        }
        let plain = json!({"s3": {"bucket": "b", "endpoint": "http://x", "allowHttp": true}});
        assert!(faults(&plain).is_empty());
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn credentials_fit_their_kind_and_are_never_quoted() {
        let s3 = [("access-key-id", "id"), ("secret-access-key", "hush")];
        let taken = Credentials::parse(TargetKind::S3, given(&s3)).unwrap();
        assert!(!format!("{taken:?}").contains("hush"));
        assert_eq!(Credentials::from_text(taken.to_text().as_bytes()), Some(taken.clone()));
        assert!(taken.with_encryption_key(&[7; 32]).to_text().contains("encryption-key"));
        assert!(
            Credentials::parse(TargetKind::S3, given(&[])).is_ok(),
            "the pods may have an identity of their own"
        );
        for (kind, pairs) in [
            (TargetKind::S3, &[("access-key-id", "hush")][..]),
            (TargetKind::S3, &[("access-key-id", "a"), ("secret-access-key", "hush\n")]),
            (TargetKind::S3, &[("access-key-id", "a"), ("secret-access-key", "")]),
            (TargetKind::S3, &[("account-key", "hush")]),
            (TargetKind::Azure, &[("account-key", "hush"), ("sas-token", "hush")]),
            (TargetKind::FileShare, &[("account-key", "hush")]),
            (TargetKind::S3, &[("encryption-key", "hush")]),
        ] {
            let faults = Credentials::parse(kind, given(pairs)).unwrap_err();
            assert!(!format!("{faults:?}").contains("hush"), "{faults:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_as_an_endpoint_is_refused_or_a_url_with_a_host(text in "\\PC{0,60}") {
            let spec = json!({"s3": {"bucket": "b", "endpoint": text}});
            if read_spec(&spec).is_ok() {
                prop_assert!(text.starts_with("https://") || text.to_lowercase().starts_with("https://"));
                prop_assert!(!text.contains('@'));
            }
        }
    }
}
