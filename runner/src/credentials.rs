//! Passwords of an instance, read from the mounted Secret.
use std::fmt;
use std::path::Path;

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Names of the files, in the order in which they are digested.
const FILES: [&str; 4] = ["admin-password", "owner-password", "replication-password", "monitor-password"];
/// Longest password that is accepted: what SCRAM libraries handle everywhere.
const LONGEST: usize = 512;

/// Passwords of an instance. Hidden in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Credentials {
    /// Of the user that may do everything.
    pub admin: SecretString,
    /// Of the owner of the first database.
    pub owner: SecretString,
    /// Of the user that standbys fetch the log with.
    pub replication: SecretString,
    /// Of the user that probes and metrics use.
    pub monitor: SecretString,
    /// SHA-256 over all, in hexadecimal: tells a change, and gives nothing away of a random password.
    pub digest: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Why the passwords could not be read.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file is missing or cannot be read.
    #[error("the password {0} cannot be read")]
    File(&'static str, #[source] std::io::Error),
    /// A file holds no usable password.
    #[error("the password {0} is empty, too long, or not one line of text")]
    Unusable(&'static str),
}

impl Credentials {
    /// Reads the folder.
    ///
    /// # Errors
    /// [`CredentialsError`] names the file.
    pub fn read(folder: &Path) -> Result<Self, CredentialsError> {
        let [admin, owner, replication, monitor] = FILES;
        let texts =
            (one(folder, admin)?, one(folder, owner)?, one(folder, replication)?, one(folder, monitor)?);
        let mut sum = Sha256::new();
        for text in [&texts.0, &texts.1, &texts.2, &texts.3] {
            sum.update(text.len().to_be_bytes());
            sum.update(text.as_bytes());
        }
        Ok(Self {
            digest: data_encoding::HEXLOWER.encode(&sum.finalize()),
            admin: texts.0.to_string().into(),
            owner: texts.1.to_string().into(),
            replication: texts.2.to_string().into(),
            monitor: texts.3.to_string().into(),
        })
    }
}

fn one(folder: &Path, name: &'static str) -> Result<zeroize::Zeroizing<String>, CredentialsError> {
    let text =
        std::fs::read_to_string(folder.join(name)).map_err(|error| CredentialsError::File(name, error))?;
    let text = zeroize::Zeroizing::new(text);
    let bare = text.strip_suffix('\n').unwrap_or(&text);
    if bare.is_empty() || bare.len() > LONGEST || bare.chars().any(char::is_control) {
        return Err(CredentialsError::Unusable(name));
    }
    Ok(zeroize::Zeroizing::new(bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(admin: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in FILES {
            std::fs::write(folder.path().join(name), format!("{name}-x\n")).unwrap();
        }
        std::fs::write(folder.path().join("admin-password"), admin).unwrap();
        folder
    }

    #[test]
    fn a_change_of_one_password_changes_the_digest_and_debug_shows_none() {
        let (one, two) = (folder("secret-one"), folder("secret-two"));
        let one = Credentials::read(one.path()).unwrap();
        let two = Credentials::read(two.path()).unwrap();
        assert_ne!(one.digest, two.digest);
        assert!(!format!("{one:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_password_is_refused_by_name() {
        for wrong in ["", "\n", "two\nlines", "bell\u{7}"] {
            let error = Credentials::read(folder(wrong).path()).unwrap_err();
            assert!(error.to_string().contains("admin-password"), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Credentials::read(empty.path()), Err(CredentialsError::File("admin-password", _))));
    }
}
