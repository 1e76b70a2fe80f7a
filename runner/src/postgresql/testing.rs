//! What the tests of this room have in common.
use std::sync::Arc;

use clap::Parser;
use culvert_resources::TlsMode;
use culvert_resources::instance::InstanceConfig;

use crate::args::Folders;
use crate::credentials::Credentials;
use crate::engine::Situation;

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    folders: Folders,
}

/// The second instance of `orders`.
pub(crate) fn situation() -> Situation {
    let config = InstanceConfig {
        engine: "postgresql".to_owned(),
        driver: "postgresql".to_owned(),
        version: "17.2".to_owned(),
        namespace: "shop".to_owned(),
        database: "orders".to_owned(),
        uid: "u".to_owned(),
        port: 5432,
        replicas: 2,
        synchronous: false,
        owner: "app".to_owned(),
        parameters: [("max_connections".to_owned(), "100".to_owned())].into(),
        tls: TlsMode::Required,
        archive: None,
        source: None,
        lease_seconds: 15,
        volume_bytes: None,
    };
    Situation {
        folders: Arc::new(Only::parse_from(["x"]).folders),
        pod: "orders-1".to_owned(),
        config: Arc::new(config),
        credentials: Arc::new(Credentials {
            admin: "hunter1".into(),
            owner: "hunter2".into(),
            replication: "hunter3".into(),
            monitor: "hunter4".into(),
            digest: String::new(),
        }),
        required: Arc::from([]),
        read_only: false,
        distrusted: false,
        filling: crate::filling::Filling::default(),
    }
}
