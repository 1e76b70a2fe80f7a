//! API tokens: make, list, revoke.

use std::time::Duration;

use culvert_pki::token::BearerToken;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::{App, Error, Once, require_admin};
use crate::domain::{Act, ApiToken, ApiTokenId, Caller, Cursor, Name, Page, PageSize, Role, Time};
use crate::store::StoreError;

/// What a new API token shall be.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    /// Its name.
    pub name: Name,
    /// What its holder may do.
    pub role: Role,
    /// How long it lives.
    pub life: Duration,
    /// Network it may be used from.
    pub network: Option<IpNet>,
}

/// A fresh API token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssuedApiToken {
    /// Its id.
    pub id: ApiTokenId,
    /// Its name.
    pub name: Name,
    /// What its holder may do.
    pub role: Role,
    /// Network it may be used from.
    pub network: Option<IpNet>,
    /// When it was made.
    pub created_at: Time,
    /// From when on it is refused.
    pub expires_at: Time,
    /// The token.
    pub token: Secret,
}

/// The cursor's name of this list.
const LIST: &str = "api-tokens";

impl App {
    /// Makes an API token.
    pub async fn create_api_token(
        &self,
        caller: &Caller,
        new: NewApiToken,
        once: Option<&Once>,
    ) -> Result<IssuedApiToken, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(earlier) = self.recall(caller, &tx, once, now).await? {
            return Ok(earlier);
        }
        let token = BearerToken::generate_api()?;
        let record = ApiToken {
            id: ApiTokenId::generate(),
            name: new.name,
            role: new.role,
            network: new.network.map(|n| n.trunc()),
            created_at: now,
            expires_at: now + new.life,
        };
        tx.add_api_token(token.hash().as_bytes(), &record).await.map_err(|error| match error {
            StoreError::Duplicate(_) => {
                let reason = format!("there is an API token named {} already", record.name);
                Error::Conflict { code: "name_taken", reason }
            }
            other => other.into(),
        })?;
        let detail = format!("{} with role {}", record.name, record.role.as_str());
        tx.audit(Act::ApiTokenCreated, record.id, detail, now).await?;
        let ApiToken { id, name, role, network, created_at, expires_at } = record;
        let token = token.expose().into();
        let issued = IssuedApiToken { id, name, role, network, created_at, expires_at, token };
        self.remember(caller, &tx, once, &issued).await?;
        tx.commit().await?;
        Ok(issued)
    }

    /// The organisation's API tokens, newest first.
    pub async fn api_tokens(
        &self,
        caller: &Caller,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<ApiToken>, Error> {
        let after: Option<ApiTokenId> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let found = self.store().org(caller).api_tokens(after, size).await?;
        Ok(Page::cut(found, size, LIST, |token| token.id.to_string()))
    }

    /// Revokes an API token: its holder's live streams end.
    pub async fn revoke_api_token(&self, caller: &Caller, id: ApiTokenId) -> Result<(), Error> {
        require_admin(caller)?;
        let tx = self.store().write(caller).await?;
        let token = tx.api_token(id).await?.ok_or(Error::NotFound("API token"))?;
        if tx.delete_api_token(id).await? {
            tx.audit(Act::ApiTokenRevoked, id, token.name.as_str(), self.now()).await?;
            tx.commit().await?;
            self.revoked();
        }
        Ok(())
    }
}
