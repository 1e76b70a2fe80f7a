//! What keeps a call alive while its bytes flow, and ends it when it is dropped.

use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::stream::{Registration, SharedDuplex};

/// Counted among a session's open calls until it is dropped.
pub(crate) trait OpenCall: Send + Sync + std::fmt::Debug {}

/// The caller's hold on a call.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) duplex: SharedDuplex,
    /// The task that sends the request's body.
    pub(crate) pump: Option<AbortHandle>,
    pub(crate) registration: Option<Registration>,
    /// Whether dropping it ends the call, as at the controller; at the agent only
    /// the reading of it ends.
    pub(crate) owner: bool,
    _open: Option<Arc<dyn OpenCall>>,
}

impl Holder {
    pub(crate) fn new(duplex: SharedDuplex, owner: bool, open: Option<Arc<dyn OpenCall>>) -> Self {
        Self { duplex, pump: None, registration: None, owner, _open: open }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        let mut duplex = self.duplex.lock();
        if self.owner {
            duplex.abandon();
        } else {
            duplex.release_reader();
        }
    }
}
