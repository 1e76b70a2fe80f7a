//! The way to the controller: proxy or not, whom to trust, who to be.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use culvert_pki::name::TrustDomain;
use culvert_pki::pem::certificates_from_pem;
use culvert_pki::tls::{self, ClientIdentity, TlsConfigError, TlsFailure};
use culvert_pki::token::JoinToken;
use culvert_tunnel::{
    self as tunnel, DialError, Dialer, Limits, Link, Phase, Proxy, ProxyCredentials, Timeouts, Via,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::carrier::Known;
use crate::causes::{Cause, Remedy, chain};
use crate::config::{Carrier, HostPort, ProxySettings, Settings};
use crate::identity::Identity;

/// The one protocol spoken with the controller.
const ALPN: &[&[u8]] = &[b"h2"];

/// How to reach the controller. It holds no connection.
#[derive(Debug)]
pub struct Way {
    controller: HostPort,
    domain: TrustDomain,
    proxy: Option<Proxy>,
    carrier: Carrier,
    known: Mutex<Known>,
}

impl Way {
    /// Takes the way out of the settings.
    ///
    /// # Errors
    /// A cause when the proxy's settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Way, Cause> {
        let proxy = settings.proxy.as_ref().map(proxy).transpose()?;
        Ok(Way {
            controller: settings.controller.clone(),
            domain: settings.domain.clone(),
            proxy,
            carrier: settings.carrier,
            known: Mutex::default(),
        })
    }

    /// The controller's trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// How it goes, for people to see.
    pub fn route(&self) -> String {
        let base = if self.proxy.is_some() { "proxy" } else { "direct" };
        let known = self.known();
        match (known.first(self.carrier, Instant::now()), known.why()) {
            (Via::Direct, _) => base.to_owned(),
            (Via::WebSocket, Some(why)) => format!("{base}, inside a WebSocket: {why}"),
            (Via::WebSocket, None) => format!("{base}, inside a WebSocket"),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for redeeming a token: nothing is known but the pins in it.
    ///
    /// # Errors
    /// The cause.
    pub async fn connect_pinned(&self, token: &JoinToken, limits: Limits) -> Result<Link, Cause> {
        link(self.dial_pinned(token).await?, limits).await
    }

    /// Dials and checks the controller's key, and says nothing to it.
    ///
    /// # Errors
    /// The cause.
    pub async fn probe(&self, token: &JoinToken) -> Result<(), Cause> {
        self.dial_pinned(token).await.map(drop)
    }

    /// A connection that shows the agent's certificate.
    ///
    /// # Errors
    /// The cause.
    pub async fn connect(&self, identity: &Identity, limits: Limits) -> Result<Link, Cause> {
        let shown = ClientIdentity { chain: &identity.chain, key: &identity.key };
        let tls = tls::trusted_client(&identity.roots, Some(shown), ALPN, clock()).map_err(bad_tls)?;
        link(self.dial(&self.domain.agents_server_name(), tls).await?, limits).await
    }

    /// A connection that shows no certificate, for an agent whose own expired;
    /// and the name of its TLS session for the proof (RFC 9266).
    ///
    /// # Errors
    /// The cause.
    pub async fn connect_bare(&self, identity: &Identity, limits: Limits) -> Result<(Link, [u8; 32]), Cause> {
        let tls = tls::trusted_client(&identity.roots, None, ALPN, clock()).map_err(bad_tls)?;
        let carrier = self.dial(&self.domain.agents_server_name(), tls).await?;
        let binding =
            carrier.exporter().map_err(|error| Cause::tls(&TlsFailure::Protocol(error.to_string())))?;
        Ok((link(carrier, limits).await?, binding))
    }

    async fn dial_pinned(&self, token: &JoinToken) -> Result<tunnel::Carrier, Cause> {
        let tls = tls::pinned_client(&token.pins(), ALPN, clock()).map_err(bad_tls)?;
        self.dial(&self.domain.enrolment_server_name(&token.id()), tls).await
    }

    async fn dial(&self, server_name: &str, tls: ClientConfig) -> Result<tunnel::Carrier, Cause> {
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| Cause::tls(&TlsFailure::Protocol(format!("{server_name} is no server name"))))?;
        let mut dialer = Dialer {
            address: self.controller.to_string(),
            server_name,
            tls: Arc::new(tls),
            proxy: self.proxy.clone(),
            via: self.known().first(self.carrier, Instant::now()),
            timeouts: Timeouts::default(),
        };
        let error = match dialer.dial().await {
            Ok(carrier) => return Ok(carrier),
            Err(error) => error,
        };
        let cause = self.cause(&error);
        if !Known::second(self.carrier, dialer.via, &error) {
            self.known().forget();
            return Err(cause);
        }
        dialer.via = Via::WebSocket;
        match dialer.dial().await {
            Ok(carrier) => {
                tracing::info!(why = cause.why, "the straight way is not open, a WebSocket goes through");
                self.known().learn(cause.why, Instant::now());
                Ok(carrier)
            }
            Err(second) => {
                let why = format!("{}; and inside a WebSocket: {}", cause.why, chain(&second));
                Err(Cause { why, ..cause })
            }
        }
    }

    fn cause(&self, error: &DialError) -> Cause {
        let why = match error {
            DialError::Tls(failure) => return Cause::tls(failure),
            // Its source says more than it does.
            other => chain(other),
        };
        let (what, next) = match error {
            DialError::Dns { .. } | DialError::Timeout(Phase::Dns) => (
                format!("the name {} cannot be found", self.dialled()),
                "check the name and this machine's DNS server",
            ),
            DialError::Connect { .. } | DialError::Timeout(Phase::Connect) => (
                format!("{} cannot be reached", self.dialled()),
                "let connections to this address and port out; the agent needs no other",
            ),
            DialError::ProxyAuth => (
                "the proxy refuses the agent's credentials".to_owned(),
                "give user and password by --proxy-credentials-file",
            ),
            DialError::ProxyRefused { .. } => (
                format!("the proxy does not let the agent through to {}", self.controller),
                "allow CONNECT to this address and port at the proxy",
            ),
            DialError::ProxyTls(_) => (
                "the proxy's own certificate is not trusted".to_owned(),
                "give the certificate of the proxy's issuer by --proxy-ca-file",
            ),
            DialError::ProxyInvalid(_) | DialError::ProxyBroken(_) | DialError::Timeout(Phase::Proxy) => {
                ("the proxy does not work as one".to_owned(), "check --proxy, or HTTPS_PROXY and NO_PROXY")
            }
            DialError::WebSocket(_) | DialError::Timeout(Phase::WebSocket) => (
                format!("no WebSocket to {} is opened", self.controller),
                "let WebSockets (HTTP/1.1 upgrades) through at what ends TLS there, or set --carrier direct",
            ),
            _ => (
                "the TLS handshake with the controller broke off".to_owned(),
                "check that nothing between agent and controller ends TLS connections",
            ),
        };
        Cause::new(error.code(), what, why, next)
    }

    /// Whom the agent dials: the proxy if there is one.
    fn dialled(&self) -> String {
        match self.proxy.as_ref().and_then(|proxy| proxy.uri.authority()) {
            Some(proxy) => format!("{proxy} (the proxy)"),
            None => self.controller.to_string(),
        }
    }
}

fn clock() -> tls::Clock {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}

async fn link(carrier: tunnel::Carrier, limits: Limits) -> Result<Link, Cause> {
    Link::start(carrier, limits).await.map_err(|error| {
        let next = "check that nothing between agent and controller changes the connection";
        Cause::new("protocol", "the connection to the controller broke off at its start", chain(&error), next)
    })
}

fn proxy(settings: &ProxySettings) -> Result<Proxy, Cause> {
    let wrong = |why: String| {
        Cause::new("proxy_invalid", "the proxy's settings cannot be used", why, "check --proxy")
            .with(Remedy::GiveUp)
    };
    let scheme = if settings.tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}", settings.address)
        .parse()
        .map_err(|_| wrong("it is no address".to_owned()))?;
    let credentials = settings
        .credentials
        .as_ref()
        .map(|(user, password)| ProxyCredentials { user: user.clone(), password: password.clone() });
    let roots = settings.ca_pem.as_deref().map_or(Ok(Vec::new()), certificates_from_pem);
    Ok(Proxy { uri, credentials, roots: roots.map_err(|error| wrong(error.to_string()))? })
}

fn bad_tls(error: TlsConfigError) -> Cause {
    let next = "report this: the stored identity does not make a TLS client";
    Cause::new("state", "the agent's own TLS settings cannot be made", error.to_string(), next)
        .with(Remedy::GiveUp)
}
