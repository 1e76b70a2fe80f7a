//! What the agent remembers of itself, and the one text form it is kept in.
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use culvert_pki::hpke::OpeningKey;
use culvert_pki::key::KeyPair;
use culvert_pki::verify::Roots;
use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// Number of the text form; a newer one is refused rather than misread.
const FORMAT: u32 = 1;

/// Largest state that is read, in bytes. A real one has about 6 KiB.
pub(super) const MAX_LEN: usize = 256 * 1024;

/// Why the state cannot be read or saved.
#[derive(Debug, Error)]
pub enum StateError {
    /// The text is no state; nothing was overwritten.
    #[error("the stored state is damaged: {0}")]
    Damaged(String),
    /// A newer agent wrote it.
    #[error("the stored state has format {0}, this agent reads {FORMAT}: use the newer agent again")]
    Newer(u32),
    /// Another process saved in between; load again.
    #[error("another process changed the stored state")]
    Conflict,
    /// The key for sealed credentials cannot be made.
    #[error("the key for sealed credentials cannot be made: {0}")]
    SealingKey(String),
    /// Another agent uses the folder.
    #[error("another agent process uses the folder {0}")]
    InUse(String),
    /// The file system refuses.
    #[error("{what}: {source}")]
    Io {
        /// What was tried on which path.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The API server refuses or cannot be reached.
    #[error("the Secret {name} cannot be {what}: {reason}")]
    Kubernetes {
        /// Namespace and name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

/// What a pending key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingFor {
    /// The enrolment with the join token of this id.
    Enrolment(String),
    /// The next renewal.
    Renewal,
}

/// A key whose certificate has been or will be asked for.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The key.
    pub key: Arc<KeyPair>,
    /// What for.
    pub purpose: PendingFor,
}

/// An identity that was given to this agent.
#[derive(Clone)]
pub struct Identity {
    /// The key.
    pub key: Arc<KeyPair>,
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Roots of the controller's servers.
    pub roots: Roots,
    /// Counter of certificates, for a return after expiry.
    pub generation: u64,
    /// Id of the cluster's record.
    pub cluster_id: String,
    /// Name of the cluster's record.
    pub cluster_name: String,
    /// Id of the join token that was redeemed for it.
    pub token_id: String,
    /// When the certificate came, by the clock here.
    pub obtained_at: SystemTime,
    /// End of the certificate.
    pub not_after: SystemTime,
    /// Highest epoch seen.
    pub last_epoch: u64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster_id", &self.cluster_id)
            .field("key", &self.key.pin())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Whether the certificate's time is over.
    pub fn expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// Whether `other` is the very same certificate.
    pub fn same_certificate(&self, other: &Identity) -> bool {
        self.chain.first() == other.chain.first()
    }
}

/// When a certificate is to be renewed: at half of the time it had when it
/// came, moved by up to a tenth of that half either way so that agents which
/// enrolled together do not renew together. `spread` is random in 0..=1.
pub fn renew_after(obtained_at: SystemTime, not_after: SystemTime, spread: f64) -> SystemTime {
    let half = not_after.duration_since(obtained_at).unwrap_or_default() / 2;
    obtained_at + half.mul_f64(0.9 + 0.2 * spread.clamp(0.0, 1.0))
}

/// All that is kept.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The key that waits for its certificate.
    pub pending: Option<Pending>,
    /// The identity in use.
    pub identity: Option<Identity>,
    /// The key to which secrets for this cluster are sealed; it outlives identities.
    pub sealing: Option<Arc<OpeningKey>>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    #[serde(default)]
    pending: Option<PendingText>,
    #[serde(default)]
    identity: Option<IdentityText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealing: Option<SealingText>,
}

#[derive(Serialize, Deserialize)]
struct SealingText {
    secret: KeyText,
    public: String,
}

#[derive(Serialize, Deserialize)]
struct PendingText {
    key: KeyText,
    /// `None` is a renewal.
    token_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct IdentityText {
    key: KeyText,
    chain: Vec<String>,
    roots: Vec<String>,
    generation: u64,
    cluster_id: String,
    cluster_name: String,
    token_id: String,
    obtained_at_ms: u64,
    not_after: u64,
    last_epoch: u64,
}

/// A private key in the text form.
struct KeyText(Zeroizing<String>);

impl Serialize for KeyText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<KeyText, D::Error> {
        String::deserialize(deserializer).map(|text| KeyText(Zeroizing::new(text)))
    }
}

