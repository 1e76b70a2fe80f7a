//! An S3 server on a folder.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use super::{Place, files, program};
use crate::process;

/// An S3 server (versitygw), addressed by path; gone when dropped. Buckets are folders and
/// objects files, so that a story can look at what was stored, and damage it.
#[derive(Debug)]
pub struct S3 {
    place: Place,
    secret: String,
}

/// The id of the one access key that it knows.
const ACCESS_KEY: &str = "culvert";

impl S3 {
    /// Starts one at a free port of `host`, an address of this machine.
    pub async fn start(host: &str) -> anyhow::Result<Self> {
        let mut store = Self { place: Place::new(host)?, secret: secret() };
        std::fs::create_dir(store.path("about"))?;
        store.resume().await?;
        Ok(store)
    }

    /// Starts another at a free port of `host`, with a copy of what this one holds, as a mirror elsewhere has it.
    pub async fn copied_to(&self, host: &str) -> anyhow::Result<Self> {
        let mut copy = Self { place: Place::new(host)?, secret: secret() };
        for part in ["data", "about"] {
            let mut cp = Command::new("cp");
            cp.args(["--archive", "--no-target-directory"]).arg(self.path(part)).arg(copy.path(part));
            process::run(cp).await?;
        }
        copy.resume().await?;
        Ok(copy)
    }

    /// Starts it again after [`Place::kill`], where and with what it was.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let mut server = Command::new(program("versitygw").await?);
        server.env("ROOT_ACCESS_KEY_ID", ACCESS_KEY).env("ROOT_SECRET_ACCESS_KEY", &self.secret);
        server.args(["--port", &self.address().to_string(), "--access-log", "stdout"]);
        server.arg("--cert").arg(self.path("server.crt")).arg("--key").arg(self.path("server.key"));
        // What an object is described by lies beside it, for filesystems without attributes.
        server.args(["--health", "/health", "posix", "--sidecar"]).arg(self.path("about"));
        server.arg(self.path("data"));
        self.place.serve("versitygw", server).await
    }

    /// Gives the access key another secret; the old one is refused from now on.
    pub async fn rotate(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        self.secret = secret();
        self.resume().await
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::create_dir(self.path("data").join(name))?)
    }

    /// Id and secret of its access key.
    pub fn credentials(&self) -> (&str, &str) {
        (ACCESS_KEY, &self.secret)
    }

    /// Names and sizes of a bucket's objects, in order.
    pub fn objects(&self, bucket: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let mut objects = files(&self.path("data").join(bucket))?;
        // Parts of uploads that are not complete.
        objects.retain(|(name, _)| !name.starts_with(".sgwtmp"));
        Ok(objects)
    }

    /// The file of an object.
    pub fn file(&self, bucket: &str, object: &str) -> PathBuf {
        self.path("data").join(bucket).join(object)
    }
}

fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Deref for S3 {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

impl DerefMut for S3 {
    fn deref_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}
