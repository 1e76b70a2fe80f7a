//! One authority, a server and a client for a run, as files that every contender reads.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use culvert_pki::key::KeyPair;
use culvert_pki::pem;
use culvert_pki::tls::{ClientAuth, ClientIdentity, server_config, trusted_client};
use culvert_pki::verify::Roots;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::DefaultTimeProvider;

/// The name in the server's certificate.
pub(crate) const NAME: &str = "localhost";

/// Writes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key`, all P-256.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    for (name, usage) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(folder.join(name).with_extension("pem"), params.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(folder.join(name).with_extension("key"), key.serialize_pem())?;
    }
    Ok(())
}

/// TLS of the side that is dialled, as the product configures it.
pub(crate) fn server(folder: &Path, alpn: &[&[u8]]) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let (chain, key) = identity(folder, "server")?;
    let roots = roots(folder)?;
    let clock = Arc::new(DefaultTimeProvider);
    Ok(Arc::new(server_config(chain, &key, ClientAuth::Optional(&roots), alpn, clock)?))
}

/// TLS of the side that dials, as the product configures it.
pub(crate) fn client(folder: &Path, alpn: &[&[u8]]) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let (chain, key) = identity(folder, "client")?;
    let identity = ClientIdentity { chain: &chain, key: &key };
    let clock = Arc::new(DefaultTimeProvider);
    Ok(Arc::new(trusted_client(&roots(folder)?, Some(identity), alpn, clock)?))
}

/// Whom a client asks for.
pub(crate) fn server_name() -> anyhow::Result<ServerName<'static>> {
    ServerName::try_from(NAME).context("the name of the server")
}

fn roots(folder: &Path) -> anyhow::Result<Roots> {
    Ok(Roots::new(pem::certificates_from_pem(&std::fs::read_to_string(folder.join("ca.pem"))?)?)?)
}

fn identity(folder: &Path, name: &str) -> anyhow::Result<(Vec<CertificateDer<'static>>, KeyPair)> {
    let file = folder.join(name);
    let chain = pem::certificates_from_pem(&std::fs::read_to_string(file.with_extension("pem"))?)?;
    let key = KeyPair::from_pem(&std::fs::read_to_string(file.with_extension("key"))?)?;
    Ok((chain, key))
}
