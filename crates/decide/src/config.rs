//! What a helm has to know before it sees its first fact.

use std::{collections::BTreeMap, time::Duration};

use isles_model::{
    RegionName, Topology,
    topology::{Commit, Pattern},
};
use serde::{Deserialize, Serialize};

/// The share of the TTL by which a holder stops early, in percent.
///
/// Because two clocks may each be off by 5 %, a holder's TTL may take 1 / 0.95 of true time and an observer's
/// 1 / 1.05: 9.6 % between them. The rest (5.4 %, 80 ms of a TTL of 1.5 s) is for the longest way from a gate's
/// check to the row.
const MARGIN_PERCENT: u32 = 15;

/// Renewals within one TTL, so that eight in a row may fail before the gate shuts.
const RENEWALS_A_TTL: u32 = 10;

/// The shortest time that a worse candidate gives way to a better one. Added to it: a tenth of the TTL, by which the
/// better one's clock may count it longer, and two of the longest round trips.
const PATIENCE_MIN: Duration = Duration::from_millis(200);

/// How long a holder's database may be down before the right is given to a peer: a restart in place loses no
/// write, a peer may.
const DATABASE_GRACE: Duration = Duration::from_secs(1);

/// Takeovers from a writer that was alive after all, in a row, that make the TTL longer.
const UNREST_MAX: u32 = 2;

/// By how much.
const RESTLESS_TTL: u32 = 2;

/// A tenure of such a length ends a time of unrest.
const QUIET: Duration = Duration::from_secs(600);

/// What a helm has to know before it sees its first fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HelmConfig {
    /// The region it decides for.
    pub region: RegionName,
    /// All regions in order of preference; the first is the primary.
    pub regions: Vec<RegionName>,
    /// Who takes traffic.
    pub pattern: Pattern,
    /// Whether a lost writer may be replaced without being asked.
    pub may_fail_over: bool,
    /// How long the right to write lasts after its last change, in quiet times. The key carries the one in force.
    pub ttl: Duration,
    /// How much earlier than that the holder stops, by its own clock; in proportion for another TTL.
    pub margin: Duration,
    /// Between two renewals.
    pub renew_every: Duration,
    /// How long to give way to each better candidate.
    pub patience: Duration,
    /// How far behind a replica may answer reads.
    pub max_staleness: Duration,
    /// Round trips to the peers as planned; measured ones replace them.
    pub rtts: BTreeMap<RegionName, Duration>,
    /// How long the holder's database may be down before a peer takes over.
    pub database_grace: Duration,
    /// What the acknowledgement of a commit waits for.
    pub commit: Commit,
    /// How long a tenure has to last to end a time of unrest.
    pub quiet: Duration,
    /// Whether the holder goes on while the lease store is silent, by the promise of all others.
    pub failsafe: bool,
}

impl HelmConfig {
    /// The configuration that a topology gives to one of its regions.
    pub fn new(topology: &Topology, region: &RegionName, rtts: BTreeMap<RegionName, Duration>) -> Self {
        let ttl = topology.quorum.lease_ttl;
        let rtt_max = rtts.values().max().copied().unwrap_or_default();
        Self {
            region: region.clone(),
            regions: topology.region_names().cloned().collect(),
            pattern: topology.pattern,
            may_fail_over: topology.may_fail_over(),
            ttl,
            margin: ttl * MARGIN_PERCENT / 100,
            renew_every: ttl / RENEWALS_A_TTL,
            patience: (PATIENCE_MIN + ttl / 10 + rtt_max * 2).min(ttl / 2),
            max_staleness: topology.objectives.max_staleness,
            rtts,
            database_grace: DATABASE_GRACE,
            commit: topology.database.commit,
            quiet: QUIET,
            failsafe: topology.quorum.failsafe,
        }
    }

    /// How long a right lasts after so many false alarms.
    pub(crate) fn ttl_after(&self, unrest: u32) -> Duration {
        if unrest >= UNREST_MAX { self.ttl * RESTLESS_TTL } else { self.ttl }
    }

    /// How long a holder may write after it sent a put that gives it a right of this length.
    pub(crate) fn usable(&self, ttl: Duration) -> Duration {
        let margin = ttl.as_nanos() * self.margin.as_nanos() / self.ttl.as_nanos().max(1);
        ttl.saturating_sub(Duration::from_nanos(u64::try_from(margin).unwrap_or(u64::MAX)))
    }

    /// The place in the order of preference; a region that is not listed comes last.
    pub(crate) fn preference(&self, region: &RegionName) -> usize {
        self.regions.iter().position(|listed| listed == region).unwrap_or(self.regions.len())
    }

    /// Whether this region is the primary.
    pub(crate) fn is_primary(&self) -> bool {
        self.regions.first() == Some(&self.region)
    }

    /// The other regions, in order of preference.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &RegionName> {
        self.regions.iter().filter(|listed| **listed != self.region)
    }
}
