//! Key-encryption keys: who wraps the data keys.
//!
//! Today a file; a hardware module, a vault or a cloud's key service later,
//! behind the same trait.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{DataKey, Header, Place, SealError, decrypt, encrypt};
use crate::random::{self, NoRandomness};

/// Why a data key was not wrapped or unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KekError {
    /// Not a wrapped key of a known format.
    #[error("not a wrapped key of a known format")]
    Format,
    /// Wrapped by another key-encryption key.
    #[error("wrapped by the key {wrapped_by}, and this is {this}")]
    OtherKek {
        /// The id of the one that wrapped.
        wrapped_by: String,
        /// The id of this one.
        this: String,
    },
    /// The wrapped key was changed.
    #[error("the wrapped key was changed")]
    Forged,
    /// The provider cannot be used now.
    #[error("the key-encryption key cannot be used: {0}")]
    Unavailable(String),
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Wraps and unwraps data keys. Calls may block on a device or a network.
pub trait KekProvider: fmt::Debug + Send + Sync {
    /// A public name of the key that wraps now, kept beside what it wrapped.
    fn id(&self) -> String;

    /// Encrypts a data key for storage.
    fn wrap(&self, key: &DataKey) -> Result<Vec<u8>, KekError>;

    /// Decrypts a stored data key.
    fn unwrap(&self, wrapped: &[u8]) -> Result<DataKey, KekError>;

    /// Whether a key could be wrapped and unwrapped now.
    fn health(&self) -> Result<(), KekError>;
}

/// Why the text of a key file was refused. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KekFileError {
    /// Does not begin as a key file does.
    #[error("this is not a key file of Culvert")]
    NotAKekFile,
    /// A part is missing or wrong.
    #[error("the key file is incomplete or changed: its checksum does not fit")]
    Checksum,
}

/// A key-encryption key that lies in a file, one line of text:
/// `cvk1.<base64url of 32 bytes>.<checksum>`. Reading and writing the file, with
/// mode 0600, is the caller's part.
pub struct FileKek(Zeroizing<[u8; 32]>);

const PREFIX: &str = "cvk1.";
const ID_LEN: usize = 8;
const PLACE: Place<'static> = Place { table: "data_keys", column: "wrapped", row: b"" };

impl FileKek {
    /// A fresh key.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(Zeroizing::new(random::bytes()?)))
    }

    /// The text to write into the file, with its line end; a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(BASE64URL_NOPAD.encode(self.0.as_slice()));
        let sum = checksum(&digits);
        let mut text = Zeroizing::new(String::with_capacity(64));
        for part in [PREFIX, digits.as_str(), ".", sum.as_str(), "\n"] {
            text.push_str(part);
        }
        text
    }

    fn id_bytes(&self) -> [u8; ID_LEN] {
        let digest = Sha256::new().chain_update(b"culvert-kek-id").chain_update(self.0.as_slice()).finalize();
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = digest.into();
        [a, b, c, d, e, f, g, h]
    }
}

impl FromStr for FileKek {
    type Err = KekFileError;

    fn from_str(text: &str) -> Result<Self, KekFileError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(KekFileError::NotAKekFile)?;
        let (digits, sum) = body.split_once('.').ok_or(KekFileError::Checksum)?;
        if checksum(digits) != sum {
            return Err(KekFileError::Checksum);
        }
        let bytes = BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| KekFileError::Checksum)?;
        let bytes = Zeroizing::new(bytes);
        let key = bytes.as_slice().try_into().map_err(|_| KekFileError::Checksum)?;
        Ok(Self(Zeroizing::new(key)))
    }
}

/// Guards against a file cut short, not against forgery.
fn checksum(digits: &str) -> String {
    let digest = Sha256::new().chain_update(PREFIX).chain_update(digits).finalize();
    let [a, b, c, d, ..]: [u8; 32] = digest.into();
    BASE64URL_NOPAD.encode(&[a, b, c, d])
}

impl KekProvider for FileKek {
    fn id(&self) -> String {
        BASE64URL_NOPAD.encode(&self.id_bytes())
    }

