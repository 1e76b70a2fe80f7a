//! How a certificate is obtained: by a join token, by the one before, or after expiry by the key alone.
//!
//! All three store what they got before they return it.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use culvert_pki::csr;
use culvert_pki::key::{KeyError, KeyPair};
use culvert_pki::name::{Identity as Name, TrustDomain};
use culvert_pki::pin::Pin;
use culvert_pki::rejoin::Statement;
use culvert_pki::token::{JoinToken, TokenError};
use culvert_pki::verify::{PeerError, Roots, verify_peer};
use culvert_proto::enrolment::v1 as proto;
use culvert_proto::enrolment::v1::enrolment_client::EnrolmentClient;
use culvert_tunnel::{Channel, REFUSAL, RETRY_AFTER};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::keeper::Keeper;
use super::state::{Identity, Pending, PendingFor, State, StateError};
use crate::causes::{Cause, Remedy};

/// Time that the controller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest token file that is read, in bytes.
const MAX_TOKEN_FILE: u64 = 4096;

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum ObtainError {
    /// The token file cannot be read.
    #[error("the token file {path} cannot be read: {source}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The token file holds no join token.
    #[error("the token file {path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with the token.
        source: TokenError,
    },
    /// State cannot be read or stored.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key cannot be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The controller refused.
    #[error("the controller refused: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The controller did not answer.
    #[error("the controller did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The certificate is not valid by the clock here.
    #[error("{0}")]
    Clock(PeerError),
    /// What came is not what was asked for.
    #[error("the controller's answer cannot be used: {0}")]
    Answer(String),
}

impl From<&ObtainError> for Cause {
    fn from(error: &ObtainError) -> Cause {
        let why = error.to_string();
        match error {
            ObtainError::TokenFile { .. } | ObtainError::Token { .. } => Cause::new(
                "token_malformed",
                "there is no usable join token",
                why,
                "give the whole token as it was printed, by --token-file",
            )
            .with(Remedy::GiveUp),
            ObtainError::State(_) | ObtainError::Key(_) => Cause::new(
                "state",
                "the agent's state cannot be read or stored",
                why,
                "check the place named by --state and the agent's rights on it",
            ),
            ObtainError::Refused(status) => refused(status),
            ObtainError::Timeout => Cause::new(
                "controller_slow",
                "the controller does not answer",
                why,
                "nothing: the agent tries again by itself",
            ),
            ObtainError::Clock(_) => Cause::new(
                "clock_skew",
                "this machine's clock is off",
                why,
                "set the clock (NTP); the agent tries again by itself",
            ),
            ObtainError::Answer(_) => Cause::new(
                "protocol",
                "agent and controller do not understand each other",
                why,
                "bring both to versions at most one minor version apart",
            )
            .with(Remedy::RetryAfter(Duration::from_secs(60))),
        }
    }
}

fn refused(status: &tonic::Status) -> Cause {
    let text = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
    let wait = text(RETRY_AFTER).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    match text(REFUSAL) {
        Some(code) => Cause::refusal(code, status.message(), wait),
        None => Cause::new(
            "controller_failed",
            "the controller could not answer",
            format!("{:?}: {}", status.code(), crate::causes::one_line(status.message())),
            "nothing: the agent tries again by itself",
        ),
    }
}

/// Reads a join token from its file.
///
/// # Errors
/// [`ObtainError::TokenFile`] or [`ObtainError::Token`]; neither quotes the token.
pub fn read_token(path: &Path) -> Result<JoinToken, ObtainError> {
    use std::io::Read;
    let mut text = Zeroizing::new(String::with_capacity(1024));
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN_FILE).read_to_string(&mut text))
        .map_err(|source| ObtainError::TokenFile { path: path.to_owned(), source })?;
    JoinToken::parse(&text).map_err(|source| ObtainError::Token { path: path.to_owned(), source })
}

