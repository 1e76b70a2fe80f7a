//! The first start, and every start after it: store open, keys there, somebody who
//! can sign in.
//!
//! All of it happens in one transaction that keeps other processes from starting,
//! and every step makes only what is missing. The key file is written before the
//! transaction ends: a process killed in between leaves a key that seals nothing,
//! and the next start uses it. The other way round would leave data that nobody
//! can open.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use culvert_pki::authority::{Authority, IssueError, LoadError};
use culvert_pki::name::{Purpose, TrustDomain};
use culvert_pki::seal::{DataKey, FileKek, INSTALLATION, KekError, KekFileError, KekProvider};
use culvert_pki::token;
use culvert_pki::verify::Roots;
use culvert_tunnel::Hub;
use secrecy::ExposeSecret;
use thiserror::Error;
use uuid::Uuid;

use super::keys::{DataKeys, Keys};
use super::secret::Secret;
use super::{App, Clock, Error as AppError, kek_file};
use crate::config::{Config, Database};
use crate::domain::session::CODE_LIFE;
use crate::domain::{Act, Caller, OrgId, Organisation, Role, SignInCode, Time, User, UserId};
use crate::store::{
    Founding, Installation, OpenError, OrgTx, Store, StoreError, StoredAuthority, StoredDataKey,
};

/// Why the control plane did not start.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The data folder cannot be made or used.
    #[error("the data folder {} cannot be used", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file with the database's URL cannot be read.
    #[error("the file {} with the database's URL cannot be read", path.display())]
    UrlFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Several replicas on a file.
    #[error("several replicas need PostgreSQL; set another database or leave peer.address out")]
    ReplicasAlone,
    /// The database did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The key file cannot be read or written.
    #[error("the key file {} cannot be read or written", path.display())]
    KekFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key file is open to others.
    #[error("the key file {} may be read by others; run chmod 600 on it", path.display())]
    KekReadable {
        /// The file.
        path: PathBuf,
    },
    /// The key file is damaged.
    #[error("the key file {} is damaged; restore it from its copy", path.display())]
    KekBroken {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: KekFileError,
    },
    /// There are sealed secrets and no key for them.
    #[error(
        "the key file {} is missing, and the database holds secrets sealed with it; restore it from its copy",
        path.display()
    )]
    KekMissing {
        /// The file.
        path: PathBuf,
    },
    /// The key file is another installation's.
    #[error("the key file {} is not the one this database was sealed with", path.display())]
    KekWrong {
        /// The file.
        path: PathBuf,
        /// Which key it is, and which it should be.
        #[source]
        source: KekError,
    },
    /// The trust domain was changed.
    #[error(
        "this installation has the domain {stored}, and the configuration says {configured}; it cannot be changed"
    )]
    DomainChanged {
        /// What the database says.
        stored: String,
        /// What the configuration says.
        configured: String,
    },
    /// The sign-in code could not be written to its file.
    #[error("the sign-in code cannot be written to {}", path.display())]
    CodeFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An authority was not made.
    #[error("an authority could not be made")]
    Issue(#[from] IssueError),
    /// A stored authority cannot be used.
    #[error("a stored authority cannot be used")]
    Load(#[from] LoadError),
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] culvert_pki::NoRandomness),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Anything else.
    #[error(transparent)]
    App(#[from] AppError),
}

/// The app, and the code for the first sign-in while nobody has signed in.
#[derive(Debug)]
pub struct Opened {
    /// The app.
    pub app: App,
    /// To be shown to whoever started us.
    pub first_sign_in: Option<FirstSignIn>,
}

/// A way in for the first administrator.
#[derive(Debug)]
pub struct FirstSignIn {
    /// Who it lets in.
    pub user: String,
    /// The code.
    pub code: Secret,
    /// From when on it is refused.
    pub expires_at: Time,
    /// Where it was written instead of being shown.
    pub file: Option<PathBuf>,
}

impl App {
    /// Opens the installation and makes what is missing of it. `hub` is absent in a
    /// process that serves no agents.
    pub async fn open(config: &Config, hub: Option<Hub>, clock: Clock) -> Result<Opened, BootstrapError> {
        make_data_dir(config)?;
        let url = database_url(config)?;
        if config.peer_address.is_some() && url.expose().starts_with("sqlite:") {
            return Err(BootstrapError::ReplicasAlone);
        }
        let store = Store::open(url.expose()).await?;
        let start = Start { config, now: clock.now() };
        let (keys, first_sign_in) = start.run(&store).await?;
        if let Some(FirstSignIn { code, file: Some(path), .. }) = &first_sign_in {
            kek_file::write_private(path, format!("{}\n", code.expose()).as_bytes())
                .map_err(|source| BootstrapError::CodeFile { path: path.clone(), source })?;
        }
        Ok(Opened { app: App::assemble(config, store, keys, hub, clock), first_sign_in })
    }
}

