//! The text of PostgreSQL's configuration files: pure functions of what the instance shall be.
use std::collections::BTreeMap;
use std::path::Path;

use culvert_resources::TlsMode;
use culvert_resources::instance::InstanceConfig;

use super::{ADMIN, MONITOR, REPLICATION};
use crate::engine::{Peer, Role, Situation};

/// Parameters that belong to the runner; what a user sets for them is left out.
const OURS: [&str; 27] = [
    "allow_alter_system",
    "archive_command",
    "archive_library",
    "archive_mode",
    "config_file",
    "data_directory",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_permissions",
    "wal_level",
    "cluster_name",
];

/// What else decides about the file.
#[derive(Debug, Clone)]
pub(super) struct Extras<'a> {
    /// What the server's major version is.
    pub major: u32,
    /// Settings of the primary that a standby must not go below.
    pub least: &'a [(&'static str, u64)],
    /// Bytes of the volume.
    pub volume_bytes: u64,
    /// The command that archives a segment.
    pub archive_command: &'a str,
    /// The command that fetches a segment; empty when there is none.
    pub restore_command: &'a str,
    /// What is set last of all.
    pub last: &'a [(String, String)],
}

/// `postgresql.conf`.
#[must_use]
pub(super) fn postgresql(now: &Situation, role: &Role, extras: &Extras<'_>) -> String {
    let mut settings = defaults(extras);
    let users = now.config.parameters.iter().filter(|(name, _)| is_name(name) && !is_ours(name));
    settings.extend(users.map(|(name, value)| (name.to_lowercase(), value.clone())));
    raise(&mut settings, extras.least);
    settings.extend(fixed(now, extras));
    settings.extend(replication(now, role));
    if now.read_only {
        settings.insert("default_transaction_read_only".to_owned(), "on".to_owned());
    }
    settings.extend(extras.last.iter().cloned());
    let lines = settings.iter().map(|(name, value)| format!("{name} = {}\n", quoted(value)));
    std::iter::once("# Written by culvert-runner; changes are lost.\n".to_owned()).chain(lines).collect()
}

