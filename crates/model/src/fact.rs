//! What a region observed: the only things that change a helm's view.
//!
//! A fact is an observation, never an intention; what should be is a [`crate::Plan`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{AttemptId, Epoch, LeaseKey, Lsn, Moment, Orders, RegionName, Revision};

/// One observation. The moment of observing travels beside it (`Helm::observe(now, fact)`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The lease key as read or watched. `key` is `None` when it does not exist.
    LeaseSeen {
        /// The stored value.
        key: Option<LeaseKey>,
        /// Its revision; 0 when absent.
        revision: Revision,
    },
    /// The answer to a compare-and-put.
    LeaseAnswered {
        /// Which one.
        attempt: AttemptId,
        /// What came of it.
        outcome: LeaseOutcome,
    },
    /// The operator's standing orders as read or watched, beside the lease key.
    Orders {
        /// The stored value; the default when there is none.
        orders: Orders,
        /// Its revision; 0 when absent. An older one than seen before is a late answer.
        revision: Revision,
    },
    /// The lease store could not be read.
    LeaseStoreSilent,
    /// This region's own database.
    Database(DatabaseReport),
    /// This region's own database has died, and its gate is shut: every commit that it acknowledged to the app
    /// begins before this position of its log.
    CommitsEnd {
        /// Where a peer's copy has to have come to for nothing to be missing.
        position: Lsn,
    },
    /// This region's own app instances.
    App(AppReport),
    /// A peer answered a direct probe.
    Peer {
        /// What it says of itself.
        report: RegionReport,
        /// Round trip of this probe.
        rtt: Duration,
    },
    /// A peer did not answer a direct probe.
    PeerSilent {
        /// The peer.
        region: RegionName,
    },
    /// The holder of the right asks this region not to claim for a while: it cannot reach the lease store. Whether it
    /// is promised is read from the helm right after.
    PromiseAsked(PromiseRequest),
    /// A peer has promised not to claim, for the TTL of the request.
    Promised {
        /// Which.
        region: RegionName,
        /// The epoch of the request.
        epoch: Epoch,
        /// [`PromiseRequest::asked_at`] of the request: the promise counts from there.
        asked_at: Moment,
    },
    /// The agent has been asked to stop: give back what it holds.
    Stopping,
}

/// What a holder asks of every other region while the lease store is silent (`quorum.failsafe`), over their control
/// ports. A region that promises claims nothing for [`Self::ttl`] from the receipt of the request on, so that the
/// holder may go on for as long from the moment before it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseRequest {
    /// Who asks.
    pub holder: RegionName,
    /// Under which epoch it writes.
    pub epoch: Epoch,
    /// How long the promise lasts, at most [`PROMISE_MAX`].
    pub ttl: Duration,
    /// A moment of the holder's own clock before the request was sent. It means nothing to the other region, which
    /// gives it back as it is.
    pub asked_at: Moment,
}

/// The longest promise that is given.
pub const PROMISE_MAX: Duration = Duration::from_secs(120);

/// What a region answers to a [`PromiseRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum PromiseAnswer {
    /// It claims nothing for as long as was asked.
    Promised,
    /// It promises nothing.
    Refused {
        /// Why.
        because: NoPromise,
    },
}

/// Why a region does not promise to leave the right alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoPromise {
    /// Its own spec does not have `quorum.failsafe`.
    NotAllowed,
    /// It knows of no such region beside itself.
    NotAPeer,
    /// As far as it knows, the right is not with whoever asks, or not any more.
    NotTheHolder,
    /// It holds the right itself.
    HoldsItself,
    /// A claim of its own is under way, or may yet be stored.
    Claims,
    /// Longer than [`PROMISE_MAX`].
    TooLong,
}

impl fmt::Display for NoPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "its spec has no failsafe",
            Self::NotAPeer => "it knows of no such region",
            Self::NotTheHolder => "it knows of a newer holder",
            Self::HoldsItself => "it holds the right itself",
            Self::Claims => "a claim of its own is under way",
            Self::TooLong => "that is too long",
        })
    }
}

/// What came of a compare-and-put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOutcome {
    /// Stored; the key is now at this revision.
    Stored(Revision),
    /// Somebody else was first; a read follows.
    Refused,
    /// No answer, or an error after sending: it may or may not have been stored.
    Unknown,
}

/// What one region says of itself to its peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionReport {
    /// Which region.
    pub region: RegionName,
    /// Differs between two runs of its agent.
    pub incarnation: u64,
    /// The newest epoch it has seen.
    pub epoch: Epoch,
    /// Its database.
    pub database: DatabaseReport,
    /// Its app instances.
    pub app: AppReport,
    /// It is stopping or draining: give it no new work.
    pub draining: bool,
}

/// A region's own app instances, by index in its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppReport {
    /// One entry an instance: whether its health check passes.
    pub healthy: Vec<bool>,
}

impl AppReport {
    /// Whether any instance may take requests.
    pub fn any(&self) -> bool {
        self.healthy.iter().any(|up| *up)
    }
}

/// A region's own database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Whether it answers.
    pub state: DatabaseState,
    /// What it does now.
    pub role: DatabaseRole,
    /// Whose history its rows are.
    pub lineage: Lineage,
    /// A replica: how much of the writer's log (writer's positions) it holds. A writer: the end of its own log.
    pub position: Lsn,
    /// How far a replica is behind its writer; `None` for a writer, or when not known.
    pub lag: Option<Lag>,
    /// A writer: what it knows of the copies that follow it.
    #[serde(default)]
    pub standbys: Standbys,
}

/// What a writer knows of the copies that follow it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standbys {
    /// The regions that every acknowledgement waits for: in force in each process that sends the log.
    pub required: BTreeSet<RegionName>,
    /// The end of the own log when that came into force.
    pub since: Lsn,
    /// How much of the own log each follower has durably.
    pub confirmed: BTreeMap<RegionName, Lsn>,
}

impl DatabaseReport {
    /// Before the first probe.
    pub fn unknown() -> Self {
        Self {
            state: DatabaseState::Down,
            role: DatabaseRole::Fenced,
            lineage: Lineage::default(),
            position: Lsn::default(),
            lag: None,
            standbys: Standbys::default(),
        }
    }
}

/// Whether a database answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseState {
    /// It answers queries.
    Up,
    /// It does not.
    Down,
}

/// What a database does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseRole {
    /// Takes no writes and follows nobody. Every database starts so.
    Fenced,
    /// Takes the app's writes under this epoch.
    Writer {
        /// The epoch.
        epoch: Epoch,
    },
    /// Follows the writer of an epoch.
    Replica {
        /// Whom.
        writer: RegionName,
        /// Under which epoch.
        epoch: Epoch,
        /// Whether it holds all of the writer's tables.
        copy: Copy,
    },
}

/// Whether a replica holds all of its writer's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copy {
    /// The first copy of one table or more is still on its way: never read from it, never promote it.
    Running,
    /// All tables are complete but those that the writer made lately, whose rows are on their way. The reported position
    /// is the last one at which nothing was missing. Not read from; promoted if no complete copy is left.
    Extending,
    /// All tables are complete and stream.
    Complete,
}

/// Whose history the rows of a database are; kept in the database itself (`isles.node`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// The last epoch whose writes it took, as writer or as a *complete* replica; 0: an empty database.
    pub epoch: Epoch,
    /// It was that epoch's writer, so it may hold writes that nobody else has.
    pub wrote: bool,
}

/// How far a replica is behind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Bytes of the writer's log not yet applied.
    pub bytes: u64,
    /// Age of the oldest of them.
    pub time: Duration,
}
