//! The runner's own HTTP: `/livez`, `/readyz`, `/status`, `/metrics`.
//!
//! It tells nothing that is secret and changes nothing, so it asks nobody who they are.
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use culvert_resources::instance::InstanceStatus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::engine::{Engine, Sample};

/// How long the engine may take to tell its numbers.
const NUMBERS: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Door {
    board: Board,
    engine: Arc<dyn Engine>,
}

/// Serves until the token is cancelled.
///
/// # Errors
/// What the listener says.
pub(crate) async fn serve(
    listener: TcpListener,
    board: Board,
    engine: Arc<dyn Engine>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(Door { board, engine });
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn live(State(door): State<Door>) -> Response {
    if door.board.live() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the runner is stuck\n").into_response()
}

async fn ready(State(door): State<Door>) -> Response {
    let status = door.board.status();
    if status.healthy {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let why = status.problem.map_or(status.doing, |why| why.message);
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response()
}

async fn status(State(door): State<Door>) -> Json<InstanceStatus> {
    Json(door.board.status())
}

async fn metrics(State(door): State<Door>) -> Response {
    let mut samples = own(&door.board.status());
    if let Some(now) = door.board.situation() {
        match tokio::time::timeout(NUMBERS, door.engine.metrics(&now)).await {
            Ok(Ok(more)) => samples.extend(more),
            Ok(Err(error)) => tracing::debug!(%error, "the engine tells no numbers"),
            Err(_) => tracing::debug!("the engine takes too long to tell its numbers"),
        }
    }
    let kind = [(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, text(&samples)).into_response()
}

/// What is known of any engine.
fn own(status: &InstanceStatus) -> Vec<Sample> {
    let flag = f64::from;
    let number = |value: Option<i64>| value.map(|value| value as f64);
    let told = [
        (
            "culvert_instance_healthy",
            "Whether the last probe succeeded.",
            Some(flag(u8::from(status.healthy))),
        ),
        (
            "culvert_instance_primary",
            "Whether it takes writes.",
            Some(flag(u8::from(status.role == "primary"))),
        ),
        ("culvert_instance_lag_bytes", "Bytes behind the primary.", number(status.lag_bytes)),
        ("culvert_instance_volume_bytes", "Bytes of the volume.", number(status.volume_bytes)),
        ("culvert_instance_volume_free_bytes", "Free bytes of the volume.", number(status.free_bytes)),
    ];
    let sample = |(name, help, value): (&'static str, &'static str, Option<f64>)| {
        Some(Sample { name, help, counter: false, labels: Vec::new(), value: value? })
    };
    told.into_iter().filter_map(sample).collect()
}

/// Prometheus text format.
fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    let mut last = "";
    for sample in samples {
        if sample.name != last {
            let kind = if sample.counter { "counter" } else { "gauge" };
            // Writing into a string does not fail.
            let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {kind}", sample.name, sample.help);
            last = sample.name;
        }
        let labels: Vec<String> =
            sample.labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{}{labels} {}", sample.name, sample.value);
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_prometheus_reads_them() {
        let sample = |labels, value| Sample { name: "x_total", help: "Xs.", counter: true, labels, value };
        let told = text(&[sample(vec![], 1.0), sample(vec![("kind", "a\"b".to_owned())], 2.5)]);
        assert_eq!(
            told,
            "# HELP x_total Xs.\n# TYPE x_total counter\nx_total 1\nx_total{kind=\"a\\\"b\"} 2.5\n"
        );
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let told = text(&own(&InstanceStatus { free_bytes: Some(7), ..InstanceStatus::default() }));
        assert!(told.contains("culvert_instance_volume_free_bytes 7\n"));
        assert!(!told.contains("lag_bytes"));
    }
}
