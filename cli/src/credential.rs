//! kubectl's certificate: made here, kept for its hour, asked for once.
//!
//! The private key is made on this machine and never leaves it but to kubectl.
//! Many kubectl at once are one request: they queue at a lock, and all but the
//! first find the certificate there.

use std::path::PathBuf;

use culvert_pki::key::KeyPair;
use culvert_pki::{csr, pem};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::client::Client;
use crate::client::model::IssuedCertificate;
use crate::context::{Store, check_name, fingerprint};
use crate::failure::{Exit, Failure};
use crate::files::{self, LOCK_WAIT, Lock};

/// Longest life that is asked for; the controller gives no longer one.
const TTL_SECONDS: u32 = 3600;
/// Not used in the last minutes of its life, so that no request outlives it.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// A certificate and a key are about 3 kB.
const FILE_LIMIT: u64 = 256 << 10;

/// A certificate with its key. The key is wiped when this goes.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Credential {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    #[zeroize(skip)]
    issued_at: Timestamp,
    #[zeroize(skip)]
    not_after: Timestamp,
}

impl Credential {
    /// When to stop using it: five minutes before its end, or at two thirds of
    /// its life when that is shorter than a quarter of an hour.
    pub(crate) fn use_until(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.issued_at);
        let margin = MARGIN.min(life / 3).max(SignedDuration::ZERO);
        self.not_after.checked_sub(margin).unwrap_or(self.issued_at)
    }

    fn fresh(&self, now: Timestamp) -> bool {
        now < self.use_until()
    }
}

/// The kept credential of this context and session, or a new one.
pub(crate) async fn obtain(
    store: &Store,
    context: &str,
    token: &SecretString,
    client: impl AsyncFnOnce() -> Result<Client, Failure>,
) -> Result<Credential, Failure> {
    let path = file(store, context, token)?;
    let lock = path.with_extension("lock");
    let cannot = |error: std::io::Error| Failure::file("lock", &path, &error);
    let waiting = tokio::task::spawn_blocking(move || Lock::take(&lock, LOCK_WAIT));
    let _held = waiting.await.map_err(std::io::Error::other).and_then(|lock| lock).map_err(cannot)?;
    if let Some(kept) = read(&path).filter(|kept| kept.fresh(Timestamp::now())) {
        return Ok(kept);
    }
    let made = issue(&client().await?).await?;
    let text = serde_json::to_string(&made).map(Zeroizing::new);
    let text =
        text.map_err(|error| Failure::new(Exit::Failed, "cannot keep the certificate").because(error))?;
    files::write_private(&path, text.as_bytes()).map_err(|error| Failure::file("write", &path, &error))?;
    Ok(made)
}

/// Removes what was kept for a session that ends.
pub(crate) fn forget(store: &Store, context: &str, token: &SecretString) {
    if let Ok(path) = file(store, context, token) {
        // A file that stays is a certificate that ends within the hour.
        let _ = files::remove(&path);
        let _ = files::remove(&path.with_extension("lock"));
    }
}

/// One file for each context and session: a new sign-in never uses an old certificate.
fn file(store: &Store, context: &str, token: &SecretString) -> Result<PathBuf, Failure> {
    check_name(context)?;
    Ok(store.certificates().join(format!("{context}-{}.json", fingerprint(token))))
}

/// What is kept, when it can be used. Anything else is made anew.
fn read(path: &std::path::Path) -> Option<Credential> {
    let text = files::read_private(path, FILE_LIMIT).ok().flatten().map(Zeroizing::new)?;
    serde_json::from_str(&text).ok()
}

async fn issue(client: &Client) -> Result<Credential, Failure> {
    let cannot =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, "cannot make a key").because(error);
    let pair = KeyPair::generate().map_err(|error| cannot(&error))?;
    let request = csr::make(&pair).map_err(|error| cannot(&error))?;
    let body = serde_json::json!({ "csr_pem": pem::request_to_pem(&request), "ttl_seconds": TTL_SECONDS });
    let ask = client.ask(Method::POST, &["certificates"]).json(&body)?;
    let issued: IssuedCertificate = client.send(ask).await?.read()?;
    let not_after = issued.not_after.parse::<Timestamp>().map_err(|error| {
        Failure::new(Exit::Failed, "the controller answered with no end of validity").because(error)
    })?;
    Ok(Credential {
        certificate_pem: issued.certificate_pem,
        key_pem: pair.to_pem().as_str().to_owned(),
        issued_at: Timestamp::now(),
        not_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living(seconds: i64) -> Credential {
        let issued_at: Timestamp = "2026-11-23T18:00:00Z".parse().unwrap();
        let not_after = issued_at + SignedDuration::from_secs(seconds);
        Credential { certificate_pem: String::new(), key_pem: String::new(), issued_at, not_after }
    }

    #[test]
    fn a_certificate_is_not_used_to_its_last_second() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let hour = living(3600);
        assert!(hour.fresh(at("2026-11-23T18:54:59Z")));
        assert!(!hour.fresh(at("2026-11-23T18:55:00Z")));
        let short = living(60);
        assert!(short.fresh(at("2026-11-23T18:00:39Z")), "a short one can still be used");
        assert!(!short.fresh(at("2026-11-23T18:00:40Z")));
        assert!(!living(-60).fresh(at("2026-11-23T18:00:00Z")));
    }
}
