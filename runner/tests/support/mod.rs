//! What the tests of the runner stand on: a real PostgreSQL and targets that last as long as a test.

#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

pub mod postgres;

use std::path::{Path, PathBuf};

use culvert_pki::stream::BackupKey;
use culvert_resources::job::TargetConfig;
use culvert_runner::storage::{Patience, Storage};

/// A target in a folder, with a key.
pub struct Share {
    pub folder: tempfile::TempDir,
    pub config: TargetConfig,
}

impl Share {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("culvert-share-").tempdir_in("/tmp").unwrap();
        open_to_all(folder.path());
        let (mount, secret) = (folder.path().join("mount"), folder.path().join("secret"));
        // In a pod all runs as one user; here the server does not.
        let services =
            ["of-us", "of-us/services", "of-us/services/data.shop.12345678"].map(|below| mount.join(below));
        for below in [&mount, &secret].into_iter().chain(&services) {
            std::fs::create_dir(below).unwrap();
            open_to_all(below);
        }
        let key = BackupKey::generate().unwrap();
        std::fs::write(secret.join("encryption-key"), key.expose().as_bytes()).unwrap();
        let config = TargetConfig {
            name: "nightly".into(),
            share: Some(text(&mount)),
            prefix: "of-us".into(),
            credentials: Some(text(&secret)),
            ..TargetConfig::default()
        };
        Self { folder, config }
    }

    pub fn storage(&self) -> Storage {
        Storage::open(&self.config, Patience::CHECK).unwrap()
    }

    /// The file of an object.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("mount/of-us").join(path)
    }
}

/// PostgreSQL runs as nobody when the tests run as root.
pub fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