/// What was obtained: the state as it is stored now, and the new identity in it.
#[derive(Debug, Clone)]
pub struct Obtained {
    /// The stored state.
    pub state: State,
    /// The identity to use from now on.
    pub identity: Identity,
}

/// The key to ask a certificate for: the one that waits already, or a new one,
/// stored before it is used.
async fn pending_key(keeper: &Keeper, purpose: PendingFor) -> Result<Arc<KeyPair>, ObtainError> {
    let waiting =
        |state: &State| state.pending.as_ref().filter(|p| p.purpose == purpose).map(|p| Arc::clone(&p.key));
    if let Some(key) = waiting(&keeper.state().await) {
        return Ok(key);
    }
    let fresh = Arc::new(KeyPair::generate()?);
    let state = keeper
        .update(|state| {
            // Another pod may have stored one meanwhile: then that one counts.
            if waiting(state).is_none() {
                state.pending = Some(Pending { key: Arc::clone(&fresh), purpose: purpose.clone() });
            }
            Ok(())
        })
        .await?;
    waiting(&state).ok_or_else(|| ObtainError::Answer("the stored key is gone".to_owned()))
}

/// Redeems the join token over `channel`, whose server proved to have the pinned root.
///
/// # Errors
/// [`ObtainError`]; calling it again uses the same key.
pub async fn enrol(
    keeper: &Keeper,
    channel: Channel,
    token: &JoinToken,
    domain: &TrustDomain,
) -> Result<Obtained, ObtainError> {
    let token_id = token.id().to_string();
    let key = pending_key(keeper, PendingFor::Enrolment(token_id.clone())).await?;
    let request = proto::EnrolRequest {
        token_id: token_id.clone(),
        token_secret: bytes::Bytes::copy_from_slice(token.secret()),
        csr: csr::make(&key)?.into(),
        agent_version: crate::VERSION.to_owned(),
        clock_ms: clock_ms(SystemTime::now()),
    };
    let mut client = client(channel, &domain.enrolment_server_name(&token.id()))?;
    let answer = answered(client.enrol(request)).await?;
    let received = Received::check(answer.certificate, &key, domain, SystemTime::now())?;
    received.check_pins(&token.pins())?;
    let identity = Identity {
        key,
        chain: received.chain,
        roots: received.roots,
        generation: answer.generation,
        cluster_id: answer.cluster_id,
        cluster_name: answer.cluster_name,
        token_id,
        obtained_at: SystemTime::now(),
        not_after: received.not_after,
        last_epoch: 0,
    };
    store(keeper, identity).await
}

/// Gets the next certificate over a connection that shows the present one.
///
/// # Errors
/// [`ObtainError`]; calling it again uses the same key.
pub async fn renew(
    keeper: &Keeper,
    channel: Channel,
    current: &Identity,
    domain: &TrustDomain,
) -> Result<Obtained, ObtainError> {
    let key = pending_key(keeper, PendingFor::Renewal).await?;
    let request = proto::RenewRequest { csr: csr::make(&key)?.into() };
    let mut client = client(channel, &domain.agents_server_name())?;
    let answer = answered(client.renew(request)).await?;
    let received = Received::check(answer.certificate, &key, domain, SystemTime::now())?;
    store(keeper, received.succeed(current, key, answer.generation)).await
}

