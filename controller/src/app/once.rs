//! Requests that may be sent twice: the same key and the same request get the same
//! answer, and the change is made once.
//!
//! The key is reserved and the answer kept in the transaction of the change. Answers
//! hold secrets (a fresh join token), so they are kept sealed, bound to their row.

use culvert_pki::seal::Place;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{App, Error};
use crate::domain::{Caller, Time};
use crate::store::{OrgTx, Recalled};

/// How long an answer is kept.
const KEPT: time::Duration = time::Duration::hours(24);
/// The longest key, in bytes.
const KEY_MAX: usize = 255;

/// A request that may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    key: String,
    request: [u8; 32],
}

impl Once {
    /// A request with the caller's `key`; `request` is the hash of what is asked.
    pub fn new(key: &str, request: [u8; 32]) -> Result<Self, Error> {
        let visible = key.bytes().all(|b| b.is_ascii_graphic());
        if visible && (1..=KEY_MAX).contains(&key.len()) {
            Ok(Self { key: key.to_owned(), request })
        } else {
            let detail = "must be 1 to 255 visible ASCII characters";
            Err(Error::invalid("Idempotency-Key", "invalid", detail))
        }
    }
}

impl App {
    /// The earlier answer to this request, or `None` when it is to be done now.
    pub(super) async fn recall<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        tx: &OrgTx,
        once: Option<&Once>,
        now: Time,
    ) -> Result<Option<T>, Error> {
        let Some(once) = once else { return Ok(None) };
        match tx.recall(&once.key, &once.request, now, now + KEPT).await? {
            Recalled::Fresh => Ok(None),
            Recalled::Earlier { request, .. } if request != once.request => Err(Error::Conflict {
                code: "idempotency_conflict",
                reason: "the Idempotency-Key was used for another request".to_owned(),
            }),
            Recalled::Earlier { answer, .. } => {
                let row = row(caller, once);
                let opened = self
                    .inner
                    .keys
                    .data
                    .of(caller.org().uuid())?
                    .open(place(&row), &answer)
                    .map_err(|e| Error::internal("a kept answer does not open", e))?;
                let answer = serde_json::from_slice(&opened);
                answer.map(Some).map_err(|e| Error::internal("a kept answer cannot be read", e))
            }
        }
    }

    /// Keeps the answer for a repetition.
    pub(super) async fn remember<T: Serialize>(
        &self,
        caller: &Caller,
        tx: &OrgTx,
        once: Option<&Once>,
        answer: &T,
    ) -> Result<(), Error> {
        let Some(once) = once else { return Ok(()) };
        let text = serde_json::to_vec(answer).map_err(|e| Error::internal("an answer was not kept", e))?;
        let text = Zeroizing::new(text);
        let row = row(caller, once);
        let key = self.inner.keys.data.of(caller.org().uuid())?;
        let sealed =
            key.seal(place(&row), &text).map_err(|e| Error::internal("an answer was not sealed", e))?;
        Ok(tx.remember(&once.key, sealed).await?)
    }
}

fn row(caller: &Caller, once: &Once) -> String {
    format!("{}\n{}\n{}", caller.org(), caller.actor().id(), once.key)
}

fn place(row: &str) -> Place<'_> {
    Place { table: "idempotency_keys", column: "answer", row: row.as_bytes() }
}
