//! Valkey.
use culvert_resources::TlsMode;

use super::{Address, Driver, OWNER, PodNeeds, Roles, entries};

/// Valkey numbers its databases, and applications begin with the first.
const DATABASE: &str = "0";

pub(super) struct Valkey;

impl Driver for Valkey {
    fn name(&self) -> &'static str {
        "valkey"
    }

    fn pod(&self) -> PodNeeds {
        // Time to write all of memory to disk.
        PodNeeds { grace_seconds: 60, shared_memory: false }
    }

    fn roles(&self, at: &Address<'_>) -> Roles {
        let scheme = match at.tls {
            TlsMode::Required => "rediss",
            TlsMode::Preferred => "redis",
        };
        let uri = format!("{scheme}://{OWNER}:{}@{}:{}/{DATABASE}", at.owner_password, at.host, at.port);
        Roles {
            owner: entries([
                ("username", OWNER.to_owned()),
                ("password", at.owner_password.to_owned()),
                ("database", DATABASE.to_owned()),
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
        let uri = Valkey.roles(&address()).owner["uri"].clone();
        assert_eq!(uri, "rediss://app:own@orders.shop.svc:1234/0");
    }
}