/// Gets a certificate after the last one expired, over a connection without
/// one. `channel_binding` is the connection's `tls-exporter` (RFC 9266).
///
/// # Errors
/// [`ObtainError`].
pub async fn rejoin(
    keeper: &Keeper,
    channel: Channel,
    current: &Identity,
    channel_binding: &[u8; 32],
    domain: &TrustDomain,
) -> Result<Obtained, ObtainError> {
    let csr = csr::make(&current.key)?;
    let certificate =
        current.chain.first().ok_or_else(|| ObtainError::Answer("no certificate".to_owned()))?;
    let clock_ms = clock_ms(SystemTime::now());
    let statement =
        Statement { certificate, csr: &csr, generation: current.generation, clock_ms, channel_binding };
    let request = proto::RejoinRequest {
        signature: statement.sign(&current.key)?.into(),
        certificate: bytes::Bytes::copy_from_slice(certificate),
        generation: current.generation,
        agent_version: crate::VERSION.to_owned(),
        clock_ms,
        csr: csr.into(),
    };
    let mut client = client(channel, &domain.agents_server_name())?;
    let answer = answered(client.rejoin(request)).await?;
    let received = Received::check(answer.certificate, &current.key, domain, SystemTime::now())?;
    let identity = received.succeed(current, Arc::clone(&current.key), answer.generation);
    store(keeper, identity).await
}

async fn store(keeper: &Keeper, identity: Identity) -> Result<Obtained, ObtainError> {
    let state = keeper
        .update(|state| {
            let epoch = state.identity.as_ref().map_or(0, |before| before.last_epoch);
            let mut identity = identity.clone();
            identity.last_epoch = identity.last_epoch.max(epoch);
            state.identity = Some(identity);
            state.pending = None;
            Ok(())
        })
        .await?;
    Ok(Obtained { state, identity })
}

fn client(channel: Channel, server_name: &str) -> Result<EnrolmentClient<Channel>, ObtainError> {
    let origin = format!("https://{server_name}")
        .parse()
        .map_err(|_| ObtainError::Answer("bad server name".to_owned()))?;
    Ok(EnrolmentClient::with_origin(channel, origin))
}

async fn answered<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, ObtainError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => {
            answer.map(tonic::Response::into_inner).map_err(|status| ObtainError::Refused(Box::new(status)))
        }
        Err(_) => Err(ObtainError::Timeout),
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn clock_ms(now: SystemTime) -> i64 {
    i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// A certificate that came and fits.
#[derive(Debug)]
struct Received {
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
    not_after: SystemTime,
}

impl Received {
    /// It must be for our key, name an agent, and lead to a root that came with it.
    fn check(
        certificate: Option<proto::Certificate>,
        key: &KeyPair,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Received, ObtainError> {
        let wrong = |why: String| ObtainError::Answer(why);
        let certificate = certificate.ok_or_else(|| wrong("it holds no certificate".to_owned()))?;
        let der = |list: Vec<bytes::Bytes>| {
            list.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect::<Vec<_>>()
        };
        let chain = der(certificate.chain);
        let roots = Roots::new(der(certificate.roots)).map_err(|error| wrong(error.to_string()))?;
        let peer =
            verify_peer(&chain, &roots, domain, OffsetDateTime::from(now)).map_err(|error| match error {
                PeerError::Expired { .. } | PeerError::NotYetValid { .. } => ObtainError::Clock(error),
                other => wrong(other.to_string()),
            })?;
        if peer.key != key.pin() {
            return Err(wrong("the certificate is for another key".to_owned()));
        }
        if !matches!(peer.identity, Name::Agent { .. }) {
            return Err(wrong("the certificate is not an agent's".to_owned()));
        }
        Ok(Received { chain, roots, not_after: SystemTime::from(peer.not_after) })
    }

    /// The roots must hold one that the join token pins.
    fn check_pins(&self, pins: &[Pin]) -> Result<(), ObtainError> {
        let presented = self.roots.pins().map_err(|error| ObtainError::Answer(error.to_string()))?;
        if presented.iter().any(|pin| pins.contains(pin)) {
            Ok(())
        } else {
            Err(ObtainError::Answer("its roots are not those that the join token pins".to_owned()))
        }
    }

    /// The identity that follows `before`.
    fn succeed(self, before: &Identity, key: Arc<KeyPair>, generation: u64) -> Identity {
        Identity {
            key,
            chain: self.chain,
            roots: self.roots,
            generation,
            obtained_at: SystemTime::now(),
            not_after: self.not_after,
            ..before.clone()
        }
    }
}
