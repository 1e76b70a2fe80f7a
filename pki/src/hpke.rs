//! Secrets on their way: sealed to the one holder of a key, whoever carries them (HPKE, RFC 9180).
//!
//! Base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-128-GCM. What a secret is for
//! goes in as associated data, so that a ciphertext moved elsewhere does not open. Base mode
//! proves no sender: whoever knows the public key can seal, so the reader must know by other
//! means who may hand it ciphertexts.
//!
//! ```text
//! encapsulated key 32 | ciphertext | tag 16
//! ```
use std::fmt;

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key and of an encapsulated key.
const KEY_LEN: usize = 32;
/// Bytes of AES-GCM's tag.
const TAG_LEN: usize = 16;
/// What all of Culvert's ciphertexts are for: keeps them apart from others' under the same key.
const INFO: &[u8] = b"culvert-hpke-v1";
/// Digits of a key's id.
const ID_DIGITS: usize = 16;

/// Why nothing was sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// Not a key of this suite.
    #[error("not an X25519 key")]
    Key,
    /// The two halves are not of one pair.
    #[error("the public key is not that of the private key")]
    Pair,
    /// No key could be made.
    #[error("no key could be made")]
    Generate,
    /// Nothing was sealed.
    #[error("it could not be sealed to this key")]
    Seal,
    /// Changed, sealed to another key, or made for another place.
    #[error("it was changed, sealed to another key, or made for another place")]
    Open,
}

/// A key to seal to; no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingKey([u8; KEY_LEN]);

impl SealingKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// [`HpkeError::Key`] when it is none: 32 bytes, and not the zero point.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let key: [u8; KEY_LEN] = bytes.try_into().map_err(|_| HpkeError::Key)?;
        if key == [0; KEY_LEN] { Err(HpkeError::Key) } else { Ok(Self(key)) }
    }

    /// The key as it goes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Short name of the key: the first 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = data_encoding::HEXLOWER.encode(&Sha256::digest(self.0));
        id.truncate(ID_DIGITS);
        id
    }

    /// Seals `plaintext`; it opens only with the same `place`.
    ///
    /// # Errors
    /// [`HpkeError::Seal`].
    pub fn seal(&self, place: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, HpkeError> {
        self.seal_for(INFO, place, plaintext)
    }

    fn seal_for(&self, info: &[u8], place: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, HpkeError> {
        let to = HpkePublicKey(self.0.to_vec());
        let (EncapsulatedSecret(mut sealed), ciphertext) =
            suite().seal(info, place, plaintext, &to).map_err(|_| HpkeError::Seal)?;
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }
}

/// The pair of keys of whoever opens.
pub struct OpeningKey {
    secret: Zeroizing<Vec<u8>>,
    public: SealingKey,
}

impl OpeningKey {
    /// A fresh pair.
    ///
    /// # Errors
    /// [`HpkeError::Generate`] without randomness.
    pub fn generate() -> Result<Self, HpkeError> {
        let (public, secret) = suite().generate_key_pair().map_err(|_| HpkeError::Generate)?;
        let secret = Zeroizing::new(secret.secret_bytes().to_vec());
        Ok(Self { secret, public: SealingKey::from_bytes(&public.0)? })
    }

    /// A pair as it was stored.
    ///
    /// # Errors
    /// [`HpkeError::Key`] when a half is no key, [`HpkeError::Pair`] when they do not belong together.
    pub fn from_parts(secret: &[u8], public: &[u8]) -> Result<Self, HpkeError> {
        if secret.len() != KEY_LEN {
            return Err(HpkeError::Key);
        }
        let key = Self { secret: Zeroizing::new(secret.to_vec()), public: SealingKey::from_bytes(public)? };
        let proof = key.public.seal(b"pair", b"").map_err(|_| HpkeError::Pair)?;
        key.open(b"pair", &proof).map_err(|_| HpkeError::Pair)?;
        Ok(key)
    }

    /// The half to give away.
    #[must_use]
    pub fn public(&self) -> SealingKey {
        self.public
    }

    /// The half to keep, for storing it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.secret
    }

    /// Opens what was sealed to this key for this place.
    ///
    /// # Errors
    /// [`HpkeError::Open`].
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
        self.open_for(INFO, place, sealed)
    }

    fn open_for(&self, info: &[u8], place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(KEY_LEN).ok_or(HpkeError::Open)?;
        if ciphertext.len() < TAG_LEN {
            return Err(HpkeError::Open);
        }
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let secret = HpkePrivateKey::from(self.secret.to_vec());
        let opened = suite().open(&encapsulated, info, place, ciphertext, &secret);
        opened.map(Zeroizing::new).map_err(|_| HpkeError::Open)
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningKey").field("id", &self.public.id()).finish_non_exhaustive()
    }
}

fn suite() -> &'static dyn Hpke {
    DH_KEM_X25519_HKDF_SHA256_AES_128
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    /// RFC 9180, appendix A.1.1, sequence number 0.
    #[test]
    fn the_vector_of_the_standard_opens() {
        let key = OpeningKey::from_parts(
            &bytes("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"),
            &bytes("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"),
        )
        .unwrap();
        let mut sealed = bytes("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        sealed.extend(bytes(
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        ));
        let info = bytes("4f6465206f6e2061204772656369616e2055726e");
        let opened = key.open_for(&info, b"Count-0", &sealed).unwrap();
        assert_eq!(opened.as_slice(), b"Beauty is truth, truth beauty");
        assert_eq!(key.open(b"Count-0", &sealed), Err(HpkeError::Open));
    }

    #[test]
    fn only_the_pair_that_belongs_together_is_read() {
        let (one, two) = (OpeningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        let again = OpeningKey::from_parts(one.expose(), one.public().as_bytes()).unwrap();
        assert_eq!(again.public(), one.public());
        let mixed = OpeningKey::from_parts(one.expose(), two.public().as_bytes());
        assert_eq!(mixed.err(), Some(HpkeError::Pair));
        assert_eq!(OpeningKey::from_parts(&[1; 31], one.public().as_bytes()).err(), Some(HpkeError::Key));
        assert_eq!(SealingKey::from_bytes(&[0; 32]), Err(HpkeError::Key));
        assert_eq!(SealingKey::from_bytes(&[1; 33]), Err(HpkeError::Key));
    }

    #[test]
    fn debug_shows_the_name_of_the_key_only() {
        let key = OpeningKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().id()), "{shown}");
        assert!(!shown.contains(&HEXLOWER.encode(key.expose())) && !shown.contains("secret"), "{shown}");
        assert_eq!(key.public().id().len(), ID_DIGITS);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_changed_or_moved_does_not_open(text in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let key = OpeningKey::generate().unwrap();
            let sealed = key.public().seal(b"here", &text).unwrap();
            let opened = key.open(b"here", &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), text.as_slice());
            prop_assert_eq!(key.open(b"there", &sealed), Err(HpkeError::Open));
            let other = OpeningKey::generate().unwrap();
            prop_assert_eq!(other.open(b"here", &sealed), Err(HpkeError::Open));
            let mut changed = sealed.clone();
            let place = at.index(changed.len());
            // The top bit of an X25519 point is not looked at, so another bit is turned.
            changed[place] ^= 1;
            prop_assert_eq!(key.open(b"here", &changed), Err(HpkeError::Open));
            prop_assert_eq!(key.open(b"here", &sealed[..place]), Err(HpkeError::Open));
        }

        #[test]
        fn any_bytes_are_refused(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(OpeningKey::generate().unwrap().open(b"here", &bytes), Err(HpkeError::Open));
        }
    }
}
