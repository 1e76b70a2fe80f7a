//! Signing in and out, and the codes for it.

use std::net::IpAddr;

use culvert_pki::token::{self, BearerToken};
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::{App, Error, Once};
use crate::domain::session::{CODE_LIFE, SESSION_LIFE};
use crate::domain::{
    Act, Actor, Caller, CredentialKind, Name, RequestId, Session, SessionId, SignInCode, Time, User,
};

/// The setting that says somebody once signed in: until then every start makes a
/// new code.
pub(super) const FIRST_SIGN_IN: &str = "first_sign_in";

/// A fresh session.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Its token.
    pub token: Secret,
    /// Until when it lasts.
    pub expires_at: Time,
    /// The caller it makes.
    pub caller: Caller,
}

/// A fresh sign-in code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssuedCode {
    /// The code.
    pub code: Secret,
    /// From when on it is refused.
    pub expires_at: Time,
}

impl App {
    /// Opens a session for the person that `code` lets in. A code works once.
    pub async fn sign_in(&self, code: &str, source: IpAddr, request: RequestId) -> Result<SignedIn, Error> {
        let now = self.now();
        let wait = |retry_after| Error::TooMany { retry_after };
        self.inner.sign_ins.take(source, now).map_err(wait)?;
        let wrong = || Error::Unauthenticated {
            code: "code_unknown",
            reason: "this sign-in code is unknown, was used or has expired".to_owned(),
        };
        let code =
            token::SignInCode::parse(code).map_err(|e| Error::invalid("code", "invalid", e.to_string()))?;
        let hash = *code.hash().as_bytes();
        let owner = self.store().code_owner(&hash, now).await?.ok_or_else(wrong)?;
        let store = self.store().org(&Caller::controller(owner.org));
        let (organisation, user) = (store.organisation().await?, store.user(owner.user).await?);
        let (organisation, user) = organisation.zip(user).ok_or_else(wrong)?;
        let session = Session {
            id: SessionId::generate(),
            user: user.id,
            created_at: now,
            expires_at: now + SESSION_LIFE,
        };
        let caller = session.caller(owner.org, organisation.name, &user).with_request(request);
        let token = BearerToken::generate_session()?;
        let tx = self.store().write(&caller).await?;
        if !tx.use_code(&hash, now).await? {
            return Err(wrong());
        }
        tx.add_session(token.hash().as_bytes(), &session).await?;
        tx.mark(FIRST_SIGN_IN).await?;
        tx.audit(Act::SignedIn, session.id, format!("from {source}"), now).await?;
        tx.commit().await?;
        Ok(SignedIn { token: token.expose().into(), expires_at: session.expires_at, caller })
    }

    /// Ends the session the caller asks with.
    pub async fn sign_out(&self, caller: &Caller) -> Result<(), Error> {
        let credential = caller.credential();
        let session: SessionId = match credential.kind {
            CredentialKind::Session => credential.id.parse().map_err(|_| Error::NotFound("session"))?,
            _ => return Err(Error::NotFound("session")),
        };
        let tx = self.store().write(caller).await?;
        if tx.end_session(session).await? {
            tx.audit(Act::SignedOut, session, "", self.now()).await?;
            tx.commit().await?;
            self.revoked();
        }
        Ok(())
    }

    /// A code with which the caller can sign in on another device.
    pub async fn create_sign_in_code(
        &self,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<IssuedCode, Error> {
        let Actor::User { id, .. } = caller.actor() else {
            return Err(Error::Denied {
                code: "not_a_person",
                reason: "a sign-in code is for a person, and you are asking with an API token".to_owned(),
                next: "sign in, and ask again".to_owned(),
            });
        };
        let user = self.store().org(caller).user(*id).await?.ok_or(Error::NotFound("user"))?;
        self.make_code(caller, &user, once).await
    }

    /// A code for somebody who sits at the controller's own machine: the user with
    /// this name, or the first administrator.
    pub async fn create_sign_in_code_locally(&self, name: Option<&Name>) -> Result<IssuedCode, Error> {
        for organisation in self.store().organisations().await? {
            let caller = Caller::controller(organisation.id);
            let store = self.store().org(&caller);
            let user = match name {
                Some(name) => store.user_named(name).await?,
                None => store.first_admin().await?,
            };
            if let Some(user) = user {
                return self.make_code(&caller, &user, None).await;
            }
        }
        Err(Error::NotFound("user"))
    }

    async fn make_code(
        &self,
        caller: &Caller,
        user: &User,
        once: Option<&Once>,
    ) -> Result<IssuedCode, Error> {
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall(caller, &tx, once, now).await? {
            return Ok(earlier);
        }
        let code = token::SignInCode::generate()?;
        let expires_at = now + CODE_LIFE;
        let record = SignInCode { org: caller.org(), user: user.id, created_at: now, expires_at };
        tx.add_code(code.hash().as_bytes(), &record).await?;
        tx.audit(Act::SignInCodeCreated, user.id, "", now).await?;
        let made = IssuedCode { code: code.expose().into(), expires_at };
        self.remember(caller, &tx, once, &made).await?;
        tx.commit().await?;
        Ok(made)
    }
}
