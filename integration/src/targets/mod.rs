//! Real servers of object stores: what backups are written to.
//!
//! Each listens with TLS by an authority of its own, keeps its data in a folder of this
//! machine, and can be killed and brought back at the same address. A store for pods
//! listens at [`crate::kube::Cluster::address`], and its port has to be opened there.

mod azure;
mod s3;
mod skewed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::sync::OnceCell;

use crate::process::{self, Child, Signal};

pub use azure::Azure;
pub use s3::S3;
pub use skewed::Skewed;

/// How long a server may take to accept.
const READY: Duration = Duration::from_secs(20);

/// Where a server is, whom it trusts, and its process.
#[derive(Debug)]
pub struct Place {
    // In this order: the server ends before its folder goes.
    child: Option<Child>,
    folder: tempfile::TempDir,
    address: SocketAddr,
    ca: String,
}

impl Place {
    fn new(host: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("culvert-target-").tempdir_in("/tmp")?;
        let address = process::free_address(host)?;
        let ca = certify(folder.path(), host)?;
        std::fs::create_dir(folder.path().join("data"))?;
        Ok(Self { child: None, folder, address, ca })
    }

    async fn serve(&mut self, name: &str, command: Command) -> anyhow::Result<()> {
        let child = self.child.insert(Child::spawn(name, command, &self.folder.path().join("log"))?);
        let accepts = process::accepts(self.address, READY).await;
        accepts.with_context(|| format!("the log of {name}:\n{}", child.output()))
    }

    /// Ends the server as a power cut would; its data stays.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.take().context("the server does not run")?.kill().await
    }

    /// Ends the server as an administrator does; its data stays.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let server = self.child.take().context("the server does not run")?;
        server.terminate(Duration::from_secs(10)).await.map(drop)
    }

    /// Has the server stand still: it is there, and answers nothing.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.child.as_mut().context("the server does not run")?.signal(Signal::Stop)
    }

    /// Has it go on after [`Place::pause`].
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        self.child.as_mut().context("the server does not run")?.signal(Signal::Cont)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://ADDRESS:PORT`.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of its authority in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// What it logged since it last started.
    pub fn log(&self) -> String {
        self.child.as_ref().map(Child::output).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Makes an authority, and in `folder` a certificate and key for `host`; gives the
/// authority's certificate.
pub(crate) fn certify(folder: &Path, host: &str) -> anyhow::Result<String> {
    let authority = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Authority of a store");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&authority)?.pem();
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(params, authority);
    let server = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &issuer)?;
    std::fs::write(folder.join("server.crt"), server.pem())?;
    std::fs::write(folder.join("server.key"), key.serialize_pem())?;
    Ok(certificate)
}

/// One of the servers' programs; installs them when this machine has none yet.
async fn program(name: &str) -> anyhow::Result<PathBuf> {
    static PROGRAMS: OnceCell<PathBuf> = OnceCell::const_new();
    let install = || async {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/build");
        let folder = process::run(Command::new(script)).await?;
        anyhow::Ok(Path::new(folder.trim_end()).join("bin"))
    };
    Ok(PROGRAMS.get_or_try_init(install).await?.join(name))
}

/// The files below a folder with their sizes, by path inside it.
fn files(folder: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let (path, about) = (entry.path(), entry.metadata()?);
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder)?.to_str().context("a name that is not text")?;
            found.push((name.to_owned(), about.len()));
        }
    }
    found.sort();
    Ok(found)
}
