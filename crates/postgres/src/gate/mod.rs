//! Stands between the app and PostgreSQL: leads each session to the region that may write, and shuts in time.
//!
//! Three doors: the write gate (the app's `DATABASE_URL`), the read gate (`DATABASE_READ_URL`) and the peer gate
//! (for other regions' write gates). Decides nothing: it obeys the newest [`Plan`].
//!
//! A client proves to the gate who it is (SCRAM-SHA-256, [`Account`]); the gate proves to the database, with the
//! credential of the epoch, that it knows who may write. So the app's own password opens no database by itself, and a
//! gate that has missed an epoch opens none either. The peer gate passes this second proof through unseen.
//!
//! A session outlives the database behind it, if nothing is under way in it and it has nothing that only its backend
//! has: the gate opens another at the writer, makes it like the one before, and the client notices nothing.
//! `session_state` says which sessions those are, and what is not seen; `statement` is all that is read of SQL. While
//! no region may write, the next message of such a session waits in its socket, for [`GateConfig::hold`] at most.
//!
//! While acknowledgements are held ([`Acknowledge`], [`Coverage`]), clients of the local writer are given no answer.

mod acknowledge;
mod admit;
mod answer;
mod authenticate;
mod frame;
mod keys;
mod login;
mod memory;
mod message;
mod opening;
mod overheard;
mod permit;
mod pipe;
mod relay;
mod repoint;
mod scram;
mod session_state;
mod sessions;
mod statement;
mod talk;
mod upstream;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use isles_model::{EpochSecret, Meter, Plan, RegionName, ids::Clock};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

pub use self::{acknowledge::Acknowledge, authenticate::Account};
use self::{
    authenticate::Guard,
    keys::Keys,
    permit::Permit,
    sessions::{Gate, House, Kind},
    upstream::Doors,
};
use crate::Coverage;

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
    /// The app's role. It comes through the write gate.
    pub app: Account,
    /// What its password behind the gate is made from, anew for every epoch.
    pub secret: EpochSecret,
    /// The role that reads. It comes through the read gate and the write gate.
    pub reader: Account,
    /// Whether the local writer's acknowledgements may pass.
    pub acknowledge: watch::Receiver<Acknowledge>,
    /// Where commits that may have made a table are noted.
    pub coverage: Coverage,
    /// How long a new session, and the next message of an idle one, waits for a region that may write.
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
    let (permit, keeper) = Permit::new(plans, config.acknowledge, config.coverage, clock);
    let guard = match Guard::new(&config.app, &config.secret, &config.reader) {
        Ok(guard) => guard,
        Err(error) => {
            error!(region = %config.region, %error, "The gates stay shut: the system gives no random numbers.");
            return;
        }
    };
    let house = House {
        guard,
        roles: [config.app.name.clone(), config.reader.name.clone()].into(),
        reader: config.reader.name.clone(),
        doors: Doors { socket: config.socket, peers: config.peers },
        permit,
        keys: Keys::default(),
        meter,
    };
    let tracker = TaskTracker::new();
    let gate = |kind, listener| {
        let gate = Gate::new(kind, &house, (config.hold, config.limits));
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