fn make_data_dir(config: &Config) -> Result<(), BootstrapError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = &config.data_dir;
    let failed = |source| BootstrapError::DataDir { path: path.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

fn database_url(config: &Config) -> Result<Secret, BootstrapError> {
    let text = match &config.database {
        Database::Url(url) => url.expose_secret().to_owned(),
        Database::UrlFile(path) => fs::read_to_string(path)
            .map_err(|source| BootstrapError::UrlFile { path: path.clone(), source })?
            .trim()
            .to_owned(),
        Database::Embedded(path) => format!("sqlite://{}", path.display()),
    };
    Ok(zeroize::Zeroizing::new(text).into())
}

/// One start.
struct Start<'a> {
    config: &'a Config,
    now: Time,
}

impl Start<'_> {
    async fn run(&self, store: &Store) -> Result<(Keys, Option<FirstSignIn>), BootstrapError> {
        let installation = store.installation().await?;
        self.check_domain(&installation).await?;
        let stored_keys = installation.data_keys().await?;
        let kek = self.kek(!stored_keys.is_empty())?;
        let mut data = self.open_data_keys(&kek, &stored_keys)?;
        self.add_data_key(&installation, &kek, &mut data, INSTALLATION).await?;
        let (founding, new) = self.founding(&installation).await?;
        let org = founding.organisation.id;
        let orgs = installation.organisations().await?;
        for org in &orgs {
            self.add_data_key(&installation, &kek, &mut data, org.uuid()).await?;
            installation.add_default_project(*org, self.now).await?;
        }
        let keys = self.authorities(&installation, data, &orgs).await?;
        let signed_in = installation.setting(super::sessions::FIRST_SIGN_IN).await?.is_some();
        let tx = installation.into_org(&Caller::controller(org));
        if new {
            tx.audit(Act::OrganisationCreated, org, founding.organisation.name.as_str(), self.now).await?;
        }
        let first = if signed_in { None } else { Some(self.first_code(&tx, &founding.user).await?) };
        tx.commit().await?;
        Ok((keys, first))
    }

    async fn check_domain(&self, installation: &Installation) -> Result<(), BootstrapError> {
        let configured = self.config.domain.as_str();
        match installation.setting("domain").await? {
            Some(stored) if stored != configured => {
                Err(BootstrapError::DomainChanged { stored, configured: configured.to_owned() })
            }
            Some(_) => Ok(()),
            None => Ok(installation.set("domain", configured).await?),
        }
    }

    fn kek(&self, needed: bool) -> Result<FileKek, BootstrapError> {
        let path = &self.config.kek_file;
        match kek_file::read(path)? {
            Some(kek) => Ok(kek),
            None if needed => Err(BootstrapError::KekMissing { path: path.clone() }),
            None => kek_file::create(path),
        }
    }

    fn open_data_keys(&self, kek: &FileKek, stored: &[StoredDataKey]) -> Result<DataKeys, BootstrapError> {
        let mut data = DataKeys::default();
        for key in stored {
            let opened = kek.unwrap(&key.wrapped);
            let wrong = |source| BootstrapError::KekWrong { path: self.config.kek_file.clone(), source };
            data.add(opened.map_err(wrong)?);
        }
        Ok(data)
    }

    async fn add_data_key(
        &self,
        installation: &Installation,
        kek: &FileKek,
        data: &mut DataKeys,
        org: Uuid,
    ) -> Result<(), BootstrapError> {
        if data.has(org) {
            return Ok(());
        }
        let key = DataKey::generate(org, 1)?;
        let wrap_failed = |e| AppError::internal("a data key was not wrapped", e);
        let wrapped = kek.wrap(&key).map_err(wrap_failed)?;
        installation.add_data_key(&StoredDataKey { org, version: 1, wrapped }, self.now).await?;
        data.add(key);
        Ok(())
    }

    async fn founding(&self, installation: &Installation) -> Result<(Founding, bool), BootstrapError> {
        if let Some(known) = installation.founding().await? {
            return Ok((known, false));
        }
        let wanted = &self.config.bootstrap;
        let made = Founding {
            organisation: Organisation {
                id: OrgId::generate(),
                name: wanted.org.clone(),
                created_at: self.now,
            },
            user: User {
                id: UserId::generate(),
                name: wanted.user.clone(),
                role: Role::Admin,
                created_at: self.now,
            },
        };
        installation.found(&made).await?;
        Ok((made, true))
    }

    async fn authorities(
        &self,
        installation: &Installation,
        data: DataKeys,
        orgs: &[OrgId],
    ) -> Result<Keys, BootstrapError> {
        let mut shelf = Shelf {
            installation,
            data: &data,
            domain: &self.config.domain,
            stored: installation.authorities().await?,
            root: None,
            now: self.now,
        };
        let root = shelf.root_certificate().await?;
        let servers = shelf.take(Purpose::Servers).await?;
        let (mut agents, mut people) = (HashMap::new(), HashMap::new());
        for org in orgs {
            agents.insert(*org, shelf.take(Purpose::Agents(org.uuid())).await?);
            people.insert(*org, shelf.take(Purpose::People(org.uuid())).await?);
        }
        let roots = Roots::new([root.clone()]).map_err(|e| AppError::internal("the root is broken", e))?;
        let pin = culvert_pki::pin::Pin::of_certificate(&root)
            .map_err(|e| AppError::internal("the root is broken", e))?;
        Ok(Keys { domain: self.config.domain.clone(), root, roots, pin, servers, agents, people, data })
    }

    async fn first_code(&self, tx: &OrgTx, user: &User) -> Result<FirstSignIn, BootstrapError> {
        // Codes of earlier starts were shown to a screen that may be gone.
        tx.drop_codes(user.id).await?;
        let code = token::SignInCode::generate()?;
        let expires_at = self.now + CODE_LIFE;
        let record = SignInCode { org: tx.org(), user: user.id, created_at: self.now, expires_at };
        tx.add_code(code.hash().as_bytes(), &record).await?;
        tx.audit(Act::SignInCodeCreated, user.id, "for the first sign-in", self.now).await?;
        let file = self.config.bootstrap.code_file.clone();
        Ok(FirstSignIn { user: user.name.to_string(), code: code.expose().into(), expires_at, file })
    }
}

