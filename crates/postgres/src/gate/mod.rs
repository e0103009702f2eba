//! Stands between the app and PostgreSQL: leads each session to the region that may write, and shuts in time.
//!
//! Three doors: the write gate (the app's `DATABASE_URL`), the read gate (`DATABASE_READ_URL`) and the peer gate
//! (for other regions' write gates). Decides nothing: it obeys the newest [`Plan`]. Reads no statement.

mod admit;
mod answer;
mod boundary;
mod keys;
mod opening;
mod permit;
mod pipe;
mod relay;
mod sessions;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use isles_model::{Meter, Plan, RegionName, ids::Clock};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use self::{
    keys::Keys,
    permit::Permit,
    sessions::{Gate, Kind},
    upstream::Doors,
};

/// How long to let file descriptors come free after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long open sessions have to say farewell when the agent stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// What the gates of one region stand on.
#[derive(Debug)]
pub struct GateConfig {
    /// The region.
    pub region: RegionName,
    /// Takes the app's `DATABASE_URL`.
    pub write: TcpListener,
    /// Takes the app's `DATABASE_READ_URL`.
    pub read: TcpListener,
    /// Takes other regions' write gates.
    pub peer: TcpListener,
    /// The Unix socket file of the local PostgreSQL (`…/.s.PGSQL.5432`).
    pub socket: PathBuf,
    /// The other regions' peer gates, as reached from here.
    pub peers: BTreeMap<RegionName, SocketAddr>,
    /// The roles that may come through. On the Unix socket the superuser needs no password: it must not be among
    /// them.
    pub roles: BTreeSet<String>,
    /// How long a new session waits for a region that may write.
    pub hold: Duration,
    /// Bounds.
    pub limits: GateLimits,
}

/// Bounds of each gate. At a bound a client gets SQLSTATE 53300 (`too_many_connections`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Sessions open or opening at one gate.
    pub sessions: usize,
    /// Sessions of the write gate that wait for a writer, of those.
    pub held: usize,
    /// How long a client may take to say what it wants.
    pub opening: Duration,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { sessions: 1_000, held: 500, opening: Duration::from_secs(10) }
    }
}

/// Runs the three gates until `stop`. Until a plan says otherwise, writers wait and readers read.
pub async fn run(
    config: GateConfig,
    plans: watch::Receiver<Plan>,
    clock: Clock,
    meter: Meter,
    stop: CancellationToken,
) {
    let (permit, keeper) = Permit::new(plans, clock);
    let doors = Doors { socket: config.socket, peers: config.peers };
    let keys = Keys::default();
    let tracker = TaskTracker::new();
    let gate = |kind, listener| {
        let gate =
            Gate::new(kind, &config.roles, &doors, &permit, &keys, &meter, (config.hold, config.limits));
        serve(listener, gate, tracker.clone(), stop.clone())
    };
    let gates = async {
        tokio::join!(
            gate(Kind::Write, config.write),
            gate(Kind::Read, config.read),
            gate(Kind::Peer, config.peer),
        )
    };
    tokio::select! {
        () = keeper.run() => {}
        _ = gates => {}
    }
    tracker.close();
    if tokio::time::timeout(STOP_WITHIN, tracker.wait()).await.is_err() {
        warn!(region = %config.region, sessions = tracker.len(), "Left database sessions that did not end in time.");
    }
}

async fn serve(listener: TcpListener, gate: Gate, tracker: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => gate.take(client, &tracker, &stop),
            Err(error) => {
                warn!(gate = gate.kind().word(), %error, "Could not accept a database connection.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
