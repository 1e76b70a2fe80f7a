//! The key of an organisation's backups, and what else is made with it.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::random::{self, NoRandomness};

/// Not 32 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an encryption key is 32 bytes in base64")]
pub struct KeyFormatError;

/// The 32 bytes under which all backups of an organisation are encrypted and authenticated.
pub struct BackupKey {
    secret: Zeroizing<[u8; 32]>,
    id: KeyId,
}

impl BackupKey {
    /// A fresh key.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self::from_secret(Zeroizing::new(random::bytes()?)))
    }

    /// Reads a key as it stands in a Secret: base64, with or without a line end.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFormatError> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim_ascii()).map_err(|_| KeyFormatError)?);
        let secret: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyFormatError)?;
        Ok(Self::from_secret(Zeroizing::new(secret)))
    }

    fn from_secret(secret: Zeroizing<[u8; 32]>) -> Self {
        let id = KeyId(expand(&secret, &[b"culvert-key-id-v1"]));
        Self { secret, id }
    }

    /// The key as [`BackupKey::parse`] reads it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.secret.as_slice()))
    }

    /// What names this key without giving it away.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Authenticates `bytes` for a purpose. HKDF's extract step with the purpose's own key is HMAC-SHA-256.
    #[must_use]
    pub fn authenticate(&self, purpose: &str, bytes: &[u8]) -> Mac {
        let key: Zeroizing<[u8; 32]> =
            Zeroizing::new(expand(&self.secret, &[b"culvert-mac-v1", purpose.as_bytes()]));
        let (mac, _) = Hkdf::<Sha256>::extract(Some(key.as_slice()), bytes);
        Mac(mac.into())
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Up to 255 × 32 bytes can be expanded; here never more than 32, so it cannot fail.
fn expand<const N: usize>(secret: &[u8; 32], info: &[&[u8]]) -> [u8; N] {
    let mut out = [0_u8; N];
    let done = Hkdf::<Sha256>::new(None, secret).expand_multi_info(info, &mut out);
    debug_assert!(done.is_ok(), "more than 8160 bytes were asked for");
    out
}

/// Names a key without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// Its length in bytes.
    pub const LEN: usize = 8;

    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Proof that bytes were written by a holder of the key. Compared in constant time.
#[derive(Debug, Clone, Copy)]
pub struct Mac([u8; 32]);

impl Mac {
    /// Whether `text` is this proof in hexadecimal, with or without a line end.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        HEXLOWER.decode(text.trim_ascii()).is_ok_and(|other| self.0.as_slice().ct_eq(&other).into())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}
