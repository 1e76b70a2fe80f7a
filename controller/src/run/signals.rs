//! A controller as a process: it runs until a signal stops it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Listeners, RunError, run};
use crate::config::Config;

/// Binds the sockets and runs until SIGTERM or SIGINT, then for at most the grace time.
pub async fn serve(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let listeners = Listeners::bind(&config).await?;
    let shutdown = CancellationToken::new();
    let mut running = Box::pin(run(config, listeners, shutdown.clone()));
    tokio::select! {
        ended = &mut running => return ended,
        _ = terminate.recv() => shutdown.cancel(),
        _ = interrupt.recv() => shutdown.cancel(),
    }
    running.await
}
