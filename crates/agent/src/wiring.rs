//! Joins one region's helm, probes and actuators, and takes them down in order.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use isles_decide::{Helm, HelmConfig};
use isles_edge::EdgeConfig;
use isles_model::{
    AgentConfig, Because, DatabaseOrder, DatabaseRole, EpochSecret, Fact, LeaseOrder, Meter, Plan,
    RegionName, RegionReport, Snapshot, Writes,
};
use isles_postgres::{
    Coverage, Findings, PostgresConfig,
    gate::{Account, Acknowledge, GateConfig, GateLimits},
};
use rustix::fs::{FlockOperation, flock};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock,
    control::{self, Control, SNAPSHOTS_WAITING_MAX},
    journal::Journal,
    lease::{self, Etcd},
    meter::Registered,
    probe::{AppProbe, PeerProbe, probe_apps, probe_peer},
    promise::{Asked, Asker, PROMISES_WAITING_MAX},
    sentry::{self, SentryProgram},
    steer::{FACTS_WAITING_MAX, Steering},
};

/// The ledger of writes that only this region held, in the agent's data directory.
pub const LEDGER_FILE: &str = "ledger.jsonl";
/// Lease orders that may wait for the driver.
const ORDERS_WAITING_MAX: usize = 4;
/// How long a stopping agent waits for its right to write to be given back.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(2);
/// How long a stopping agent waits for requests and sessions under way.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {directory}")]
    DataDirectory {
        /// Which one.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent uses the same data directory.
    #[error("another agent is running with the data directory {0}: one region has one agent")]
    AlreadyRunning(PathBuf),
    /// A port cannot be had.
    #[error("cannot listen on {address} for the {purpose}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The lease store's configuration cannot be used.
    #[error("cannot use the lease store's configuration")]
    LeaseStore(#[from] lease::EtcdError),
    /// The metrics cannot be registered.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// A thread or signal handler cannot be had.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// An actuator ended though nobody asked it to.
    #[error("the {0} ended by itself")]
    Ended(&'static str),
}

/// Runs one region's agent, and a sentry beside it, until `stop`; then gives the right to write back, ends sessions, and returns.
///
/// # Errors
/// When it cannot start, or a part of it ends by itself.
pub async fn run(
    config: AgentConfig,
    sentry: SentryProgram,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let _lock = lock_data_directory(&config)?;
    let ports = Ports::open(&config).await?;
    let meter = Arc::new(Registered::new(&config.region)?);
    let store = Arc::new(Etcd::new(&config.etcd)?);
    // Because what drives a connection is where it was opened, traffic's questions have connections of their own.
    let store_for_people = Arc::new(Etcd::new(&config.etcd)?);
    let started = clock::now();
    let incarnation = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64);
    let rtts: BTreeMap<RegionName, Duration> =
        config.peers.iter().map(|(name, peer)| (name.clone(), peer.rtt)).collect();
    let helm_config = HelmConfig::new(&config.topology, &config.region, rtts.clone());
    let put_deadline = config.topology.quorum.lease_ttl / 2;
    let helm = Helm::new(helm_config, incarnation, started);
    let journal = match Journal::begin(&config.data_dir, &helm) {
        Ok(journal) => Some(journal),
        Err(error) => {
            warn!(%error, "The journal cannot be written; going on without it.");
            None
        }
    };

    let end = CancellationToken::new();
    let (facts, facts_seen) = mpsc::channel(FACTS_WAITING_MAX);
    let (plans, plan) = watch::channel(Plan::starting());
    let (orders, orders_seen) = mpsc::channel(ORDERS_WAITING_MAX);
    let (report, report_seen) = watch::channel(helm.report(started));
    let (closely, look_closely) = watch::channel(false);
    let (snapshots, snapshots_seen) = mpsc::channel(SNAPSHOTS_WAITING_MAX);
    let (asks, asks_seen) = watch::channel(None);
    let (promises, promises_asked) = mpsc::channel(PROMISES_WAITING_MAX);
    let findings = Findings::default();
    let stranded = Arc::new(AtomicU64::new(0));
    let counted: Meter = meter.clone();
    let steering = Steering {
        helm,
        facts: facts_seen,
        plans,
        orders,
        asks,
        asked: promises_asked,
        report,
        closely,
        snapshots: snapshots_seen,
        findings: findings.clone(),
        journal,
        meter: counted.clone(),
        clock: clock::clock(),
        started,
        stranded: stranded.clone(),
        standing: (isles_model::Orders::default(), isles_model::Revision::default()),
        answered: None,
    };
    let driver = lease::Driver {
        store,
        put_deadline,
        facts: facts.clone(),
        meter: counted.clone(),
        clock: clock::clock(),
    };
    let askers = config.peers.iter().map(|(name, peer)| Asker {
        region: name.clone(),
        control: peer.control,
        rtt: peer.rtt,
        secret: config.peer_secret.clone(),
        asks: asks_seen.clone(),
        facts: facts.clone(),
        meter: counted.clone(),
    });
    let carriers = Carriers { driver, orders: orders_seen, askers: askers.collect() };
    let steered = steer_on_its_own_thread(steering, carriers, end.clone())?;

    let parts = Parts {
        sentry,
        config,
        ports,
        rtts,
        store: store_for_people,
        meter,
        counted,
        facts,
        plan,
        report_seen,
        look_closely,
        snapshots,
        promises,
        findings,
        stranded,
    };
    let ended = parts.run_until(stop).await;
    end.cancel();
    // With the carriers the last sender of facts goes, so the steering loop ends by itself.
    let _ = tokio::time::timeout(DRAIN_DEADLINE, steered).await;
    ended
}

/// What carries the helm's wishes to the lease store and to the peers.
struct Carriers {
    driver: lease::Driver,
    orders: mpsc::Receiver<LeaseOrder>,
    askers: Vec<Asker>,
}

/// The right to write must not wait behind the traffic to be renewed or promised: steering and its carriers have a
/// thread. The carriers end with `end`, and steering with the last sender of facts.
fn steer_on_its_own_thread(
    steering: Steering,
    carriers: Carriers,
    end: CancellationToken,
) -> Result<oneshot::Receiver<()>, AgentError> {
    let (done, ended) = oneshot::channel();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentError::Start)?;
    std::thread::Builder::new()
        .name("helm".into())
        .spawn(move || {
            runtime.block_on(async move {
                let Carriers { driver, orders, askers } = carriers;
                let driving = tokio::spawn(driver.run(orders, end.clone()));
                for asker in askers {
                    tokio::spawn(asker.run(end.clone()));
                }
                steering.run().await;
                end.cancel();
                let _ = driving.await;
            });
            let _ = done.send(());
        })
        .map_err(AgentError::Start)?;
    Ok(ended)
}