/// What is set when the user says nothing.
fn defaults(extras: &Extras<'_>) -> BTreeMap<String, String> {
    let keep = (extras.volume_bytes / 4 / (1 << 20)).max(64);
    let pairs = [
        ("max_slot_wal_keep_size", format!("{keep}MB")),
        ("max_wal_senders", "12".to_owned()),
        ("max_replication_slots", "12".to_owned()),
        ("ssl_min_protocol_version", "TLSv1.2".to_owned()),
        ("log_line_prefix", "%m [%p] %q%u@%d ".to_owned()),
        ("log_checkpoints", "off".to_owned()),
        ("wal_receiver_timeout", "10s".to_owned()),
        ("wal_sender_timeout", "10s".to_owned()),
        ("wal_retrieve_retry_interval", "1s".to_owned()),
        ("archive_timeout", "60s".to_owned()),
        ("tcp_keepalives_idle", "60".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "6".to_owned()),
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What PostgreSQL 15 to 18 set when nothing is said, of what a recovery depends on.
fn default_of(name: &str) -> u64 {
    match name {
        "max_connections" => 100,
        "max_worker_processes" => 8,
        "max_wal_senders" => 10,
        "max_locks_per_transaction" => 64,
        _ => 0,
    }
}

/// A recovery needs settings that are not below those of where the log comes from, whatever is wished for later. A
/// default is not spelled out: on the primary, where it is not, it would look like a change that waits for a restart.
fn raise(settings: &mut BTreeMap<String, String>, least: &[(&'static str, u64)]) {
    for (name, value) in least {
        let set = settings.get(*name).and_then(|text| text.parse::<u64>().ok());
        if set.unwrap_or_else(|| default_of(name)) < *value {
            settings.insert((*name).to_owned(), value.to_string());
        }
    }
}

fn fixed(now: &Situation, extras: &Extras<'_>) -> Vec<(String, String)> {
    let run = &now.folders.run;
    let mut pairs = vec![
        ("listen_addresses", "*".to_owned()),
        ("port", now.config.port.to_string()),
        ("unix_socket_directories", display(run)),
        ("unix_socket_permissions", "0700".to_owned()),
        ("password_encryption", "scram-sha-256".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", display(&run.join("tls.crt"))),
        ("ssl_key_file", display(&run.join("tls.key"))),
        ("wal_level", logical(&now.config)),
        ("hot_standby", "on".to_owned()),
        ("fsync", "on".to_owned()),
        ("full_page_writes", "on".to_owned()),
        ("archive_mode", "on".to_owned()),
        ("archive_command", extras.archive_command.to_owned()),
        ("restore_command", extras.restore_command.to_owned()),
        ("cluster_name", now.pod.clone()),
    ];
    if extras.major >= 17 {
        pairs.push(("allow_alter_system", "off".to_owned()));
    }
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `logical` for who asks for it, else what standbys need.
fn logical(config: &InstanceConfig) -> String {
    let asked = config.parameters.get("wal_level").is_some_and(|level| level == "logical");
    if asked { "logical" } else { "replica" }.to_owned()
}

fn replication(now: &Situation, role: &Role) -> Vec<(String, String)> {
    let mut pairs = vec![("synchronous_standby_names".to_owned(), standby_names(&now.required))];
    if let Role::Replica(Some(primary)) = role {
        pairs.push(("primary_conninfo".to_owned(), conninfo(now, primary)));
        pairs.push(("primary_slot_name".to_owned(), slot(&now.pod)));
    }
    pairs
}

/// How a standby reaches the primary. The password is in a file in memory.
#[must_use]
pub(super) fn conninfo(now: &Situation, primary: &Peer) -> String {
    conninfo_as(now, primary, (REPLICATION, &now.pod), &now.folders.run.join("pgpass"))
}

/// How a user reaches the primary. By its name the primary takes an application for a standby: only one that keeps the log
/// may bear the name of a pod.
#[must_use]
pub(super) fn conninfo_as(
    now: &Situation,
    primary: &Peer,
    (user, application): (&str, &str),
    passfile: &Path,
) -> String {
    let ca = now.folders.run.join("ca.crt");
    let pairs = [
        ("host", primary.host.clone()),
        ("port", primary.port.to_string()),
        ("user", user.to_owned()),
        ("application_name", application.to_owned()),
        ("passfile", display(passfile)),
        ("sslmode", "verify-ca".to_owned()),
        ("sslrootcert", display(&ca)),
        ("connect_timeout", "5".to_owned()),
        ("keepalives_idle", "5".to_owned()),
        ("keepalives_interval", "3".to_owned()),
        ("keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "10000".to_owned()),
    ];
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let text = pairs.iter().map(|(name, value)| format!("{name}='{}'", escaped(value)));
    text.collect::<Vec<_>>().join(" ")
}

/// The list of standbys for which commits wait: all of them, each by name.
#[must_use]
pub(super) fn standby_names(required: &[String]) -> String {
    let names: Vec<String> =
        required.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    if names.is_empty() { String::new() } else { format!("FIRST {} ({})", names.len(), names.join(", ")) }
}

/// Name of the replication slot of a pod: what PostgreSQL allows in one.
#[must_use]
pub(super) fn slot(pod: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    pod.chars().map(allowed).take(63).collect()
}

/// `pg_hba.conf`.
#[must_use]
pub(super) fn hba(config: &InstanceConfig) -> String {
    let mut lines = vec![
        "# Written by culvert-runner; changes are lost.".to_owned(),
        "# The socket lies in a folder that only this pod's user may enter.".to_owned(),
        format!("local all {ADMIN} trust"),
        "local all all reject".to_owned(),
        format!("hostssl replication {REPLICATION},{ADMIN} all scram-sha-256"),
        "host replication all all reject".to_owned(),
        format!("host all {REPLICATION} all reject"),
        format!("hostssl all {ADMIN},{MONITOR} all scram-sha-256"),
        format!("host all {ADMIN},{MONITOR} all reject"),
        "hostssl all all all scram-sha-256".to_owned(),
    ];
    if config.tls == TlsMode::Preferred {
        lines.push("hostnossl all all all scram-sha-256".to_owned());
    }
    lines.push("host all all all reject\n".to_owned());
    lines.join("\n")
}

/// Whether it is the name of a parameter, so that nothing else can get into the file by it.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(allowed)
}

fn is_ours(name: &str) -> bool {
    OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// A value of `postgresql.conf`. A line break would end the line.
fn quoted(value: &str) -> String {
    let bare: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", bare.replace('\\', "\\\\").replace('\'', "''"))
}

/// A word of a shell command.
#[must_use]
pub(super) fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::postgresql::testing::situation;

    fn extras<'a>(least: &'a [(&'static str, u64)]) -> Extras<'a> {
        Extras {
            major: 17,
            least,
            volume_bytes: 8 << 30,
            archive_command: "true",
            restore_command: "",
            last: &[],
        }
    }

    fn peer() -> Peer {
        Peer { pod: "orders-0".into(), host: "orders-0.pods".into(), port: 5432, runner_port: 9180 }
    }

    #[test]
    fn only_tls_is_let_in_when_it_is_required() {
        let mut config = (*situation().config).clone();
        let text = hba(&config);
        assert!(!text.contains("hostnossl"));
        assert!(text.contains("hostssl replication culvert_replication"));
        assert_eq!(text.lines().last(), Some("host all all all reject"));
        config.tls = TlsMode::Preferred;
        assert!(hba(&config).contains("hostnossl all all all scram-sha-256"));
    }

    #[test]
    fn a_standby_follows_by_a_slot_of_its_own_and_no_password_is_in_the_file() {
        let text = postgresql(&situation(), &Role::Replica(Some(peer())), &extras(&[]));
        assert!(text.contains("primary_slot_name = 'orders_1'"), "{text}");
        assert!(text.contains("sslmode=''verify-ca''"), "{text}");
        assert!(!text.contains("hunter"), "{text}");
        assert!(!postgresql(&situation(), &Role::Primary, &extras(&[])).contains("primary_conninfo"));
    }

    #[test]
    fn commits_wait_for_all_that_are_required() {
        let now = Situation { required: Arc::from(["a-0".to_owned(), "b-1".to_owned()]), ..situation() };
        let text = postgresql(&now, &Role::Primary, &extras(&[]));
        assert!(text.contains("synchronous_standby_names = 'FIRST 2 (\"a-0\", \"b-1\")'"), "{text}");
        assert!(
            postgresql(&situation(), &Role::Primary, &extras(&[])).contains("synchronous_standby_names = ''")
        );
    }

    #[test]
    fn a_standby_is_never_below_its_primary_and_a_primary_takes_what_is_wished() {
        let least = [("max_connections", 300)];
        let text = postgresql(&situation(), &Role::Replica(None), &extras(&least));
        assert!(text.contains("max_connections = '300'"), "{text}");
        let text = postgresql(&situation(), &Role::Primary, &extras(&[]));
        assert!(text.contains("max_connections = '100'"), "{text}");
    }

    /// Else each promotion would be followed by a restart.
    #[test]
    fn a_standby_of_a_primary_with_defaults_has_the_settings_of_a_primary() {
        let least = [("max_worker_processes", 8), ("max_locks_per_transaction", 64)];
        let text = postgresql(&situation(), &Role::Replica(None), &extras(&least));
        assert!(!text.contains("max_worker_processes") && !text.contains("max_locks"), "{text}");
    }

    #[test]
    fn what_keeps_the_data_safe_cannot_be_overridden() {
        let mut config = (*situation().config).clone();
        for (name, value) in [("fsync", "off"), ("SSL", "off"), ("archive_command", "rm -rf /")] {
            config.parameters.insert(name.to_owned(), value.to_owned());
        }
        let now = Situation { config: Arc::new(config), ..situation() };
        let text = postgresql(&now, &Role::Primary, &extras(&[]));
        assert!(text.contains("fsync = 'on'") && !text.contains("'off'\nfsync") && !text.contains("rm -rf"));
        assert_eq!(text.lines().filter(|line| line.starts_with("ssl =")).count(), 1);
    }

    proptest! {
        #[test]
        fn no_parameter_can_add_a_line(name in ".{0,20}", value in "(?s).{0,40}") {
            let mut config = (*situation().config).clone();
            let before = postgresql(&situation(), &Role::Primary, &extras(&[])).lines().count();
            config.parameters.insert(name, value);
            let now = Situation { config: Arc::new(config), ..situation() };
            let after = postgresql(&now, &Role::Primary, &extras(&[]));
            prop_assert!(after.lines().count() <= before + 1);
            prop_assert!(after.lines().skip(1).all(|line| line.contains(" = '") && line.ends_with('\'')));
        }

        #[test]
        fn a_slot_has_a_name_that_is_allowed(pod in "[a-z]([-a-z0-9.]{0,80}[a-z0-9])?") {
            let slot = slot(&pod);
            prop_assert!(slot.len() <= 63 && slot.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        }
    }
}
