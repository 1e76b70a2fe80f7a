//! Projects: what data services are grouped and bounded by.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ProjectId, ProjectName, Quota, Time};

/// A project's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name, unique in the organisation.
    pub name: ProjectName,
    /// What its services may use together; without bound when absent.
    pub quota: Option<Quota>,
    /// When the record was made.
    pub created_at: Time,
}

/// The name of the project that is always there.
pub const DEFAULT: &str = "default";

impl Project {
    /// Whether this is the project that is always there.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.name.as_str() == DEFAULT
    }
}

/// A project as a caller names it: by id or by name. A name has no underscore and an id has
/// one, so a text is never both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProjectRef {
    /// By id.
    Id(ProjectId),
    /// By name.
    Name(ProjectName),
}

/// A text that can name no project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither the id nor the name of a project")]
pub struct NotAProject;

impl FromStr for ProjectRef {
    type Err = NotAProject;

    fn from_str(text: &str) -> Result<Self, NotAProject> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotAProject)
    }
}

impl From<ProjectId> for ProjectRef {
    fn from(id: ProjectId) -> Self {
        Self::Id(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_an_id_or_a_name() {
        let id = ProjectId::generate();
        assert_eq!(id.to_string().parse(), Ok(ProjectRef::Id(id)));
        assert!(matches!("default".parse(), Ok(ProjectRef::Name(_))));
        for bad in ["", "prj_x", "../x", "Default"] {
            assert!(bad.parse::<ProjectRef>().is_err(), "{bad}");
        }
    }
}