struct Ports {
    edge: TcpListener,
    write_gate: TcpListener,
    read_gate: TcpListener,
    peer_gate: TcpListener,
    control: TcpListener,
}

impl Ports {
    async fn open(config: &AgentConfig) -> Result<Self, AgentError> {
        let listen = &config.listen;
        Ok(Self {
            edge: open(listen.edge, "HTTP edge").await?,
            write_gate: open(listen.write_gate, "write gate").await?,
            read_gate: open(listen.read_gate, "read gate").await?,
            peer_gate: open(listen.peer_gate, "peer gate").await?,
            control: open(listen.control, "control port").await?,
        })
    }
}

async fn open(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, purpose, source })
}

/// Everything outside the steering thread.
struct Parts {
    sentry: SentryProgram,
    config: AgentConfig,
    ports: Ports,
    rtts: BTreeMap<RegionName, Duration>,
    store: Arc<Etcd>,
    meter: Arc<Registered>,
    counted: Meter,
    facts: mpsc::Sender<Fact>,
    plan: watch::Receiver<Plan>,
    report_seen: watch::Receiver<RegionReport>,
    look_closely: watch::Receiver<bool>,
    snapshots: mpsc::Sender<oneshot::Sender<Snapshot>>,
    promises: mpsc::Sender<Asked>,
    findings: Findings,
    stranded: Arc<AtomicU64>,
}

impl Parts {
    async fn run_until(self, stop: CancellationToken) -> Result<(), AgentError> {
        let facts = self.facts.clone();
        let mut plan = self.plan.clone();
        let mut report = self.report_seen.clone();
        let region = self.config.region.clone();
        let end = CancellationToken::new();
        let mut tasks = self.start(&end);
        info!(%region, "Agent runs.");
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(part) = tasks.join_next() => Err(AgentError::Ended(part.unwrap_or("panicked part"))),
        };
        info!(%region, "Agent stops.");
        // The steering loop lives as long as the agent.
        let _ = facts.send(Fact::Stopping).await;
        drop(facts);
        let given_back = async {
            let closed = plan.wait_for(|plan| plan.draining && !hands_over(plan)).await;
            let fenced =
                report.wait_for(|report| !matches!(report.database.role, DatabaseRole::Writer { .. })).await;
            closed.is_ok() && fenced.is_ok()
        };
        if !tokio::time::timeout(GIVE_BACK_DEADLINE, given_back).await.unwrap_or(false) {
            warn!(%region, "The right to write was not given back in time; it runs out by itself.");
        }
        end.cancel();
        let drained =
            tokio::time::timeout(DRAIN_DEADLINE, async { while tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            warn!(%region, "Some requests or sessions did not end in time.");
        }
        ended
    }

