//! Promises between two agents over real control ports: given before the answer leaves, refused while a claim is under
//! way, kept through a restart.

#![allow(clippy::unwrap_used)] // Because a test that cannot go on has to fail.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use isles_agent::{
    clock,
    control::{Control, serve},
    lease::Etcd,
    meter::Registered,
    promise::{Asker, PROMISES_WAITING_MAX},
    steer::{FACTS_WAITING_MAX, Steering},
};
use isles_decide::{Helm, HelmConfig};
use isles_model::{
    Copy, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Fact, LeaseKey, LeaseOrder, LeaseState,
    Lineage, Plan, PromiseRequest, RegionName, Revision, Successor,
    config::EtcdConfig,
    metric::Uncounted,
    topology::{Commit, Pattern},
};
use isles_postgres::Findings;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a passing test does not wait for it.
const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_millis(1_500);
const SECRET: &str = "secret";

fn name(region: &str) -> RegionName {
    region.parse().unwrap()
}

/// The agent of `us`, which follows `eu`. Its lease store is the test: what it puts comes out of `orders`.
struct Node {
    facts: mpsc::Sender<Fact>,
    orders: mpsc::Receiver<LeaseOrder>,
    control: SocketAddr,
    stop: CancellationToken,
}

impl Node {
    async fn start(incarnation: u64) -> Self {
        let config = HelmConfig {
            region: name("us"),
            regions: ["eu", "us"].map(name).to_vec(),
            pattern: Pattern::ReadReplicas,
            may_fail_over: true,
            ttl: TTL,
            margin: TTL * 15 / 100,
            renew_every: TTL / 10,
            patience: TTL / 4,
            max_staleness: Duration::from_secs(2),
            rtts: [(name("eu"), Duration::ZERO)].into(),
            database_grace: Duration::from_secs(1),
            commit: Commit::Async,
            failsafe: true,
            quiet: Duration::from_secs(600),
        };
        let started = clock::now();
        let helm = Helm::new(config, incarnation, started);
        let (facts, facts_seen) = mpsc::channel(FACTS_WAITING_MAX);
        let (orders_sent, orders) = mpsc::channel(4);
        let (report, report_seen) = watch::channel(helm.report(started));
        let (snapshots, snapshots_seen) = mpsc::channel(1);
        let (promises, asked) = mpsc::channel(PROMISES_WAITING_MAX);
        let steering = Steering {
            helm,
            facts: facts_seen,
            plans: watch::channel(Plan::starting()).0,
            orders: orders_sent,
            asks: watch::channel(None).0,
            asked,
            report,
            closely: watch::channel(false).0,
            snapshots: snapshots_seen,
            findings: Findings::default(),
            journal: None,
            meter: Arc::new(Uncounted),
            clock: clock::clock(),
            started,
            stranded: Arc::default(),
            standing: <_>::default(),
            answered: None,
        };
        tokio::spawn(steering.run());
        let etcd = EtcdConfig { endpoints: vec!["http://127.0.0.1:1".into()], prefix: "t".into(), tls: None };
        let control = Control {
            report: report_seen,
            snapshots,
            promises,
            meter: Arc::new(Registered::new(&name("us")).unwrap()),
            peer_secret: SECRET.into(),
            store: Arc::new(Etcd::new(&etcd).unwrap()),
            region: name("us"),
            regions: Arc::new(["eu", "us"].map(name)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, control, stop.clone()));
        let node = Self { facts, orders, control: address, stop };
        node.facts.send(Fact::Database(complete_copy())).await.unwrap();
        node.facts.send(held_by_eu()).await.unwrap();
        node
    }

