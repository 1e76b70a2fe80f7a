//! Ids: a UUID inside, a text with a telling prefix outside.
//!
//! The text is the prefix, an underscore and 26 characters of lower-case base32hex
//! of the UUID's bytes. Version 7 UUIDs begin with their time, and base32hex keeps
//! the order, so ids sort by age in the database and in text alike.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32HEX_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// A text that is not the id it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the id of a {noun}: those look like {prefix}_ and 26 letters and digits")]
pub struct NotAnId {
    noun: &'static str,
    prefix: &'static str,
}

fn encode(prefix: &str, id: Uuid) -> String {
    format!("{prefix}_{}", BASE32HEX_NOPAD.encode(id.as_bytes()).to_ascii_lowercase())
}

fn decode(prefix: &str, text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('_')?;
    // One spelling only: an id is compared as text by those who keep it.
    if digits.len() != 26 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let bytes = BASE32HEX_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()).ok()?;
    Uuid::from_slice(&bytes).ok()
}

macro_rules! id {
    ($name:ident, $prefix:literal, $noun:literal) => {
        #[doc = concat!("The id of a ", $noun, ": `", $prefix, "_…`.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, above every earlier one of this process.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID, as certificates and the store have it.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode($prefix, self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode($prefix, self.0))
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                decode($prefix, text).map(Self).ok_or(NotAnId { noun: $noun, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(OrgId, "org", "organisation");
id!(UserId, "usr", "user");
id!(ClusterId, "cls", "cluster");
id!(AgentId, "agt", "agent");
id!(JoinTokenId, "jtk", "join token");
id!(ApiTokenId, "tok", "API token");
id!(SessionId, "ses", "session");
id!(EventId, "evt", "event");
id!(AttemptId, "att", "enrolment attempt");
id!(RequestId, "req", "request");
id!(BackupTargetId, "bkt", "backup target");
id!(BackupId, "bkp", "backup");
id!(BackupScheduleId, "bsc", "backup schedule");
id!(RestoreId, "rst", "restore");
id!(ProjectId, "prj", "project");
id!(TemplateId, "tpl", "template");
id!(DataServiceId, "dsv", "data service");
id!(OperationId, "opn", "operation");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = ClusterId::generate();
        let text = id.to_string();
        assert_eq!(text.len(), 30);
        assert_eq!(text.parse::<ClusterId>(), Ok(id));
        assert!(text.to_uppercase().parse::<ClusterId>().is_err());
        assert!(text.parse::<AgentId>().is_err());
        assert!(text.replace("cls_", "agt_").parse::<AgentId>().is_ok());
    }

    proptest! {
        #[test]
        fn text_and_uuid_are_the_same(bytes in any::<[u8; 16]>()) {
            let id = OrgId::from(Uuid::from_bytes(bytes));
            prop_assert_eq!(id.to_string().parse::<OrgId>(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<OrgId>(&json).unwrap(), id);
        }

        #[test]
        fn text_sorts_as_the_uuid_does(a in any::<[u8; 16]>(), b in any::<[u8; 16]>()) {
            let (a, b) = (OrgId::from(Uuid::from_bytes(a)), OrgId::from(Uuid::from_bytes(b)));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn any_text_is_refused_or_is_the_only_spelling(text in "(org_)?[0-9a-wA-W]{20,30}|\\PC*") {
            if let Ok(id) = text.parse::<OrgId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
