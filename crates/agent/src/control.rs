//! The agent's control port: its report and promises for peers, its snapshot for people, its metrics for Prometheus,
//! and the operator's orders, which it puts into the lease store.
//!
//! Changes nothing else: what an order leads to is decided by every region's helm when it reads it there.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use isles_model::{
    OrderRequest, PromiseRequest, RegionName, RegionReport, Snapshot,
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
    promise::{self, Asked},
};

/// Snapshots that may be waited for at once.
pub const SNAPSHOTS_WAITING_MAX: usize = 16;

/// The longest order read, in bytes.
const ORDER_BYTES_MAX: usize = 4 * 1024;
/// The longest request for a promise read, in bytes.
const PROMISE_BYTES_MAX: usize = 4 * 1024;
/// Audit entries in one answer: at most, and when nobody says how many.
const AUDIT_ANSWER_MAX: u32 = 100;

/// How long whoever knows a report waits for another one.
pub(crate) const NEWS_WAIT: Duration = Duration::from_millis(150);
/// How long an answer was kept back for news, in microseconds: no part of the round trip.
pub(crate) const HELD_US: HeaderName = HeaderName::from_static("isles-held-us");

/// What the control port shows.
#[derive(Clone)]
pub struct Control {
    /// The region's own report, as last made.
    pub report: watch::Receiver<RegionReport>,
    /// Asks the steering loop for a snapshot.
    pub snapshots: mpsc::Sender<oneshot::Sender<Snapshot>>,
    /// Asks the steering loop for a promise.
    pub promises: mpsc::Sender<Asked>,
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
        .route(promise::PATH, post(promise).layer(DefaultBodyLimit::max(PROMISE_BYTES_MAX)))
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
    let asked = tokio::time::Instant::now();
    let known = headers.get(header::IF_NONE_MATCH);
    let mut reports = control.report.clone();
    let (tag, report) = loop {
        let report = reports.borrow_and_update().clone();
        let tag = tag(&report);
        if known != Some(&tag) {
            break (tag, report);
        }
        match tokio::time::timeout_at(asked + NEWS_WAIT, reports.changed()).await {
            Ok(Ok(())) => {}
            // Because an answer tells that the region lives, it comes without news too.
            Ok(Err(_)) | Err(_) => break (tag, report),
        }
    };
    let held = HeaderValue::from(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
    ([(header::ETAG, tag), (HELD_US, held)], Json(report)).into_response()
}

/// Names what a report says; it need not tell the same to another version of Isles.
fn tag(report: &RegionReport) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(report).unwrap_or_default());
    HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish())).expect("hexadecimal digits in quotes")
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

/// A peer asks this region not to take over. The answer comes from the helm, which is bound by it by then.
async fn promise(State(control): State<Control>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    if let Err(refused) = control.knows(&headers) {
        return refused;
    }
    let request: PromiseRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, format!("not a request for a promise: {error}\n"))
                .into_response();
        }
    };
    let (reply, answer) = oneshot::channel();
    if control.promises.try_send(Asked { request, reply }).is_err() {
        return unavailable("too many are asking");
    }
    match answer.await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => unavailable("the agent is stopping"),
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

#[cfg(test)]
mod tests {
    use isles_model::{AppReport, DatabaseReport, Epoch, Fact, config::EtcdConfig};

    use super::*;
    use crate::{
        clock,
        probe::{PeerProbe, probe_peer},
    };

    #[tokio::test]
    async fn a_peer_is_told_of_a_change_and_hears_now_and_then_that_nothing_has_changed() {
        let region: RegionName = "eu".parse().unwrap();
        let first = RegionReport {
            region: region.clone(),
            incarnation: 1,
            epoch: Epoch(1),
            database: DatabaseReport::unknown(),
            app: AppReport::default(),
            draining: false,
        };
        let (reports, report) = watch::channel(first.clone());
        let etcd = EtcdConfig { endpoints: vec!["http://127.0.0.1:1".into()], prefix: "t".into(), tls: None };
        let control = Control {
            report,
            snapshots: mpsc::channel(1).0,
            promises: mpsc::channel(1).0,
            meter: Arc::new(Registered::new(&region).unwrap()),
            peer_secret: "secret".into(),
            store: Arc::new(Etcd::new(&etcd).unwrap()),
            region: region.clone(),
            regions: Arc::new([region.clone()]),
        };
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, control, stop.clone()));
        let (facts, mut seen) = mpsc::channel(1);
        let probe = PeerProbe { region, control: address, rtt: Duration::ZERO, secret: "secret".into() };
        tokio::spawn(probe_peer(probe, facts, clock::clock(), stop.clone()));

        for _ in 0..2 {
            assert!(matches!(seen.recv().await, Some(Fact::Peer { report, .. }) if report == first));
        }
        let second = RegionReport { draining: true, ..first };
        reports.send_replace(second.clone());
        while !matches!(seen.recv().await, Some(Fact::Peer { report, .. }) if report == second) {}
        stop.cancel();
    }
}