    fn start(self, end: &CancellationToken) -> JoinSet<&'static str> {
        let Self {
            sentry,
            config,
            ports,
            rtts,
            store,
            meter,
            counted,
            facts,
            plan,
            report_seen,
            look_closely,
            snapshots,
            promises,
            findings,
            stranded,
        } = self;
        let AgentConfig {
            region,
            topology,
            data_dir,
            listen: _,
            etcd: _,
            database,
            instances,
            peers,
            peer_secret,
        } = config;
        let addresses =
            |of: fn(&isles_model::config::Peer) -> SocketAddr| -> BTreeMap<RegionName, SocketAddr> {
                peers.iter().map(|(name, peer)| (name.clone(), of(peer))).collect()
            };
        let mut tasks = JoinSet::new();
        let mut part = |name: &'static str, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            tasks.spawn(async move {
                task.await;
                name
            });
        };

        for (name, peer) in &peers {
            let probe = PeerProbe {
                region: name.clone(),
                control: peer.control,
                rtt: peer.rtt,
                secret: peer_secret.clone(),
            };
            part("probe of a peer", Box::pin(probe_peer(probe, facts.clone(), clock::clock(), end.clone())));
        }
        let apps =
            AppProbe { instances: instances.clone(), healthcheck: topology.service.healthcheck.clone() };
        part("probe of the app", Box::pin(probe_apps(apps, facts.clone(), end.clone())));

        let mut nearest: Vec<RegionName> = peers.keys().cloned().collect();
        nearest.sort_by_key(|name| rtts.get(name).copied().unwrap_or(Duration::MAX));
        let away = lease::keep_leader_away(store.clone(), region.clone(), nearest, plan.clone(), end.clone());
        part("care for the lease store's leader", Box::pin(away));

        let (acknowledge, acknowledged) = watch::channel(Acknowledge::Open);
        let coverage = Coverage::new();
        let gate = GateConfig {
            region: region.clone(),
            write: ports.write_gate,
            read: ports.read_gate,
            peer: ports.peer_gate,
            socket: database.socket_dir.join(format!(".s.PGSQL.{}", database.port)),
            peers: addresses(|peer| peer.peer_gate),
            app: Account { name: database.app_user.clone(), password: database.app_password.clone() },
            secret: EpochSecret::new(&peer_secret),
            reader: Account { name: database.read_user.clone(), password: database.read_password.clone() },
            acknowledge: acknowledged,
            coverage: coverage.clone(),
            hold: topology.routing.hold_writes,
            limits: GateLimits::default(),
        };
        let gate =
            isles_postgres::gate::run(gate, plan.clone(), clock::clock(), counted.clone(), end.clone());
        part("gate", Box::pin(gate));

        let guarded = sentry::keep(sentry, database.clone(), plan.clone(), report_seen.clone(), end.clone());
        part("sentry", Box::pin(guarded));

        let postgres = PostgresConfig {
            region: region.clone(),
            database,
            secret: EpochSecret::new(&peer_secret),
            peers: addresses(|peer| peer.database),
            commit: topology.database.commit,
            acknowledge,
            coverage,
            closely: look_closely,
            exclude_tables: topology.database.exclude_tables.clone(),
            ledger_path: data_dir.join(LEDGER_FILE),
            stranded,
        };
        let postgres = isles_postgres::run(
            postgres,
            plan.clone(),
            facts,
            findings,
            counted.clone(),
            clock::clock(),
            end.clone(),
        );
        part("database's actuator", Box::pin(postgres));

        let home = region.clone();
        let edge = EdgeConfig {
            region,
            listener: ports.edge,
            instances,
            peers: addresses(|peer| peer.edge),
            writes: topology.routing.writes,
            hold_writes: topology.routing.hold_writes,
            peer_secret: peer_secret.clone(),
        };
        let edge = isles_edge::run(edge, plan, counted, clock::clock(), end.clone());
        part(
            "edge",
            Box::pin(async move {
                if let Err(error) = edge.await {
                    tracing::error!(error = %lease::Chain(&error), "The edge ended.");
                }
            }),
        );

        let control = Control {
            report: report_seen,
            snapshots,
            promises,
            meter,
            peer_secret: peer_secret.into(),
            store,
            region: home,
            regions: topology.region_names().cloned().collect(),
        };
        let control = control::serve(ports.control, control, end.clone());
        part("control port", Box::pin(async move { drop(control.await) }));
        tasks
    }
}

/// The right is still this region's: its gate is open, or a peer does not have all of its writes yet.
fn hands_over(plan: &Plan) -> bool {
    matches!(plan.writes, Writes::Here { .. })
        || plan.database == DatabaseOrder::Fence { because: Because::HandingOver }
}

fn lock_data_directory(config: &AgentConfig) -> Result<std::fs::File, AgentError> {
    let directory = &config.data_dir;
    let broken = |source| AgentError::DataDirectory { directory: directory.clone(), source };
    std::fs::create_dir_all(directory).map_err(broken)?;
    let lock = std::fs::File::create(directory.join("agent.lock")).map_err(broken)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AgentError::AlreadyRunning(directory.clone())),
        Err(errno) => Err(broken(errno.into())),
    }
}
