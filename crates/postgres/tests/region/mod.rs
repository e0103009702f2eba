//! A region under test: a real cluster, the actuator at work on it, and a hand that writes its plans.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test's tools: each binary uses a part, and a failure ends it"
)]

pub mod cluster;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::Cluster;
use isles_model::{
    Because, Copy, DatabaseOrder, DatabaseReport, DatabaseRole, Epoch, EpochSecret, Fact, Lsn, Moment, Plan,
    RegionName, Writes, ids::Clock, metric::Uncounted, topology::Commit,
};
use isles_postgres::{
    Findings, PostgresConfig,
    gate::{self, Account, GateConfig, GateLimits},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

/// Generous: the machines that run these tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the agents of these tests share.
pub const SECRET: &str = "shared by the agents of these tests";

pub fn name(region: &str) -> RegionName {
    region.parse().unwrap()
}

pub struct Region {
    pub name: RegionName,
    pub cluster: Cluster,
    pub findings: Findings,
    pub reports: watch::Receiver<DatabaseReport>,
    /// Where the commits of a database that died end, once read.
    pub commits_end: watch::Receiver<Option<Lsn>>,
    clock: Clock,
    plans: watch::Sender<Plan>,
    stop: CancellationToken,
    agent: Option<JoinHandle<()>>,
    config: PostgresConfig,
}

/// Starts regions that know each other.
pub async fn regions(names: &[&str]) -> Vec<Region> {
    regions_excluding(names, &[]).await
}

pub async fn regions_excluding(names: &[&str], exclude: &[&str]) -> Vec<Region> {
    // `RUST_LOG=isles_postgres=debug` shows what the agents do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .try_init();
    let starting: Vec<_> = names.iter().map(|_| tokio::task::spawn_blocking(Cluster::start)).collect();
    let mut clusters = Vec::new();
    for cluster in starting {
        clusters.push(cluster.await.unwrap());
    }
    let addresses: BTreeMap<RegionName, SocketAddr> =
        names.iter().zip(&clusters).map(|(region, cluster)| (name(region), cluster.address())).collect();
    names
        .iter()
        .zip(clusters)
        .map(|(region, cluster)| {
            let mut peers = addresses.clone();
            peers.remove(&name(region));
            Region::start(name(region), cluster, peers, exclude)
        })
        .collect()
}

impl Region {
    fn start(
        region: RegionName,
        cluster: Cluster,
        peers: BTreeMap<RegionName, SocketAddr>,
        exclude: &[&str],
    ) -> Self {
        let config = PostgresConfig {
            region: region.clone(),
            database: cluster.config(),
            secret: EpochSecret::new(SECRET),
            peers,
            commit: Commit::Remote,
            exclude_tables: exclude.iter().map(|table| (*table).to_owned()).collect(),
            ledger_path: cluster.file("ledger.jsonl"),
            acknowledge: watch::channel(gate::Acknowledge::Open).0,
            coverage: isles_postgres::Coverage::new(),
            closely: watch::channel(false).1,
            stranded: Arc::default(),
        };
        let begun = Instant::now();
        let (plans, _) = watch::channel(Plan::starting());
        let (_, reports) = watch::channel(DatabaseReport::unknown());
        let mut started = Self {
            name: region,
            cluster,
            findings: Findings::default(),
            reports,
            commits_end: watch::channel(None).1,
            clock: Arc::new(move || Moment(begun.elapsed())),
            plans,
            stop: CancellationToken::new(),
            agent: None,
            config,
        };
        started.start_agent();
        started
    }

    pub fn start_agent(&mut self) {
        let (facts_in, mut facts) = mpsc::channel(16);
        let (report_in, reports) = watch::channel(DatabaseReport::unknown());
        self.stop = CancellationToken::new();
        self.reports = reports;
        let (end_in, commits_end) = watch::channel(None);
        self.commits_end = commits_end;
        tokio::spawn(async move {
            while let Some(fact) = facts.recv().await {
                match fact {
                    Fact::Database(report) => {
                        report_in.send_replace(report);
                    }
                    Fact::CommitsEnd { position } => {
                        end_in.send_replace(Some(position));
                    }
                    _ => {}
                }
            }
        });
        self.agent = Some(tokio::spawn(isles_postgres::run(
            self.config.clone(),
            self.plans.subscribe(),
            facts_in,
            self.findings.clone(),
            Arc::new(Uncounted),
            self.clock.clone(),
            self.stop.clone(),
        )));
    }

    /// Ends the agent at once, as SIGKILL would: nothing is fenced, nothing is finished.
    pub async fn kill_agent(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.abort();
        let _ = agent.await;
    }

    fn plan(&self, epoch: u64, database: DatabaseOrder) {
        self.plans.send_replace(Plan { epoch: Epoch(epoch), database, ..Plan::starting() });
    }

    pub fn order_write(&self, epoch: u64) {
        self.order_write_for(epoch, Duration::from_secs(3_600));
    }

    pub fn order_write_for(&self, epoch: u64, right: Duration) {
        let until = (self.clock)().plus(right);
        self.plan(
            epoch,
            DatabaseOrder::Write { epoch: Epoch(epoch), until, commit: isles_model::CommitOrder::default() },
        );
    }

    /// A right of an hour whose commits wait for these regions.
    pub fn order_write_waiting(&self, epoch: u64, standbys: &[&str]) {
        self.order_write_bounded(epoch, standbys, None);
    }

    /// The same, or whose acknowledgements wait for them within a bound.
    pub fn order_write_bounded(&self, epoch: u64, standbys: &[&str], bound: Option<Duration>) {
        let until = (self.clock)().plus(Duration::from_secs(3_600));
        let standbys = standbys.iter().map(|region| name(region)).collect();
        let commit = isles_model::CommitOrder { standbys, bound };
        self.plan(epoch, DatabaseOrder::Write { epoch: Epoch(epoch), until, commit });
    }

    pub fn order_follow(&self, writer: &str, epoch: u64) {
        self.plan(epoch, DatabaseOrder::Follow { writer: name(writer), epoch: Epoch(epoch) });
    }

    pub fn order_fence(&self, epoch: u64) {
        self.plan(epoch, DatabaseOrder::Fence { because: Because::LeaseLapsed });
    }

    pub async fn write(&mut self, epoch: u64) {
        self.order_write(epoch);
        self.reported(|report| report.role == DatabaseRole::Writer { epoch: Epoch(epoch) }).await;
    }

    pub async fn follow(&mut self, writer: &str, epoch: u64) {
        self.order_follow(writer, epoch);
        self.complete(writer, epoch).await;
    }

    pub async fn complete(&mut self, writer: &str, epoch: u64) {
        let role = DatabaseRole::Replica { writer: name(writer), epoch: Epoch(epoch), copy: Copy::Complete };
        self.reported(|report| report.role == role).await;
    }

    pub async fn fence(&mut self, epoch: u64) {
        self.order_fence(epoch);
        self.reported(|report| report.role == DatabaseRole::Fenced).await;
    }

    pub async fn reported(&mut self, fits: impl FnMut(&DatabaseReport) -> bool) -> DatabaseReport {
        if let Ok(Ok(report)) = tokio::time::timeout(PATIENCE, self.reports.wait_for(fits)).await {
            return report.clone();
        }
        let last = self.reports.borrow().clone();
        panic!("{}: last {last:?}; findings {:?}; log:\n{}", self.name, self.findings, self.cluster.log())
    }

    /// Opens gates in front of the database, for an epoch and an hour. They are shut when the guard is dropped.
    pub async fn gates(&self, epoch: u64) -> (SocketAddr, tokio_util::sync::DropGuard) {
        let listener = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (write, read, peer) = (listener().await, listener().await, listener().await);
        let address = write.local_addr().unwrap();
        let database = &self.config.database;
        let account = |name: &str, password: &str| Account { name: name.into(), password: password.into() };
        let config = GateConfig {
            region: self.name.clone(),
            write,
            read,
            peer,
            socket: database.socket_dir.join(format!(".s.PGSQL.{}", database.port)),
            peers: BTreeMap::new(),
            app: account(&database.app_user, &database.app_password),
            secret: EpochSecret::new(SECRET),
            reader: account(&database.read_user, &database.read_password),
            acknowledge: self.config.acknowledge.subscribe(),
            coverage: self.config.coverage.clone(),
            hold: PATIENCE,
            limits: GateLimits::default(),
        };
        let until = (self.clock)().plus(Duration::from_secs(3_600));
        let writes = Writes::Here { epoch: Epoch(epoch), until };
        let (plans, plan) = watch::channel(Plan { epoch: Epoch(epoch), writes, ..Plan::starting() });
        let (clock, stop) = (self.clock.clone(), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            gate::run(config, plan, clock, Arc::new(Uncounted), stop).await;
            drop(plans);
        });
        (address, guard)
    }

    /// A session of the app's through a gate.
    pub async fn through(&self, gate: SocketAddr) -> Client {
        let database = &self.config.database;
        let mut target = tokio_postgres::Config::new();
        target.host(gate.ip().to_string()).port(gate.port()).dbname(&database.name);
        target.user(&database.app_user).password(&database.app_password);
        let (client, connection) = target.connect(NoTls).await.unwrap();
        tokio::spawn(async move { connection.await.ok() });
        client
    }

    /// A session as the superuser.
    pub async fn admin(&self) -> Client {
        self.session("isles", None).await.unwrap()
    }

    /// A session of the app's role past the gates, under the credential of the epoch that the door was opened for.
    pub async fn app(&self) -> Result<Client, tokio_postgres::Error> {
        let told =
            self.value("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'app'");
        let epoch =
            told.await.strip_prefix("isles: epoch ").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        self.app_of(epoch).await
    }

    /// The same under the credential of any epoch.
    pub async fn app_of(&self, epoch: u64) -> Result<Client, tokio_postgres::Error> {
        self.app_with(&EpochSecret::new(SECRET).app_password(Epoch(epoch))).await
    }

    /// The same with any password.
    pub async fn app_with(&self, password: &str) -> Result<Client, tokio_postgres::Error> {
        self.session("app", Some(password)).await
    }

    /// What the app calls its password.
    pub fn app_password(&self) -> &str {
        &self.config.database.app_password
    }

    pub async fn reader(&self) -> Client {
        self.session("reader", Some(&self.config.database.read_password)).await.unwrap()
    }

    async fn session(&self, user: &str, password: Option<&str>) -> Result<Client, tokio_postgres::Error> {
        let database = &self.config.database;
        let mut target = tokio_postgres::Config::new();
        target.host_path(&database.socket_dir).port(database.port).user(user).dbname(&database.name);
        if let Some(password) = password {
            target.password(password);
        }
        let (client, connection) = target.connect(NoTls).await?;
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    }

    /// Runs statements as the app.
    pub async fn run(&self, sql: &str) {
        self.app().await.unwrap().batch_execute(sql).await.unwrap();
    }

    /// One value, as text, as the superuser sees it; an error is its text.
    pub async fn value(&self, sql: &str) -> String {
        let Ok(client) = self.session("isles", None).await else { return "no session".into() };
        match client.simple_query(sql).await {
            Ok(messages) => messages
                .iter()
                .find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                    _ => None,
                })
                .unwrap_or_else(|| "no row".into()),
            Err(error) => error.as_db_error().map_or(error.to_string(), |db| db.message().to_owned()),
        }
    }

    /// Waits until a query says so.
    pub async fn shows(&self, sql: &str, expect: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.value(sql).await;
            if value == expect {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{}: `{sql}` says {value:?}, not {expect:?}; findings {:?}; log:\n{}",
                self.name,
                self.findings,
                self.cluster.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn ledger(&self) -> std::path::PathBuf {
        self.config.ledger_path.clone()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(agent) = self.agent.take() {
            agent.abort();
        }
    }
}