/// Authorities as stored, and the making of those that are missing.
struct Shelf<'a> {
    installation: &'a Installation,
    data: &'a DataKeys,
    domain: &'a TrustDomain,
    stored: Vec<StoredAuthority>,
    /// Opened only when something has to be made.
    root: Option<Authority>,
    now: Time,
}

impl Shelf<'_> {
    async fn root_certificate(
        &mut self,
    ) -> Result<rustls::pki_types::CertificateDer<'static>, BootstrapError> {
        let stored = self.stored.iter().find(|a| a.name == "root").map(|a| a.certificate.clone());
        match stored {
            Some(certificate) => Ok(certificate.into()),
            None => {
                let root = Authority::root(self.domain, self.now)?;
                let certificate = root.certificate().clone();
                self.keep("root", &root).await?;
                self.root = Some(root);
                Ok(certificate)
            }
        }
    }

    async fn take(&mut self, purpose: Purpose) -> Result<Authority, BootstrapError> {
        let name = name_of(purpose);
        if let Some(authority) = self.open(&name)? {
            return Ok(authority);
        }
        let root = match self.root.take() {
            Some(root) => root,
            None => self.open("root")?.ok_or(StoreError::Corrupt("root authority"))?,
        };
        let made = root.intermediate(purpose, self.now)?;
        self.root = Some(root);
        self.keep(&name, &made).await?;
        Ok(made)
    }

    fn open(&self, name: &str) -> Result<Option<Authority>, BootstrapError> {
        let Some(stored) = self.stored.iter().find(|a| a.name == name) else {
            return Ok(None);
        };
        let key = self.data.open_authority(name, &stored.sealed_key)?;
        Ok(Some(Authority::load(&stored.certificate, key, self.domain)?))
    }

    async fn keep(&self, name: &str, made: &Authority) -> Result<(), BootstrapError> {
        let stored = StoredAuthority {
            name: name.to_owned(),
            certificate: made.certificate().to_vec(),
            sealed_key: self.data.seal_authority(name, made.key())?,
            not_after: made.not_after(),
        };
        Ok(self.installation.add_authority(&stored, self.now).await?)
    }
}

fn name_of(purpose: Purpose) -> String {
    match purpose {
        Purpose::Root => "root".to_owned(),
        Purpose::Servers => "servers".to_owned(),
        Purpose::Agents(org) => format!("agents:{org}"),
        Purpose::People(org) => format!("people:{org}"),
    }
}