    /// The next claim, and when it was put out.
    async fn claim(&mut self) -> Instant {
        let order = tokio::time::timeout(PATIENCE, self.orders.recv()).await.expect("a claim").unwrap();
        assert_eq!((order.value.holder, order.value.epoch), (name("us"), Epoch(2)));
        Instant::now()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn complete_copy() -> DatabaseReport {
    let role = DatabaseRole::Replica { writer: name("eu"), epoch: Epoch(1), copy: Copy::Complete };
    let lineage = Lineage { epoch: Epoch(1), wrote: false };
    DatabaseReport { state: DatabaseState::Up, role, lineage, ..DatabaseReport::unknown() }
}

fn held_by_eu() -> Fact {
    let key = LeaseKey {
        epoch: Epoch(1),
        holder: name("eu"),
        seq: 7,
        state: LeaseState::Held,
        ttl: TTL,
        successor: Successor::Any,
        unrest: 0,
    };
    Fact::LeaseSeen { key: Some(key), revision: Revision(9) }
}

/// The part of the agent of `eu` that asks for promises.
struct Holder {
    asks: watch::Sender<Option<PromiseRequest>>,
    consents: mpsc::Receiver<Fact>,
    meter: Arc<Registered>,
    stop: CancellationToken,
}

impl Holder {
    fn of(node: &Node, secret: &str) -> Self {
        let (asks, asks_seen) = watch::channel(None);
        let (facts, consents) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let meter = Arc::new(Registered::new(&name("eu")).unwrap());
        let asker = Asker {
            region: name("us"),
            control: node.control,
            rtt: Duration::from_secs(5),
            secret: secret.into(),
            asks: asks_seen,
            facts,
            meter: meter.clone(),
        };
        tokio::spawn(asker.run(stop.clone()));
        Self { asks, consents, meter, stop }
    }

    fn ask(&self) -> PromiseRequest {
        let request =
            PromiseRequest { holder: name("eu"), epoch: Epoch(1), ttl: TTL, asked_at: clock::now() };
        self.asks.send_replace(Some(request.clone()));
        request
    }

    /// Asks, and waits until that came to this.
    async fn comes_to(&self, outcome: &str) {
        self.ask();
        let series = format!("isles_promises_total{{peer=\"us\",reason=\"{outcome}\",region=\"eu\"}} 1");
        let counted = async {
            while !self.meter.text().unwrap().contains(&series) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{:?}", self.meter.text()));
    }

    /// Asks, and waits for the consent.
    async fn promised(&mut self) -> Instant {
        let before = Instant::now();
        let request = self.ask();
        let consent = tokio::time::timeout(PATIENCE, self.consents.recv()).await.expect("a consent");
        let wanted = Fact::Promised { region: name("us"), epoch: Epoch(1), asked_at: request.asked_at };
        assert_eq!(consent, Some(wanted));
        before
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_region_that_keeps_promising_claims_nothing_until_the_last_promise_ends() {
    let mut node = Node::start(1).await;
    let mut holder = Holder::of(&node, SECRET);
    let begun = Instant::now();
    let mut last = begun;
    while begun.elapsed() < TTL * 2 {
        last = holder.promised().await;
        assert!(node.orders.is_empty(), "a claim in spite of a promise");
        tokio::time::sleep(TTL / 10).await;
    }
    let claimed = node.claim().await;
    assert!(claimed.duration_since(last) >= TTL, "{:?}", claimed.duration_since(last));
}

#[tokio::test]
async fn a_restarted_agent_keeps_the_promise_that_it_does_not_remember() {
    let mut node = Node::start(1).await;
    let mut holder = Holder::of(&node, SECRET);
    let last = holder.promised().await;
    drop(node);
    node = Node::start(2).await;
    let claimed = node.claim().await;
    assert!(claimed.duration_since(last) >= TTL, "{:?}", claimed.duration_since(last));
}

#[tokio::test]
async fn a_region_whose_claim_is_under_way_promises_nothing() {
    let mut node = Node::start(1).await;
    node.claim().await;
    // Nobody answers the claim, so for all that the region knows it may be stored at any moment.
    Holder::of(&node, SECRET).comes_to("refused").await;
    Holder::of(&node, "not the secret").comes_to("silent").await;
}