    fn wrap(&self, key: &DataKey) -> Result<Vec<u8>, KekError> {
        let sealed = encrypt(&self.0, key.header, PLACE, key.secret.as_slice()).map_err(wrap_error)?;
        let mut wrapped = self.id_bytes().to_vec();
        wrapped.extend_from_slice(&sealed);
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<DataKey, KekError> {
        let (id, sealed) = wrapped.split_first_chunk::<ID_LEN>().ok_or(KekError::Format)?;
        if *id != self.id_bytes() {
            return Err(KekError::OtherKek { wrapped_by: BASE64URL_NOPAD.encode(id), this: self.id() });
        }
        let header = Header::read(sealed).map_err(wrap_error)?;
        let secret = decrypt(&self.0, PLACE, sealed).map_err(wrap_error)?;
        let secret = secret.as_slice().try_into().map_err(|_| KekError::Format)?;
        Ok(DataKey { header, secret: Zeroizing::new(secret) })
    }

    fn health(&self) -> Result<(), KekError> {
        // The key is in memory: whether the system gives random bytes is all that can fail.
        random::bytes::<1>()?;
        Ok(())
    }
}

fn wrap_error(error: SealError) -> KekError {
    match error {
        SealError::Format | SealError::OtherKey { .. } => KekError::Format,
        SealError::Forged => KekError::Forged,
        SealError::Encrypt => KekError::Unavailable("encryption failed".to_owned()),
        SealError::Randomness(error) => KekError::Randomness(error),
    }
}

impl fmt::Debug for FileKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKek({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn data_key() -> DataKey {
        DataKey::generate(Uuid::from_u128(7), 4).unwrap()
    }

    #[test]
    fn a_data_key_survives_wrapping() {
        let (kek, key) = (FileKek::generate().unwrap(), data_key());
        let place = Place { table: "t", column: "c", row: b"r" };
        let sealed = key.seal(place, b"secret").unwrap();
        let again = kek.unwrap(&kek.wrap(&key).unwrap()).unwrap();
        assert_eq!(again.header(), key.header());
        assert_eq!(again.open(place, &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(kek.health(), Ok(()));
    }

    #[test]
    fn another_kek_is_named() {
        let (kek, other) = (FileKek::generate().unwrap(), FileKek::generate().unwrap());
        let wrapped = kek.wrap(&data_key()).unwrap();
        let refused = KekError::OtherKek { wrapped_by: kek.id(), this: other.id() };
        assert_eq!(other.unwrap(&wrapped).unwrap_err(), refused);
    }

    #[test]
    fn a_wrapped_key_that_was_changed_or_cut_is_refused() {
        let kek = FileKek::generate().unwrap();
        let wrapped = kek.wrap(&data_key()).unwrap();
        for at in ID_LEN..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(kek.unwrap(&changed).is_err(), "changed at {at}");
        }
        for length in 0..wrapped.len() {
            assert!(kek.unwrap(&wrapped[..length]).is_err(), "cut at {length}");
        }
        // A record is no wrapped key, even under the same secret.
        let record = data_key().seal(PLACE, b"x").unwrap();
        assert!(kek.unwrap(&record).is_err());
    }

    #[test]
    fn the_file_reads_back_and_says_what_is_wrong() {
        let kek = FileKek::generate().unwrap();
        let text = kek.expose();
        assert!(text.ends_with('\n'));
        assert_eq!(text.parse::<FileKek>().unwrap().id(), kek.id());
        assert_eq!("".parse::<FileKek>().unwrap_err(), KekFileError::NotAKekFile);
        assert_eq!("hello".parse::<FileKek>().unwrap_err(), KekFileError::NotAKekFile);
        for length in PREFIX.len()..text.trim().len() {
            let cut = text[..length].parse::<FileKek>();
            assert_eq!(cut.unwrap_err(), KekFileError::Checksum, "cut at {length}");
        }
        let digits = BASE64URL_NOPAD.encode(&[1; 31]);
        let short = format!("{PREFIX}{digits}.{}", checksum(&digits));
        assert_eq!(short.parse::<FileKek>().unwrap_err(), KekFileError::Checksum);
    }

    #[test]
    fn a_kek_does_not_show_in_debug() {
        let kek = FileKek::generate().unwrap();
        assert_eq!(format!("{kek:?}"), format!("FileKek({})", kek.id()));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_calmly(bytes in vec(any::<u8>(), 0..200), text in ".{0,100}") {
            prop_assert!(FileKek::generate().unwrap().unwrap(&bytes).is_err());
            prop_assert!(text.parse::<FileKek>().is_err());
            let prefixed = format!("{PREFIX}{text}");
            prop_assert!(prefixed.parse::<FileKek>().is_err());
        }
    }
}
