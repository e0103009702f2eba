//! What should be, in one region, until the next plan: orders with their reasons.
//!
//! Only `decide` makes plans. An actuator never obeys a plan whose epoch is older than one it has seen.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Epoch, Moment, RegionName};

/// Orders for one region's actuators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The newest epoch seen.
    pub epoch: Epoch,
    /// Where the app's writes go.
    pub writes: Writes,
    /// What this region's database should be.
    pub database: DatabaseOrder,
    /// Every region of the topology, nearest first as seen from here (this region first): may users be sent there?
    pub serve: Vec<Serving>,
    /// This region's app instances that may take requests, by index.
    pub instances: Vec<usize>,
    /// This region takes no new work: its edge answers from elsewhere.
    pub draining: bool,
}

/// Where the app's writes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writes {
    /// Into this region's database, until a moment of this agent's own clock. Past it every gate is shut,
    /// whether or not a new plan has come.
    Here {
        /// Under which epoch.
        epoch: Epoch,
        /// The gate's deadline.
        until: Moment,
    },
    /// To another region, which checks its own right.
    At {
        /// Where.
        region: RegionName,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// Nowhere just now: hold them.
    Nowhere {
        /// Why.
        because: Because,
    },
}

/// What a region's database should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseOrder {
    /// Take no writes and change nothing else.
    Fence {
        /// Why.
        because: Because,
    },
    /// Be the writer of this epoch: promote if needed, then let the app's role in.
    Write {
        /// The epoch.
        epoch: Epoch,
        /// The end of this right on the agent's own clock; without a newer plan, fence by then.
        until: Moment,
        /// What an acknowledgement waits for.
        commit: CommitOrder,
    },
    /// Follow this writer; rejoin first if the own history has left its.
    Follow {
        /// Whom.
        writer: RegionName,
        /// Under which epoch.
        epoch: Epoch,
    },
}

/// What the acknowledgement of a commit waits for, besides the writer's own disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommitOrder {
    /// Each of these regions must have it durably; none: nothing to wait for.
    pub standbys: BTreeSet<RegionName>,
    /// `None`: each commit by itself. Otherwise acknowledgements are held only while the oldest commit that one of
    /// the standbys lacks is older than this.
    pub bound: Option<Duration>,
}

/// Whether users may be sent to one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Which region.
    pub region: RegionName,
    /// Its app answers and may be given requests (a write still goes by [`Writes`]).
    pub app: bool,
    /// Its database may answer reads (complete copy, not too stale). In active-passive only one region's is true.
    pub reads: bool,
    /// Last measured round trip; zero for this region.
    pub rtt: Duration,
    /// Why.
    pub because: Because,
}

/// The reason of a decision. Printed by `isles status` and the journal; asserted by tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// It holds the right to write and its database is ready.
    HoldsLease,
    /// It holds the right to write; its database is being promoted.
    Promoting,
    /// The right to write lapsed or is about to, and has not been renewed.
    LeaseLapsed,
    /// Another region holds the right to write.
    LeaseElsewhere,
    /// The last holder's right has not run out yet.
    WaitingForLeaseEnd,
    /// The lease store has not answered.
    LeaseStoreSilent,
    /// No key exists yet; the primary region goes first.
    WaitingForPrimary,
    /// A compare-and-put is on its way.
    Claiming,
    /// Another region holds more of the last writer's log.
    PeerIsAhead,
    /// Another region is preferred by the spec and holds as much.
    PeerIsPreferred,
    /// The own copy is not complete.
    CopyIncomplete,
    /// The own rows have left the last writer's history.
    CopyDiverged,
    /// The own database does not answer.
    DatabaseDown,
    /// No own app instance is healthy.
    AppDown,
    /// The region has not answered its peers.
    PeerSilent,
    /// Two regions and no witness: promoting by itself cannot be safe.
    NoWitness,
    /// The right is being handed to another region, which does not hold all writes yet.
    HandingOver,
    /// The region is stopping or draining.
    Draining,
    /// The region is drained by an operator's order.
    Drained,
    /// The region is drained by an operator's order, and writes on: no other region can take the right.
    NobodyElse,
    /// An operator's order keeps every region from taking the right over by itself.
    Maintenance,
    /// An operator ordered another region to take the right.
    OrderedElsewhere,
    /// The last writer's commits may be missing here: the key names another region, or none, to take over.
    NotTheStandby,
    /// It holds the right to write, and no other region has its newest commits.
    Unprotected,
    /// The right was given back.
    Released,
    /// Standby of an active-passive pair: serves only when the primary cannot.
    Standby,
    /// Too far behind its writer to answer reads.
    TooStale,
    /// Healthy, and allowed by the pattern.
    Healthy,
    /// It has promised the holder not to take over while the lease store is silent.
    Promised,
    /// The lease store is silent; it writes on by the promise of every other region not to take over.
    HoldsByPromise,
    /// Nothing is known yet.
    Starting,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HoldsLease => "holds the lease",
            Self::Promoting => "database is being promoted",
            Self::LeaseLapsed => "lease lapsed",
            Self::LeaseElsewhere => "lease is elsewhere",
            Self::WaitingForLeaseEnd => "waiting for the last lease to end",
            Self::LeaseStoreSilent => "lease store does not answer",
            Self::WaitingForPrimary => "waiting for the primary to start",
            Self::Claiming => "claiming the lease",
            Self::PeerIsAhead => "a peer holds more of the log",
            Self::PeerIsPreferred => "a preferred peer is as far",
            Self::CopyIncomplete => "copy is incomplete",
            Self::CopyDiverged => "copy has diverged",
            Self::DatabaseDown => "database does not answer",
            Self::AppDown => "app does not answer",
            Self::PeerSilent => "peer is silent",
            Self::NoWitness => "two regions and no witness",
            Self::HandingOver => "handing over to another region",
            Self::Draining => "draining",
            Self::Drained => "drained by order",
            Self::NobodyElse => "drained by order, but no other region can take over",
            Self::Maintenance => "no takeovers during maintenance",
            Self::OrderedElsewhere => "another region was ordered to take over",
            Self::NotTheStandby => "not the standby that the lease names",
            Self::Unprotected => "holds the lease; no other region has its newest commits",
            Self::Released => "lease was given back",
            Self::Standby => "standby",
            Self::TooStale => "too far behind",
            Self::Healthy => "healthy",
            Self::Promised => "promised the holder to wait",
            Self::HoldsByPromise => "holds by the promise of all regions",
            Self::Starting => "starting",
        })
    }
}

impl Plan {
    /// The plan before anything is known: fenced, nobody named.
    pub fn starting() -> Self {
        Self {
            epoch: Epoch::NONE,
            writes: Writes::Nowhere { because: Because::Starting },
            database: DatabaseOrder::Fence { because: Because::Starting },
            serve: Vec::new(),
            instances: Vec::new(),
            draining: false,
        }
    }
}
