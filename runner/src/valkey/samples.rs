//! Numbers of the engine for `/metrics`.

use super::info::Info;
use crate::engine::Sample;

/// Name, what it counts, whether it only grows, field of `INFO`.
const FIELDS: [(&str, &str, bool, &str); 14] = [
    ("culvert_valkey_connected_clients", "Connections that are open", false, "connected_clients"),
    ("culvert_valkey_blocked_clients", "Connections that wait for something", false, "blocked_clients"),
    (
        "culvert_valkey_rejected_connections_total",
        "Connections beyond maxclients",
        true,
        "rejected_connections",
    ),
    ("culvert_valkey_commands_total", "Commands that were carried out", true, "total_commands_processed"),
    ("culvert_valkey_memory_used_bytes", "Memory in use", false, "used_memory"),
    ("culvert_valkey_memory_resident_bytes", "Memory that the system gave", false, "used_memory_rss"),
    ("culvert_valkey_memory_limit_bytes", "Memory for data at most", false, "maxmemory"),
    ("culvert_valkey_keyspace_hits_total", "Keys that were found", true, "keyspace_hits"),
    ("culvert_valkey_keyspace_misses_total", "Keys that were not found", true, "keyspace_misses"),
    ("culvert_valkey_evicted_keys_total", "Keys that were dropped for room", true, "evicted_keys"),
    ("culvert_valkey_expired_keys_total", "Keys whose time had come", true, "expired_keys"),
    ("culvert_valkey_replicas", "Replicas that are attached", false, "connected_slaves"),
    (
        "culvert_valkey_replication_offset_bytes",
        "Bytes of the stream of changes",
        false,
        "master_repl_offset",
    ),
    ("culvert_valkey_aof_bytes", "Bytes of the append-only file", false, "aof_current_size"),
];

/// Those of the fields that the engine told.
pub(super) fn samples(info: &Info) -> Vec<Sample> {
    let sample = |&(name, help, counter, field): &(&'static str, &'static str, bool, &str)| {
        let value = info.float(field)?;
        Some(Sample { name, help, counter, labels: Vec::new(), value })
    };
    FIELDS.iter().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_told_becomes_a_number() {
        let found = samples(&Info::read("connected_clients:3\r\nused_memory:inf\r\nrole:master\r\n"));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].value), ("culvert_valkey_connected_clients", 3.0));
    }

    #[test]
    fn counters_are_named_as_counters() {
        for (name, _, counter, _) in FIELDS {
            assert_eq!(name.ends_with("_total"), counter, "{name}");
        }
    }
}
