//! A WebSocket to the controller's public port, through whatever ends TLS on the way.

use std::sync::Arc;

use culvert_pki::tls::{TlsFailure, outer_client};
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{DialError, Phase, Timeouts, Transport};
use crate::websocket;

/// Boxes that end TLS speak this one; HTTP/2 to them would have to be asked for an extended `CONNECT`.
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Opens one to `address`, the controller's `host:port`.
pub(super) async fn websocket(
    transport: Transport,
    address: &str,
    timeouts: &Timeouts,
) -> Result<Transport, DialError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| DialError::WebSocket(format!("{host} is no name that TLS can say")))?;
    let config = outer_client(ALPN, Arc::new(rustls::time_provider::DefaultTimeProvider))
        .map_err(|error| DialError::WebSocket(error.to_string()))?;
    let opening = async {
        let outer = TlsConnector::from(Arc::new(config)).connect(name, transport).await;
        let outer = outer.map_err(|error| {
            let why = TlsFailure::find(&error).map_or_else(|| error.to_string(), |found| found.to_string());
            DialError::WebSocket(format!("TLS with what answers there failed: {why}"))
        })?;
        let host = address.strip_suffix(":443").unwrap_or(address);
        websocket::open(outer, host).await.map_err(|error| DialError::WebSocket(error.to_string()))
    };
    let socket = timeout(timeouts.tls, opening).await.map_err(|_| DialError::Timeout(Phase::WebSocket))??;
    Ok(Transport::WebSocket(Box::new(socket)))
}