impl State {
    /// Reads the text form.
    pub(super) fn parse(text: &[u8]) -> Result<State, StateError> {
        if text.len() > MAX_LEN {
            return Err(damaged("it is too large"));
        }
        // The format first: a newer text may have other fields.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(text).map_err(json)?;
        if format > FORMAT {
            return Err(StateError::Newer(format));
        }
        let text: Text = serde_json::from_slice(text).map_err(json)?;
        Ok(State {
            pending: text.pending.map(Pending::try_from).transpose()?,
            identity: text.identity.map(Identity::try_from).transpose()?,
            sealing: text.sealing.as_ref().map(opening_key).transpose()?,
        })
    }

    /// The text form; it holds private keys.
    pub(super) fn to_text(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let text = Text {
            format: FORMAT,
            pending: self.pending.as_ref().map(PendingText::from),
            identity: self.identity.as_ref().map(IdentityText::from),
            sealing: self.sealing.as_deref().map(SealingText::from),
        };
        serde_json::to_vec(&text).map(Zeroizing::new).map_err(json)
    }
}

/// Says where, never what: serde's own text may quote a value.
fn json(error: serde_json::Error) -> StateError {
    damaged(&format!("no valid JSON at line {} column {}", error.line(), error.column()))
}

fn damaged(why: &str) -> StateError {
    StateError::Damaged(why.to_owned())
}

fn key_text(key: &KeyPair) -> KeyText {
    KeyText(Zeroizing::new(BASE64.encode(&key.to_pkcs8())))
}

fn key_of(text: &str) -> Result<Arc<KeyPair>, StateError> {
    let der = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| damaged("the key is not base64"))?);
    KeyPair::from_pkcs8(&der).map(Arc::new).map_err(|error| damaged(&error.to_string()))
}

fn certificates(texts: &[String]) -> Result<Vec<CertificateDer<'static>>, StateError> {
    let decode = |text: &String| BASE64.decode(text.as_bytes()).map(CertificateDer::from);
    texts.iter().map(decode).collect::<Result<_, _>>().map_err(|_| damaged("a certificate is not base64"))
}

fn texts<'c>(certificates: impl IntoIterator<Item = &'c CertificateDer<'static>>) -> Vec<String> {
    certificates.into_iter().map(|certificate| BASE64.encode(certificate)).collect()
}

fn opening_key(text: &SealingText) -> Result<Arc<OpeningKey>, StateError> {
    let decode = |text: &str| {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| damaged("the sealing key is not base64"))?;
        Ok::<_, StateError>(Zeroizing::new(bytes))
    };
    let (secret, public) = (decode(&text.secret.0)?, decode(&text.public)?);
    OpeningKey::from_parts(&secret, &public).map(Arc::new).map_err(|error| damaged(&error.to_string()))
}

impl From<&OpeningKey> for SealingText {
    fn from(key: &OpeningKey) -> SealingText {
        let secret = KeyText(Zeroizing::new(BASE64.encode(key.expose())));
        SealingText { secret, public: BASE64.encode(key.public().as_bytes()) }
    }
}

impl From<&Pending> for PendingText {
    fn from(pending: &Pending) -> PendingText {
        let token_id = match &pending.purpose {
            PendingFor::Enrolment(id) => Some(id.clone()),
            PendingFor::Renewal => None,
        };
        PendingText { key: key_text(&pending.key), token_id }
    }
}

impl TryFrom<PendingText> for Pending {
    type Error = StateError;

    fn try_from(text: PendingText) -> Result<Pending, StateError> {
        let purpose = text.token_id.map_or(PendingFor::Renewal, PendingFor::Enrolment);
        Ok(Pending { key: key_of(&text.key.0)?, purpose })
    }
}

impl From<&Identity> for IdentityText {
    fn from(identity: &Identity) -> IdentityText {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        IdentityText {
            key: key_text(&identity.key),
            chain: texts(&identity.chain),
            roots: texts(identity.roots.certificates()),
            generation: identity.generation,
            cluster_id: identity.cluster_id.clone(),
            cluster_name: identity.cluster_name.clone(),
            token_id: identity.token_id.clone(),
            obtained_at_ms: u64::try_from(since(identity.obtained_at).as_millis()).unwrap_or(u64::MAX),
            not_after: since(identity.not_after).as_secs(),
            last_epoch: identity.last_epoch,
        }
    }
}

impl TryFrom<IdentityText> for Identity {
    type Error = StateError;

