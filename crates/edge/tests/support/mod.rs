//! Two regions' edges on real sockets, with small real apps behind them that can be killed.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared by several tests")]

pub mod app;
pub mod relay;

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use isles_edge::{EdgeConfig, EdgeError};
use isles_model::{
    Because, Epoch, Metric, Moment, Plan, RegionName, Writes, ids::Clock, metric::Count, plan::Serving,
    topology::WriteRouting,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Nothing in a test takes longer, on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn name(text: &str) -> RegionName {
    text.parse().unwrap()
}

/// Counts by metric and labels.
#[derive(Default)]
pub struct Counts(Mutex<BTreeMap<(Metric, String), f64>>);

impl Counts {
    pub fn get(&self, metric: Metric, labels: &[&str]) -> f64 {
        self.0.lock().unwrap().get(&(metric, labels.join(","))).copied().unwrap_or_default()
    }

    /// Over all labels.
    pub fn sum(&self, metric: Metric) -> f64 {
        self.0.lock().unwrap().iter().filter(|((one, _), _)| *one == metric).map(|(_, value)| value).sum()
    }
}

impl Count for Counts {
    fn add(&self, metric: Metric, labels: &[&str], amount: u64) {
        assert_eq!(labels.len(), metric.labels().len(), "{metric:?}");
        *self.0.lock().unwrap().entry((metric, labels.join(","))).or_default() += amount as f64;
    }

    fn set(&self, metric: Metric, labels: &[&str], value: f64) {
        assert_eq!(labels.len(), metric.labels().len(), "{metric:?}");
        self.0.lock().unwrap().insert((metric, labels.join(",")), value);
    }

    fn seconds(&self, metric: Metric, labels: &[&str], seconds: f64) {
        assert_eq!(labels.len(), metric.labels().len(), "{metric:?}");
        assert!(seconds >= 0.0);
        *self.0.lock().unwrap().entry((metric, labels.join(","))).or_default() += 1.0;
    }
}

/// An edge under test. Dropped, it is gone at once, as after SIGKILL.
pub struct Region {
    pub address: SocketAddr,
    pub plans: watch::Sender<Plan>,
    pub counts: Arc<Counts>,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<(), EdgeError>>,
}

impl Drop for Region {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Setup {
    pub region: &'static str,
    pub instances: Vec<SocketAddr>,
    pub peers: Vec<(&'static str, SocketAddr)>,
    pub plan: Plan,
    pub hold_writes: Duration,
    pub writes: WriteRouting,
    pub secret: &'static str,
}

impl Setup {
    pub fn new(region: &'static str, instances: &[SocketAddr], plan: Plan) -> Self {
        Self {
            region,
            instances: instances.to_vec(),
            peers: Vec::new(),
            plan,
            hold_writes: DEADLINE,
            writes: WriteRouting::Forward,
            secret: "a secret of the test",
        }
    }

    pub async fn start(self) -> Region {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.start_on(listener)
    }

    pub fn start_on(self, listener: TcpListener) -> Region {
        let address = listener.local_addr().unwrap();
        let (plans, receiver) = watch::channel(self.plan);
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let config = EdgeConfig {
            region: name(self.region),
            listener,
            instances: self.instances,
            peers: self.peers.into_iter().map(|(region, address)| (name(region), address)).collect(),
            writes: self.writes,
            hold_writes: self.hold_writes,
            peer_secret: self.secret.to_owned(),
        };
        let began = Instant::now();
        let clock: Clock = Arc::new(move || Moment(began.elapsed()));
        let task = tokio::spawn(isles_edge::run(config, receiver, counts.clone(), clock, stop.clone()));
        Region { address, plans, counts, stop, task }
    }
}

/// A plan in which all of `regions` (nearest first) are healthy.
pub fn plan(regions: &[&str], instances: usize, writes: Writes) -> Plan {
    let serving = |region: &&str| Serving {
        region: name(region),
        app: true,
        reads: true,
        rtt: Duration::from_millis(1),
        because: Because::Healthy,
    };
    Plan {
        epoch: Epoch(1),
        writes,
        serve: regions.iter().map(serving).collect(),
        instances: (0..instances).collect(),
        ..Plan::starting()
    }
}

pub fn here(epoch: u64) -> Writes {
    Writes::Here { epoch: Epoch(epoch), until: Moment(Duration::from_secs(3600)) }
}

pub fn at(region: &str, epoch: u64) -> Writes {
    Writes::At { region: name(region), epoch: Epoch(epoch) }
}

pub fn nowhere() -> Writes {
    Writes::Nowhere { because: Because::Promoting }
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "shop.example").body(Full::default()).unwrap()
}

pub fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path).header("host", "shop.example").body(Full::from(body.to_owned())).unwrap()
}

/// Sends one request over a connection of its own.
pub async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let response = async {
        let socket = TcpStream::connect(to).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    };
    timeout(DEADLINE, response).await.expect("no answer in time")
}

pub fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

pub fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

/// Waits for a fact.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut fact: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !fact().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(5)).await;
    }
}
