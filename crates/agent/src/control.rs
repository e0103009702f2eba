//! The agent's control port: its report for peers, its snapshot for people, its metrics for Prometheus, and the
//! operator's orders, which it puts into the lease store.
//!
//! Changes nothing else: what an order leads to is decided by every region's helm when it reads it there.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use isles_model::{
    OrderRequest, RegionName, RegionReport, Snapshot,
    orders::{WHO_BYTES_MAX, WHY_BYTES_MAX},
};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    lease::{Chain, Etcd, Stored},
    meter::Registered,
};

/// Snapshots that may be waited for at once.
pub const SNAPSHOTS_WAITING_MAX: usize = 16;

/// The longest order read, in bytes.
const ORDER_BYTES_MAX: usize = 4 * 1024;
/// Audit entries in one answer: at most, and when nobody says how many.
const AUDIT_ANSWER_MAX: u32 = 100;

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
    /// Where orders are kept.
    pub store: Arc<Etcd>,
    /// The region it is the port of.
    pub region: RegionName,
    /// The regions that an order may name.
    pub regions: Arc<[RegionName]>,
}

/// Serves the control port until stopped.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, control: Control, stop: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/v1/report", get(report))
        .route("/v1/status", get(status))
        .route("/v1/orders", get(orders).post(order).layer(DefaultBodyLimit::max(ORDER_BYTES_MAX)))
        .route("/v1/audit", get(audit))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(control);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn report(State(control): State<Control>, headers: HeaderMap) -> Response {
    if let Err(refused) = control.knows(&headers) {
        return refused;
    }
    let report = control.report.borrow().clone();
    Json(report).into_response()
}

impl Control {
    /// Lets through who shows the application's secret.
    #[expect(clippy::result_large_err, reason = "the error is the answer itself")]
    fn knows(&self, headers: &HeaderMap) -> Result<(), Response> {
        let shown = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let wanted = format!("Bearer {}", self.peer_secret);
        if same(shown, wanted.as_bytes()) {
            return Ok(());
        }
        Err((StatusCode::UNAUTHORIZED, "only agents of this application may ask\n").into_response())
    }
}

async fn orders(State(control): State<Control>, headers: HeaderMap) -> Response {
    if let Err(refused) = control.knows(&headers) {
        return refused;
    }
    match control.store.read().await {
        Ok(Stored { orders: Some(seen), .. }) => Json(seen.orders).into_response(),
        Ok(Stored { orders: None, .. }) => {
            unavailable("the standing orders in the lease store are not understood")
        }
        Err(error) => unavailable(Chain(&error)),
    }
}

async fn order(State(control): State<Control>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    if let Err(refused) = control.knows(&headers) {
        return refused;
    }
    let bad = |why: String| (StatusCode::BAD_REQUEST, why).into_response();
    let request: OrderRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return bad(format!("not an order: {error}\n")),
    };
    if request.who.len() > WHO_BYTES_MAX || request.why.len() > WHY_BYTES_MAX {
        return bad(format!(
            "an author has at most {WHO_BYTES_MAX} bytes, a reason at most {WHY_BYTES_MAX}\n"
        ));
    }
    if let Some(region) = request.change.region().filter(|region| !control.regions.contains(region)) {
        return bad(format!("there is no region {region}\n"));
    }
    match control.store.order(&request, &control.region).await {
        Ok(answer) => {
            if let Some(number) = answer.entry {
                info!(number, order = ?request.change, who = request.who, "Took an operator's order.");
            }
            Json(answer).into_response()
        }
        Err(error) => unavailable(Chain(&error)),
    }
}

/// How much of the audit is asked for.
#[derive(Deserialize)]
struct Last {
    last: Option<u32>,
}

async fn audit(
    State(control): State<Control>,
    headers: HeaderMap,
    Query(Last { last }): Query<Last>,
) -> Response {
    if let Err(refused) = control.knows(&headers) {
        return refused;
    }
    match control.store.audit(last.unwrap_or(AUDIT_ANSWER_MAX).clamp(1, AUDIT_ANSWER_MAX)).await {
        Ok(entries) => Json(entries).into_response(),
        Err(error) => unavailable(Chain(&error)),
    }
}

fn unavailable(why: impl std::fmt::Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
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
