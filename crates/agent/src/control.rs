//! The agent's control port: its report for peers, its snapshot for people, its metrics for Prometheus.
//!
//! Reads everything and changes nothing.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use isles_model::{RegionReport, Snapshot};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use crate::meter::Registered;

/// Snapshots that may be waited for at once.
pub const SNAPSHOTS_WAITING_MAX: usize = 16;

/// What the control port shows.
#[derive(Clone)]
pub struct Control {
    /// The region's own report, as last made.
    pub report: watch::Receiver<RegionReport>,
    /// Asks the steering loop for a snapshot.
    pub snapshots: mpsc::Sender<oneshot::Sender<Snapshot>>,
    /// The counts.
    pub meter: Arc<Registered>,
    /// What a peer must show.
    pub peer_secret: Arc<str>,
}

/// Serves the control port until stopped.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, control: Control, stop: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/v1/report", get(report))
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(control);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn report(State(control): State<Control>, headers: HeaderMap) -> Response {
    let shown = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    let wanted = format!("Bearer {}", control.peer_secret);
    if !same(shown, wanted.as_bytes()) {
        return (StatusCode::UNAUTHORIZED, "only agents of this application may ask\n").into_response();
    }
    let report = control.report.borrow().clone();
    Json(report).into_response()
}

async fn status(State(control): State<Control>) -> Response {
    let (reply, snapshot) = oneshot::channel();
    if control.snapshots.try_send(reply).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many are asking\n").into_response();
    }
    match snapshot.await {
        Ok(snapshot) => Json(snapshot).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n").into_response(),
    }
}

async fn metrics(State(control): State<Control>) -> Response {
    match control.meter.text() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Compares in a time that does not tell where two texts of one length differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
