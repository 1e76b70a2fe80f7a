//! Users of the engine: who may do what. Passwords stand in files only as SHA-256.
//!
//! The runner has a user of its own for the socket in the pod, with a password that is made at the first start and
//! stays in memory-backed files. So it can always log in to bring new passwords into force, whatever became of the
//! Secret in between.

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::record::KEY;
use crate::engine::Situation;

/// May do everything.
pub(super) const ADMIN: &str = "culvert_admin";
/// Replicas and backups fetch the data as this user.
pub(crate) const REPLICATION: &str = "culvert_replication";
/// Probes and metrics.
pub(super) const MONITOR: &str = "culvert_monitor";
/// The runner itself, on the socket in the pod.
pub(super) const RUNNER: &str = "culvert_runner";

/// A user with its rules, without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// Name.
    pub(super) name: String,
    /// Rules in the engine's words, the hash of the password included.
    pub(super) rules: Vec<String>,
}

/// What an owner needs of what the engine calls dangerous.
const OWNER_EXTRAS: [&str; 11] = [
    "+flushall",
    "+flushdb",
    "+info",
    "+keys",
    "+lastsave",
    "+restore",
    "+role",
    "+sort",
    "+sort_ro",
    "+swapdb",
    "+latency|latest",
];
/// What frees space, and is left to an owner whose volume is nearly full.
const FREEING: [&str; 8] =
    ["-@write", "+del", "+unlink", "+flushall", "+flushdb", "+expire", "+pexpire", "+expireat"];

/// All users as they shall be.
pub(super) fn users(now: &Situation, local: &SecretString) -> Vec<User> {
    let credentials = &now.credentials;
    let record = format!("~{KEY}");
    let owner = ["~*", "&*", "+@all", "-@admin", "-@dangerous"].into_iter().chain(OWNER_EXTRAS);
    let freeing: &[&str] = if now.read_only { &FREEING } else { &[] };
    vec![
        User { name: "default".to_owned(), rules: vec!["reset".to_owned()] },
        user(RUNNER, local, ["~*", "&*", "+@all"]),
        user(ADMIN, &credentials.admin, ["~*", "&*", "+@all"]),
        user(&now.config.owner, &credentials.owner, owner.chain(freeing.iter().copied())),
        user(
            REPLICATION,
            &credentials.replication,
            ["-@all", "+ping", "+psync", "+sync", "+replconf", "+info", "+time"],
        ),
        user(
            MONITOR,
            &credentials.monitor,
            [record.as_str(), "-@all", "+ping", "+select", "+info", "+get", "+set", "+client|setinfo"],
        ),
    ]
}

fn user<'a>(name: &str, password: &SecretString, rules: impl IntoIterator<Item = &'a str>) -> User {
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(password.expose_secret().as_bytes()));
    let own = ["reset".to_owned(), "on".to_owned(), format!("#{hash}")];
    User {
        name: name.to_owned(),
        rules: own.into_iter().chain(rules.into_iter().map(str::to_owned)).collect(),
    }
}

/// The users as a file that the engine reads when it starts.
pub(super) fn file(users: &[User]) -> String {
    users.iter().map(|user| format!("user {} {}\n", user.name, user.rules.join(" "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::valkey::tests::situation;

    #[test]
    fn no_password_stands_in_the_file() {
        let text = file(&users(&situation(), &"local-secret".to_owned().into()));
        for secret in ["admin-secret", "owner-secret", "replication-secret", "monitor-secret", "local-secret"]
        {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(text.lines().count(), 6);
    }

    #[test]
    fn nobody_gets_in_without_a_name() {
        let text = file(&users(&situation(), &"x".to_owned().into()));
        assert!(text.starts_with("user default reset\n"), "{text}");
    }

    #[test]
    fn an_owner_of_a_full_volume_may_only_make_room() {
        let mut now = situation();
        let rules = |now: &Situation| users(now, &"x".to_owned().into())[3].rules.join(" ");
        assert!(!rules(&now).contains("-@write"));
        now.read_only = true;
        assert!(rules(&now).ends_with("-@write +del +unlink +flushall +flushdb +expire +pexpire +expireat"));
    }
}