    fn try_from(text: IdentityText) -> Result<Identity, StateError> {
        let after = |offset: Duration| {
            UNIX_EPOCH.checked_add(offset).ok_or_else(|| damaged("a time is out of range"))
        };
        let chain = certificates(&text.chain)?;
        if chain.is_empty() {
            return Err(damaged("the certificate is missing"));
        }
        Ok(Identity {
            key: key_of(&text.key.0)?,
            chain,
            roots: Roots::new(certificates(&text.roots)?).map_err(|error| damaged(&error.to_string()))?,
            generation: text.generation,
            cluster_id: text.cluster_id,
            cluster_name: text.cluster_name,
            token_id: text.token_id,
            obtained_at: after(Duration::from_millis(text.obtained_at_ms))?,
            not_after: after(Duration::from_secs(text.not_after))?,
            last_epoch: text.last_epoch,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use culvert_pki::authority::Authority;
    use culvert_pki::name::{Identity as Name, Purpose, TrustDomain};
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use uuid::Uuid;

    /// An identity signed by a root of its own.
    pub(in crate::identity) fn sample() -> Identity {
        let domain: TrustDomain = "culvert.internal".parse().unwrap();
        let now = OffsetDateTime::now_utc();
        let root = Authority::root(&domain, now).unwrap();
        let org = Uuid::now_v7();
        let agents = root.intermediate(Purpose::Agents(org), now).unwrap();
        let key = KeyPair::generate().unwrap();
        let name = Name::Agent { org, agent: Uuid::now_v7() };
        let issued = agents
            .issue_identity(name, &key.verified_key().unwrap(), now, time::Duration::hours(24))
            .unwrap();
        Identity {
            key: Arc::new(key),
            chain: issued.chain,
            roots: Roots::new([root.certificate().clone()]).unwrap(),
            generation: 3,
            cluster_id: "cls_1".to_owned(),
            cluster_name: "plant".to_owned(),
            token_id: "abc".to_owned(),
            obtained_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            not_after: UNIX_EPOCH + Duration::from_secs(1_700_086_400),
            last_epoch: 7,
        }
    }

    #[test]
    fn the_text_form_brings_everything_back() {
        let pending = Pending { key: Arc::new(KeyPair::generate().unwrap()), purpose: PendingFor::Renewal };
        let sealing = Arc::new(OpeningKey::generate().unwrap());
        let state = State {
            pending: Some(pending.clone()),
            identity: Some(sample()),
            sealing: Some(Arc::clone(&sealing)),
        };
        let back = State::parse(&state.to_text().unwrap()).unwrap();
        let (before, after) = (state.identity.unwrap(), back.identity.unwrap());
        assert!(before.same_certificate(&after));
        assert_eq!(before.key.pin(), after.key.pin());
        assert_eq!(before.roots.certificates(), after.roots.certificates());
        assert_eq!((after.generation, after.last_epoch), (3, 7));
        assert_eq!((before.obtained_at, before.not_after), (after.obtained_at, after.not_after));
        let key = back.pending.unwrap();
        assert_eq!((key.key.pin(), key.purpose), (pending.key.pin(), PendingFor::Renewal));
        let sealed = sealing.public().seal(b"place", b"text").unwrap();
        assert_eq!(back.sealing.unwrap().open(b"place", &sealed).unwrap().as_slice(), b"text");
    }

    #[test]
    fn a_damaged_or_newer_text_is_told_apart_and_never_quoted() {
        assert!(matches!(State::parse(br#"{"format":2,"identity":5}"#), Err(StateError::Newer(2))));
        let text = br#"{"format":1,"pending":{"key":"hush","token_id":null}}"#;
        let error = State::parse(text).unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains("hush"), "{error}");
        assert!(State::parse(b"").is_err());
        assert!(State::parse(&vec![b' '; MAX_LEN + 1]).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let state = State { identity: Some(sample()), ..State::default() };
        let key = key_text(&state.identity.as_ref().unwrap().key);
        assert!(!format!("{state:?}").contains(key.0.as_str()));
    }

    proptest! {
        #[test]
        fn renewal_falls_around_the_half_of_what_is_left(life in 1_u64..1_000_000, spread in 0.0_f64..=1.0) {
            let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let at = renew_after(start, start + Duration::from_secs(life), spread);
            let share = at.duration_since(start).unwrap().as_secs_f64() / life as f64;
            prop_assert!((0.449..=0.551).contains(&share), "{}", share);
        }
    }
}
