//! PostgreSQL.
use culvert_resources::TlsMode;

use super::{Address, Driver, OWNER, PodNeeds, Roles, entries};

pub(super) struct Postgresql;

impl Driver for Postgresql {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn pod(&self) -> PodNeeds {
        // A fast shutdown writes a checkpoint, and waits until standbys have all of the log.
        PodNeeds { grace_seconds: 120, shared_memory: true }
    }

    fn roles(&self, at: &Address<'_>) -> Roles {
        let mode = match at.tls {
            TlsMode::Required => "require",
            TlsMode::Preferred => "prefer",
        };
        // Passwords are base64url, so nothing in them needs escaping.
        let uri = format!(
            "postgresql://{OWNER}:{}@{}:{}/{OWNER}?sslmode={mode}",
            at.owner_password, at.host, at.port
        );
        Roles {
            owner: entries([
                ("username", OWNER.to_owned()),
                ("password", at.owner_password.to_owned()),
                ("database", OWNER.to_owned()),
                ("host", at.host.to_owned()),
                ("port", at.port.to_string()),
                ("uri", uri),
            ]),
            admin: entries([
                ("username", "culvert_admin".to_owned()),
                ("password", at.admin_password.to_owned()),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::address;
    use super::*;

    #[test]
    fn the_uri_asks_for_tls() {
        let uri = Postgresql.roles(&address()).owner["uri"].clone();
        assert_eq!(uri, "postgresql://app:own@orders.shop.svc:1234/app?sslmode=require");
    }
}
