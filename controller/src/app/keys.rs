//! The keys of the installation, opened: data keys and authorities.

use std::collections::HashMap;

use culvert_pki::authority::Authority;
use culvert_pki::key::KeyPair;
use culvert_pki::name::TrustDomain;
use culvert_pki::pin::Pin;
use culvert_pki::seal::{DataKey, INSTALLATION, Place};
use culvert_pki::verify::Roots;
use rustls::pki_types::CertificateDer;
use time::Duration;
use uuid::Uuid;

use super::{App, Error};
use crate::domain::{OrgId, Time};

/// Life of a server's certificate; a new one is due at half of it.
pub const SERVER_CERTIFICATE_LIFE: Duration = Duration::days(30);

/// What is needed to issue, and to open what is sealed. The root's key is not
/// here: it is opened only to make other authorities.
pub(super) struct Keys {
    pub(super) domain: TrustDomain,
    pub(super) root: CertificateDer<'static>,
    pub(super) roots: Roots,
    pub(super) pin: Pin,
    pub(super) servers: Authority,
    pub(super) agents: HashMap<OrgId, Authority>,
    pub(super) people: HashMap<OrgId, Authority>,
    pub(super) data: DataKeys,
}

/// Data keys by organisation and version.
#[derive(Debug, Default)]
pub(super) struct DataKeys(HashMap<Uuid, DataKey>);

impl DataKeys {
    pub(super) fn add(&mut self, key: DataKey) {
        let org = key.header().org;
        // The newest version of an organisation is the one that seals.
        if self.0.get(&org).is_none_or(|known| known.header().version < key.header().version) {
            self.0.insert(org, key);
        }
    }

    pub(super) fn of(&self, org: Uuid) -> Result<&DataKey, Error> {
        self.0.get(&org).ok_or_else(|| Error::internal("no data key", format!("organisation {org}")))
    }

    pub(super) fn has(&self, org: Uuid) -> bool {
        self.0.contains_key(&org)
    }

    pub(super) fn seal_authority(&self, name: &str, key: &KeyPair) -> Result<Vec<u8>, Error> {
        self.of(INSTALLATION)?
            .seal(authority_place(name), &key.to_pkcs8())
            .map_err(|e| Error::internal("an authority's key was not sealed", e))
    }

    pub(super) fn open_authority(&self, name: &str, sealed: &[u8]) -> Result<KeyPair, Error> {
        let opened = self
            .of(INSTALLATION)?
            .open(authority_place(name), sealed)
            .map_err(|e| Error::internal("an authority's key does not open", e))?;
        KeyPair::from_pkcs8(&opened).map_err(|e| Error::internal("an authority's key is broken", e))
    }
}

fn authority_place(name: &str) -> Place<'_> {
    Place { table: "authorities", column: "sealed_key", row: name.as_bytes() }
}

/// A certificate for one of our doors, with its key.
#[derive(Debug)]
pub struct ServerIdentity {
    /// Leaf, intermediate and root: with the root in it a client can check a pin.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: KeyPair,
    /// End of the leaf's validity.
    pub not_after: Time,
}

impl App {
    /// The trust domain of all identities.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.inner.keys.domain
    }

    /// The roots that peers' certificates lead to.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.inner.keys.roots
    }

    /// The pin of the root's key.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.inner.keys.pin
    }

    /// The root's certificate as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        culvert_pki::pem::certificates_to_pem([&self.inner.keys.root])
    }

    /// A fresh certificate for a door with these names.
    pub fn issue_server(&self, names: &[String]) -> Result<ServerIdentity, Error> {
        let failed = |e: culvert_pki::authority::IssueError| Error::internal("no server certificate", e);
        let key = KeyPair::generate().map_err(|e| failed(e.into()))?;
        let public = key.verified_key().map_err(|e| failed(e.into()))?;
        let now = self.now();
        let keys = &self.inner.keys;
        let issued =
            keys.servers.issue_server(names, &public, now, SERVER_CERTIFICATE_LIFE).map_err(failed)?;
        let mut chain = issued.chain;
        chain.push(keys.root.clone());
        Ok(ServerIdentity { chain, key, not_after: issued.not_after })
    }

    pub(super) fn agents_authority(&self, org: OrgId) -> Result<&Authority, Error> {
        let missing = || Error::internal("no authority for agents", org.to_string());
        self.inner.keys.agents.get(&org).ok_or_else(missing)
    }

    pub(super) fn people_authority(&self, org: OrgId) -> Result<&Authority, Error> {
        let missing = || Error::internal("no authority for people", org.to_string());
        self.inner.keys.people.get(&org).ok_or_else(missing)
    }
}
