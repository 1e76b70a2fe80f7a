//! `/healthz`, `/readyz` and `/metrics`, in the clear.
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Connections that are still open at the end are cut off after so long.
const GRACE: Duration = Duration::from_secs(2);

/// Answers until `stop`. A process that waits for leadership is ready: it is the reserve.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/metrics", get(move || std::future::ready(page(&metrics))));
    let stopped = stop.clone();
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stopped.cancelled_owned());
    tokio::select! {
        ended = serving => ended,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

fn page(metrics: &Metrics) -> impl IntoResponse + use<> {
    let mut text = String::new();
    if encode(&mut text, &metrics.registry()).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
