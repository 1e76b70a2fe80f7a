//! Agents: list and look.

use super::views::AgentView;
use super::{App, Error};
use crate::domain::{AgentId, Caller, Cursor, Page, PageSize};

/// The cursor's name of this list.
const LIST: &str = "agents";

impl App {
    /// The organisation's agents, newest first; those that were replaced too.
    pub async fn agents(
        &self,
        caller: &Caller,
        after: Option<&Cursor>,
        size: PageSize,
    ) -> Result<Page<AgentView>, Error> {
        let after: Option<AgentId> = after.map(|cursor| cursor.key_of(LIST)).transpose()?;
        let found = self.store().org(caller).agents(after, size).await?;
        let page = Page::cut(found, size, LIST, |agent| agent.id.to_string());
        Ok(page.map(|agent| self.view_of_agent(caller, agent)))
    }

    /// One agent.
    pub async fn agent(&self, caller: &Caller, id: AgentId) -> Result<AgentView, Error> {
        let agent = self.store().org(caller).agent(id).await?.ok_or(Error::NotFound("agent"))?;
        Ok(self.view_of_agent(caller, agent))
    }
}
