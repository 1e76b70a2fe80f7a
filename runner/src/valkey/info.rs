//! What the engine tells of itself in `INFO`.

use std::collections::BTreeMap;

/// The answer of `INFO`, by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Info(BTreeMap<String, String>);

/// A replica, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    /// What it announces: the name of its pod in the headless Service.
    pub(super) host: String,
    /// Whether it has all and receives what is new.
    pub(super) online: bool,
    /// How far it has acknowledged.
    pub(super) offset: u64,
}

impl Info {
    pub(crate) fn read(text: &str) -> Self {
        let fields =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.text(field).parse().ok()
    }

    pub(super) fn float(&self, field: &str) -> Option<f64> {
        self.text(field).parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Exact version. Valkey tells the version of the last Redis that it is like as `redis_version`.
    pub(crate) fn version(&self) -> &str {
        let own = self.text("valkey_version");
        if own.is_empty() { self.text("redis_version") } else { own }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.text("role") == "master"
    }

    /// Whether it receives what is new from its primary.
    pub(super) fn streaming(&self) -> bool {
        !self.is_primary() && self.text("master_link_status") == "up"
    }

    /// Whether it still reads its files.
    pub(super) fn loading(&self) -> bool {
        self.text("loading") == "1" || self.text("async_loading") == "1"
    }

    /// Bytes of the stream of changes that it has.
    pub(super) fn offset(&self) -> u64 {
        self.number("master_repl_offset").unwrap_or(0)
    }

    /// Bytes that have arrived and are not applied, on a replica.
    pub(super) fn lag(&self) -> Option<i64> {
        let (read, applied) = (self.number("slave_read_repl_offset")?, self.number("slave_repl_offset")?);
        i64::try_from(read.saturating_sub(applied)).ok()
    }

    /// Its replicas.
    pub(super) fn replicas(&self) -> Vec<Attached> {
        let numbered =
            |name: &str| name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok());
        self.0.iter().filter(|(name, _)| numbered(name)).map(|(_, value)| attached(value)).collect()
    }
}

/// `ip=…,port=6379,state=online,offset=42,lag=0`
fn attached(value: &str) -> Attached {
    let fields: BTreeMap<&str, &str> = value.split(',').filter_map(|part| part.split_once('=')).collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default();
    Attached {
        host: text("ip").to_owned(),
        online: text("state") == "online",
        offset: text("offset").parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIMARY: &str = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n\
        # Replication\r\nrole:master\r\nconnected_slaves:1\r\nslave_count:9\r\n\
        slave0:ip=a-1.a-pods.x.svc,port=6379,state=online,offset=42,lag=0,type=replica\r\nmaster_repl_offset:56\r\n";

    #[test]
    fn a_primary_tells_its_version_and_replicas() {
        let info = Info::read(PRIMARY);
        assert_eq!((info.version(), info.is_primary(), info.offset()), ("8.1.1", true, 56));
        let expected = Attached { host: "a-1.a-pods.x.svc".to_owned(), online: true, offset: 42 };
        assert_eq!(info.replicas(), [expected]);
    }

    #[test]
    fn a_replica_tells_its_link_and_lag() {
        let info = Info::read(
            "role:slave\r\nmaster_link_status:up\r\nslave_read_repl_offset:90\r\nslave_repl_offset:80\r\n",
        );
        assert_eq!((info.is_primary(), info.streaming(), info.lag()), (false, true, Some(10)));
        assert!(!Info::read("role:slave\r\nmaster_link_status:down\r\n").streaming());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(text in any::<String>()) {
            let info = Info::read(&text);
            let _ = (info.replicas(), info.lag(), info.offset());
        }
    }
}
