//! What one agent shows of itself to people: `GET /v1/status`, drawn by `isles status` and the console.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{LeaseKey, Orders, Plan, RegionName, RegionReport};

/// One agent's state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What it says of its own region.
    pub report: RegionReport,
    /// Its current plan.
    pub plan: Plan,
    /// The lease key as it last saw it, and how long ago it last changed.
    pub lease: Option<(LeaseKey, Duration)>,
    /// The operator's orders as it last saw them.
    #[serde(default)]
    pub orders: Orders,
    /// What it last heard of each peer, and how long ago.
    pub peers: BTreeMap<RegionName, PeerSnapshot>,
    /// Findings a person should see: table names and reasons, never row values. At most 32.
    pub findings: Vec<String>,
    /// Writes in the ledger that only this region held.
    pub stranded_writes: u64,
    /// Time since the agent started.
    pub uptime: Duration,
}

/// What an agent last heard of one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerSnapshot {
    /// Its last report.
    pub report: Option<RegionReport>,
    /// Age of that report.
    pub age: Duration,
    /// Last round trip.
    pub rtt: Option<Duration>,
}
