//! The server's end: one configuration per door.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::{Clock, TlsConfigError, provider};
use crate::key::KeyPair;
use crate::verify::Roots;

/// What a door does about client certificates.
#[derive(Debug, Clone, Copy)]
pub enum ClientAuth<'r> {
    /// Asks for none. Sessions may be resumed.
    None,
    /// Asks for one and lets a client without one in. One that is presented must
    /// be valid and lead to these roots, or the handshake fails; whose it is,
    /// [`crate::verify::verify_peer`] says. Sessions are never resumed.
    Optional(&'r Roots),
}

/// The configuration of a door. `chain` is leaf, intermediate and root: with the
/// root in it, a client can check a pin. Protocol names in order of preference.
///
/// For new certificates make a new configuration; connections that are open keep
/// theirs.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    client_auth: ClientAuth<'_>,
    alpn: &[&[u8]],
    clock: Clock,
) -> Result<ServerConfig, TlsConfigError> {
    let builder = ServerConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match client_auth {
        ClientAuth::None => builder.with_no_client_auth().with_single_cert(chain, key.for_rustls())?,
        ClientAuth::Optional(roots) => {
            let roots = Arc::new(roots.store().clone());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsConfigError::Verifier(error.to_string()))?;
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key.for_rustls())?
        }
    };
    if matches!(client_auth, ClientAuth::Optional(_)) {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
