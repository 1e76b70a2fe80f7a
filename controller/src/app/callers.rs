//! Who holds a credential: bearer tokens, and certificates of people.

use std::net::IpAddr;

use culvert_pki::name::Identity;
use culvert_pki::token::{BearerToken, TokenKind};
use culvert_pki::verify::Peer;

use super::cache::Cache;
use super::{App, Error};
use crate::domain::{Actor, Caller, Credential, CredentialKind, OrgId, Time, UserId};

/// Callers by what they showed.
#[derive(Debug, Default)]
pub(super) struct CallerCache(Cache<Shown, Option<Caller>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shown {
    Bearer(TokenKind, [u8; 32]),
    User(OrgId, UserId),
}

impl CallerCache {
    pub(super) fn forget(&self) {
        self.0.forget();
    }
}

impl App {
    /// Who holds the token `text`, used from `source`.
    pub async fn authenticate_bearer(&self, text: &str, source: IpAddr) -> Result<Caller, Error> {
        let token =
            BearerToken::parse(text).map_err(|e| unauthenticated("token_malformed", e.to_string()))?;
        let shown = Shown::Bearer(token.kind(), *token.hash().as_bytes());
        let now = self.now();
        let found = match self.inner.callers.0.get(&shown, now) {
            Ok(known) => known,
            Err(begun) => {
                let found = self.look_up(&shown, now).await?;
                self.inner.callers.0.put(begun, shown, found.clone(), now);
                found
            }
        };
        let caller = found.ok_or_else(|| {
            unauthenticated(
                "token_unknown",
                format!("this {} is unknown, expired or was revoked", token.kind()),
            )
        })?;
        self.check_use(&caller, source, now)?;
        Ok(caller)
    }

    /// Who holds a certificate that was verified.
    pub async fn authenticate_certificate(&self, peer: &Peer) -> Result<Caller, Error> {
        let Identity::User { org, user } = peer.identity else {
            return Err(unauthenticated("not_a_person", "this certificate is not a person's".to_owned()));
        };
        let shown = Shown::User(org.into(), user.into());
        let now = self.now();
        let found = match self.inner.callers.0.get(&shown, now) {
            Ok(known) => known,
            Err(begun) => {
                let found = self.look_up(&shown, now).await?;
                self.inner.callers.0.put(begun, shown, found.clone(), now);
                found
            }
        };
        let caller = found.ok_or_else(|| {
            unauthenticated("user_unknown", "the certificate's holder is no longer known".to_owned())
        })?;
        let caller = caller.with_credential(Credential {
            kind: CredentialKind::Certificate,
            id: peer.serial.to_string(),
            name: None,
            expires_at: Some(peer.not_after),
            network: None,
        });
        check_expiry(&caller, now)?;
        Ok(caller)
    }

    /// Whether a caller who was authenticated before still is: for long streams,
    /// after `revocations` moved.
    pub async fn recheck(&self, caller: &Caller) -> Result<(), Error> {
        let now = self.now();
        check_expiry(caller, now)?;
        let store = self.store().org(caller);
        let gone = || unauthenticated("revoked", "the credential was revoked".to_owned());
        let lives = match (caller.actor(), caller.credential().kind) {
            (Actor::ApiToken { id, .. }, _) => {
                store.api_token(*id).await?.is_some_and(|token| token.role == caller.role())
            }
            (Actor::User { id, .. }, kind) => {
                let user = store.user(*id).await?.is_some_and(|user| user.role == caller.role());
                let session = match (kind, caller.credential().id.parse()) {
                    (CredentialKind::Session, Ok(session)) => store.session_lives(session, now).await?,
                    (CredentialKind::Session, Err(_)) => false,
                    _ => true,
                };
                user && session
            }
            (Actor::Agent { .. } | Actor::Controller, _) => true,
        };
        if lives { Ok(()) } else { Err(gone()) }
    }

    fn check_use(&self, caller: &Caller, source: IpAddr, now: Time) -> Result<(), Error> {
        check_expiry(caller, now)?;
        match caller.credential().network {
            Some(network) if !network.contains(&source.to_canonical()) => {
                Err(unauthenticated("wrong_network", format!("this token may not be used from {source}")))
            }
            _ => Ok(()),
        }
    }

    async fn look_up(&self, shown: &Shown, now: Time) -> Result<Option<Caller>, Error> {
        match shown {
            Shown::Bearer(TokenKind::Api, hash) => {
                let Some((org, token)) = self.store().api_token_by_hash(hash, now).await? else {
                    return Ok(None);
                };
                let organisation = self.store().org(&Caller::controller(org)).organisation().await?;
                Ok(organisation.map(|o| token.caller(org, o.name)))
            }
            Shown::Bearer(_, hash) => {
                let Some((org, session)) = self.store().session_by_hash(hash, now).await? else {
                    return Ok(None);
                };
                let store = self.store().org(&Caller::controller(org));
                let (organisation, user) = (store.organisation().await?, store.user(session.user).await?);
                Ok(organisation.zip(user).map(|(o, user)| session.caller(org, o.name, &user)))
            }
            Shown::User(org, id) => {
                let store = self.store().org(&Caller::controller(*org));
                let (organisation, user) = (store.organisation().await?, store.user(*id).await?);
                let credential = Credential {
                    kind: CredentialKind::Certificate,
                    id: String::new(),
                    name: None,
                    expires_at: None,
                    network: None,
                };
                Ok(organisation.zip(user).map(|(o, user)| Caller::user(*org, o.name, &user, credential)))
            }
        }
    }
}

fn check_expiry(caller: &Caller, now: Time) -> Result<(), Error> {
    match caller.credential().expires_at {
        Some(end) if now >= end => Err(unauthenticated("expired", "the credential has expired".to_owned())),
        _ => Ok(()),
    }
}

fn unauthenticated(code: &'static str, reason: String) -> Error {
    Error::Unauthenticated { code, reason }
}
