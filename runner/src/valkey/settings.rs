//! What stands in `valkey.conf` for an instance and its role: a pure function.

use std::path::Path;

use culvert_engines::{Effect, Engine as Known};
use secrecy::ExposeSecret as _;

use super::conf::Directive;
use super::users::REPLICATION;
use crate::args::Folders;
use crate::engine::{Role, Situation};

/// Where a replica without a primary looks: the port of this pod at which nobody listens (`tcpmux`, RFC 1078). A
/// replica refuses writes whether it finds its primary or not, which is what counts.
const NOBODY: (&str, u16) = ("127.0.0.1", 1);
/// Files of TLS, by directive. Setting them makes the engine read them again.
pub(super) const TLS_FILES: [(&str, &str); 3] =
    [("tls-cert-file", "tls.crt"), ("tls-key-file", "tls.key"), ("tls-ca-cert-file", "ca.crt")];
/// Folder of the append-only file below the data.
pub(super) const APPEND_DIR: &str = "appendonlydir";
/// Databases without a number in the catalogue's parameter.
const DATABASES: u32 = 16;

/// The configuration file; in memory, for the password of replication stands in it.
pub(super) fn conf_path(folders: &Folders) -> std::path::PathBuf {
    folders.run.join("valkey.conf")
}

/// The file of users.
pub(super) fn users_path(folders: &Folders) -> std::path::PathBuf {
    folders.run.join("users.acl")
}

/// The socket for the runner.
pub(super) fn socket_path(folders: &Folders) -> std::path::PathBuf {
    folders.run.join("valkey.sock")
}

/// Numbered databases for applications; the one after them is ours.
pub(super) fn databases(now: &Situation) -> u32 {
    now.config.parameters.get("databases").and_then(|text| text.parse().ok()).unwrap_or(DATABASES)
}

/// Everything that stands in the file.
pub(super) fn directives(now: &Situation, role: &Role) -> Vec<Directive> {
    let one = |name: &str, value: String| Directive::new(name, [value]);
    let mut all = network(now);
    all.extend(files(&now.folders));
    all.push(one("databases", (databases(now) + 1).to_string()));
    all.extend(replication(now, role));
    let set = now.config.parameters.iter().filter(|(name, _)| *name != "databases");
    all.extend(set.map(|(name, value)| one(name, value.clone())));
    all
}

fn network(now: &Situation) -> Vec<Directive> {
    let one = |name: &str, value: String| Directive::new(name, [value]);
    let mut all = vec![
        Directive::new("bind", ["*", "-::*"]),
        one("protected-mode", "no".to_owned()),
        one("port", "0".to_owned()),
        one("tls-port", now.config.port.to_string()),
        one("tls-replication", "yes".to_owned()),
        one("tls-auth-clients", "no".to_owned()),
        one("tls-protocols", "TLSv1.2 TLSv1.3".to_owned()),
        one("unixsocket", path(&socket_path(&now.folders))),
        one("unixsocketperm", "700".to_owned()),
    ];
    all.extend(TLS_FILES.map(|(name, file)| one(name, path(&now.folders.tls.join(file)))));
    all
}

fn files(folders: &Folders) -> Vec<Directive> {
    let one = |name: &str, value: &str| Directive::new(name, [value]);
    vec![
        one("dir", &path(&folders.data())),
        one("aclfile", &path(&users_path(folders))),
        one("appendonly", "yes"),
        one("appenddirname", APPEND_DIR),
        one("appendfilename", "appendonly.aof"),
        one("dbfilename", "dump.rdb"),
        one("save", ""),
        one("logfile", ""),
        one("daemonize", "no"),
        one("enable-debug-command", "no"),
        one("enable-module-command", "no"),
        one("enable-protected-configs", "no"),
    ]
}

fn replication(now: &Situation, role: &Role) -> Vec<Directive> {
    let one = |name: &str, value: String| Directive::new(name, [value]);
    let config = &now.config;
    let announced = format!("{}.{}-pods.{}.svc", now.pod, config.database, config.namespace);
    let mut all = vec![
        one("masteruser", REPLICATION.to_owned()),
        one("masterauth", now.credentials.replication.expose_secret().to_owned()),
        one("replica-announce-ip", announced),
        one("replica-read-only", "yes".to_owned()),
        one("repl-diskless-load", "disabled".to_owned()),
        // Five seconds by default, in the hope of more replicas.
        one("repl-diskless-sync-delay", "0".to_owned()),
    ];
    if let Role::Replica(peer) = role {
        let (host, port) = peer.as_ref().map_or(NOBODY, |peer| (peer.host.as_str(), peer.port));
        all.push(Directive::new("replicaof", [host.to_owned(), port.to_string()]));
    }
    all
}

/// Whether the running engine takes a directive of the file.
pub(super) fn is_live(known: Option<&Known>, name: &str) -> bool {
    let ours =
        ["masteruser", "masterauth"].contains(&name) || TLS_FILES.iter().any(|(file, _)| *file == name);
    ours || known.is_some_and(|engine| engine.effect_of(name) == Effect::Reload)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Peer;
    use crate::valkey::tests::situation;

    fn value(all: &[Directive], name: &str) -> Option<Vec<String>> {
        let found: Vec<_> = all.iter().filter(|directive| directive.name == name).collect();
        assert!(found.len() <= 1, "{name} stands more than once");
        found.first().map(|directive| directive.args.clone())
    }

    #[test]
    fn a_primary_follows_nobody_and_has_no_plain_port() {
        let all = directives(&situation(), &Role::Primary);
        assert_eq!(value(&all, "replicaof"), None);
        assert_eq!(value(&all, "port"), Some(vec!["0".to_owned()]));
    }

    #[test]
    fn a_replica_never_takes_writes_even_without_a_primary() {
        let peer = Peer { pod: "a-0".into(), host: "a-0.a-pods.x.svc".into(), port: 6379, runner_port: 9180 };
        let followed = directives(&situation(), &Role::Replica(Some(peer)));
        assert_eq!(
            value(&followed, "replicaof"),
            Some(vec!["a-0.a-pods.x.svc".to_owned(), "6379".to_owned()])
        );
        let alone = directives(&situation(), &Role::Replica(None));
        assert_eq!(value(&alone, "replicaof"), Some(vec!["127.0.0.1".to_owned(), "1".to_owned()]));
    }

    #[test]
    fn applications_have_all_the_databases_that_they_asked_for() {
        let mut now = situation();
        let mut config = (*now.config).clone();
        config.parameters.insert("databases".to_owned(), "4".to_owned());
        now.config = config.into();
        assert_eq!(value(&directives(&now, &Role::Primary), "databases"), Some(vec!["5".to_owned()]));
        assert_eq!(databases(&now), 4);
    }

    #[test]
    fn what_the_catalogue_calls_reload_is_live_and_else_only_our_own() {
        let known = culvert_engines::catalogue().engine("valkey");
        for live in ["maxmemory", "timeout", "masterauth", "tls-cert-file"] {
            assert!(is_live(known, live), "{live}");
        }
        for fixed in ["databases", "tcp-backlog", "tls-port", "replicaof", "dir", "aclfile"] {
            assert!(!is_live(known, fixed), "{fixed}");
        }
    }
}
