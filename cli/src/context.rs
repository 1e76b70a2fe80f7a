//! Contexts: which controllers this person uses, and the token for each.
//!
//! The contexts are one TOML file. A token is a file of its own beside it, so
//! that the list can be shown, copied and backed up without giving access away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use culvert_pki::token::BearerToken;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Exit, Failure};
use crate::files::{self, LOCK_WAIT, Lock};

/// A config file of people: a context is about 2 kB, most of it the CA.
const CONFIG_LIMIT: u64 = 4 << 20;
/// A token is under 100 characters.
const TOKEN_LIMIT: u64 = 4096;

/// One controller and who one is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `https://host:port` of the controller.
    pub(crate) url: String,
    /// The name its certificate holds when that is not the host of `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    /// Pin of the CA, as `sha256:…`.
    pub(crate) pin: String,
    /// Who signed in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// Their organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) organisation: Option<String>,
    /// End of the session, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signed_in_until: Option<String>,
    /// The CA in PEM, public.
    pub(crate) ca_pem: String,
}

/// What the config file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Name of the context used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// The config file and the folders beside it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    config: PathBuf,
}

impl Store {
    pub(crate) fn at(config: PathBuf) -> Self {
        Self { config }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.config
    }

    /// The folder for join values, beside the config file.
    pub(crate) fn joins(&self) -> PathBuf {
        self.config.with_extension("joins")
    }

    /// The folder for kubectl certificates, beside the config file.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.config.with_extension("certificates")
    }

    pub(crate) fn load(&self) -> Result<Contexts, Failure> {
        let text = files::read_text(&self.config, CONFIG_LIMIT)
            .map_err(|error| Failure::file("read", &self.config, &error))?
            .unwrap_or_default();
        toml::from_str(&text).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot use {}", self.config.display()))
                .because(error.message())
                .next("mend the file, or move it away and run: culvert login URL")
        })
    }

    /// Reads, changes and writes under a lock, so that two commands at once lose nothing.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Contexts) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let lock = self.config.with_extension("lock");
        let _held =
            Lock::take(&lock, LOCK_WAIT).map_err(|error| Failure::file("lock", &self.config, &error))?;
        let mut contexts = self.load()?;
        let outcome = change(&mut contexts)?;
        let text = toml::to_string_pretty(&contexts)
            .map_err(|error| Failure::new(Exit::Failed, "cannot write the contexts").because(error))?;
        files::write_private(&self.config, text.as_bytes())
            .map_err(|error| Failure::file("write", &self.config, &error))?;
        Ok(outcome)
    }

    /// The context to use: the named one, else the current one.
    pub(crate) fn choose(&self, named: Option<&str>) -> Result<(String, Context), Failure> {
        let contexts = self.load()?;
        let Some(name) = named.map(str::to_owned).or(contexts.current) else {
            return Err(Failure::not_signed_in("no controller is known yet").next("culvert login URL"));
        };
        match contexts.contexts.get(&name) {
            Some(context) => Ok((name, context.clone())),
            None => Err(unknown(&name)),
        }
    }

    /// The token of a context; `None` before the sign-in and after the sign-out.
    pub(crate) fn token(&self, context: &str) -> Result<Option<SecretString>, Failure> {
        let path = self.token_file(context)?;
        let text =
            files::read_private(&path, TOKEN_LIMIT).map_err(|error| Failure::file("read", &path, &error))?;
        text.map(|text| parse_token(&text)).transpose()
    }

    pub(crate) fn set_token(&self, context: &str, token: &SecretString) -> Result<(), Failure> {
        let path = self.token_file(context)?;
        files::write_private(&path, token.expose_secret().as_bytes())
            .map_err(|error| Failure::file("write", &path, &error))
    }

    pub(crate) fn forget_token(&self, context: &str) -> Result<(), Failure> {
        let path = self.token_file(context)?;
        files::remove(&path).map_err(|error| Failure::file("remove", &path, &error))
    }

    fn token_file(&self, context: &str) -> Result<PathBuf, Failure> {
        check_name(context)?;
        Ok(self.config.with_extension("tokens").join(context))
    }
}

/// A session or API token that has the right form; a mistyped one never leaves.
pub(crate) fn parse_token(text: &str) -> Result<SecretString, Failure> {
    let text = text.trim();
    BearerToken::parse(text).map_err(|error| {
        Failure::not_signed_in(format!("the token cannot be used: {error}"))
            .next("culvert login, or give a whole token beginning with cvs1. or cva1.")
    })?;
    Ok(SecretString::from(text))
}

/// Four bytes of the hash of a token: enough to tell two tokens apart on this
/// machine, and of no use to anyone who reads it.
pub(crate) fn fingerprint(token: &SecretString) -> String {
    let digest = Sha256::digest(token.expose_secret().as_bytes());
    data_encoding::HEXLOWER.encode(digest.get(..4).unwrap_or_default())
}

pub(crate) fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no context \"{name}\"")).next("culvert context list")
}

/// A context's name becomes a file's name.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= 100 && name.chars().all(plain) {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("\"{name}\" cannot name a context"))
        .because("a name has at most 100 letters, digits, dots, dashes and underscores"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("config.toml"));
        (folder, store)
    }

    fn sample(url: &str) -> Context {
        Context {
            url: url.to_owned(),
            server_name: None,
            pin: "sha256:x".to_owned(),
            user: Some("ada".to_owned()),
            organisation: None,
            signed_in_until: None,
            ca_pem: "PEM\nof\nmany lines\n".to_owned(),
        }
    }

    #[test]
    fn contexts_survive_the_way_to_the_file_and_back() {
        let (_folder, store) = store();
        store
            .update(|all| {
                all.contexts.insert("a.b".to_owned(), sample("https://a"));
                all.current = Some("a.b".to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(store.choose(None).unwrap().1, sample("https://a"));
        assert_eq!(store.choose(Some("other")).unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let (_folder, store) = store();
        std::thread::scope(|scope| {
            for n in 0..16 {
                let store = &store;
                scope.spawn(move || {
                    store
                        .update(|all| {
                            all.contexts.insert(format!("c{n}"), sample("https://x"));
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(store.load().unwrap().contexts.len(), 16);
    }

    #[test]
    fn a_broken_file_is_reported_and_kept() {
        let (_folder, store) = store();
        for text in ["current = ", "colour = 3\n", "[contexts.a]\nurl = 1\n"] {
            std::fs::write(store.path(), text).unwrap();
            assert!(store.update(|_| Ok(())).is_err());
            assert_eq!(std::fs::read_to_string(store.path()).unwrap(), text);
        }
    }

    #[test]
    fn a_name_never_leaves_its_folder() {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "é", &"x".repeat(101)] {
            assert_eq!(check_name(name).unwrap_err().exit, Exit::Usage, "{name}");
        }
        for name in ["a", "localhost-8443", "culvert.example.com", "A_1"] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn a_token_is_private_and_checked() {
        let (_folder, store) = store();
        let token = SecretString::from(BearerToken::generate_session().unwrap().expose().as_str());
        store.set_token("c", &token).unwrap();
        assert_eq!(store.token("c").unwrap().unwrap().expose_secret(), token.expose_secret());
        assert!(!format!("{token:?}").contains("cvs1"));
        store.set_token("c", &SecretString::from("cvs1.half")).unwrap();
        let failure = store.token("c").unwrap_err();
        assert_eq!(failure.exit, Exit::NotSignedIn);
        assert!(!failure.render().contains("half"), "a token is never shown");
        store.forget_token("c").unwrap();
        store.forget_token("c").unwrap();
        assert!(store.token("c").unwrap().is_none());
    }
}
