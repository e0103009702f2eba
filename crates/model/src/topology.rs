//! The spec, checked, with every default explicit.
//!
//! Only `Spec::check` makes one, so whoever holds a topology need not check it again.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::RegionName;

/// What to run where, and what it promises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The application's name: a DNS label; also the database's and the app role's name (hyphens become underscores).
    pub name: String,
    /// The public host name, where one is given.
    pub domain: Option<String>,
    /// Who takes traffic, who takes writes.
    pub pattern: Pattern,
    /// In order of preference; the first is the primary.
    pub regions: Vec<Region>,
    /// A region that votes on the lease and holds no data; always there with two regions and automatic failover.
    pub witness: Option<RegionName>,
    /// The promises to be kept.
    pub objectives: Objectives,
    /// The app. One service in this version.
    pub service: Service,
    /// How users reach it.
    pub routing: Routing,
    /// The right to write.
    pub quorum: Quorum,
    /// PostgreSQL.
    pub database: Database,
}

impl Topology {
    /// The primary region.
    pub fn primary(&self) -> &RegionName {
        &self.regions.first().expect("Spec::check refuses a spec without regions").name
    }

    /// All region names in order of preference.
    pub fn region_names(&self) -> impl Iterator<Item = &RegionName> {
        self.regions.iter().map(|region| &region.name)
    }

    /// Where the lease store has a member: every region, and the witness. Of two regions without a witness only the
    /// primary: a second vote would let the loss of either one stop all writes, and decide nothing.
    pub fn voters(&self) -> impl Iterator<Item = &RegionName> {
        let voting = if self.regions.len() == 2 && self.witness.is_none() { 1 } else { self.regions.len() };
        self.region_names().take(voting).chain(&self.witness)
    }

    /// Whether a lost writer may be replaced without being asked: three regions or more, or two and a witness.
    pub fn may_fail_over(&self) -> bool {
        self.regions.len() >= 3 || (self.regions.len() == 2 && self.witness.is_some())
    }
}

/// Who takes traffic, who takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// The primary takes all; another region only when it fails.
    ActivePassive,
    /// Every region reads; the primary writes.
    ReadReplicas,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name.
    pub name: RegionName,
    /// `aws`, `gcp`, `azure`, `fly`, … where given or known from the name.
    pub provider: Option<String>,
    /// The jurisdiction its data falls under, where given.
    pub jurisdiction: Option<String>,
}

/// The promises to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// Recovery time: from a fault until users can read and write.
    pub rto: Duration,
    /// Recovery point: how much acknowledged writing may be lost; `None`: counted and listed, no promise.
    pub rpo: Option<Duration>,
    /// How far behind a replica may answer reads.
    pub max_staleness: Duration,
}

/// The app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in the spec.
    pub name: String,
    /// How the lab starts it (a shell command line).
    pub command: Option<String>,
    /// How the cloud starts it.
    pub image: Option<String>,
    /// Instances a region: at least, at most.
    pub replicas: Replicas,
    /// How it is probed.
    pub healthcheck: HealthCheck,
    /// Added to its environment.
    pub env: BTreeMap<String, String>,
}

/// Instances a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// What the lab starts.
    pub min: u32,
    /// The autoscaler's ceiling.
    pub max: u32,
}

/// How an app instance is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Path of a GET; 2xx or 3xx is healthy.
    pub path: String,
    /// Between two probes.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// So many failures in a row make it unhealthy.
    pub unhealthy_threshold: u32,
    /// How long after its start an app may stay unhealthy before `isles up` gives up.
    pub start_period: Duration,
}

/// How users reach the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// How DNS picks a region.
    pub policy: RoutingPolicy,
    /// DNS time to live.
    pub ttl: Duration,
    /// What a replica's edge does with a write.
    pub writes: WriteRouting,
    /// What a reader may see after its own write.
    pub consistency: Consistency,
    /// How long a write may be held while there is no writer.
    pub hold_writes: Duration,
}

/// How DNS picks a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingPolicy {
    /// The nearest by measured round trip.
    Latency,
    /// The nearest on the map.
    Geoproximity,
    /// By weight.
    Weighted,
    /// The first healthy one in order.
    Failover,
}

/// What a replica's edge does with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteRouting {
    /// Sends it to the writer's region.
    Forward,
    /// Answers 421 and names the writer's region.
    Reject,
}

/// What a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Whatever the nearest replica has.
    Eventual,
    /// Nothing older than `objectives.max_staleness`.
    BoundedStaleness,
    /// At least the reader's own writes.
    ReadYourWrites,
}

/// The right to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// etcd endpoints of the operator's own (`https://…`); empty: the lab's, or the agent's configuration.
    pub etcd: Vec<String>,
    /// How long the right lasts after the last renewal.
    pub lease_ttl: Duration,
    /// While the lease store is silent, the writer goes on for as long as every other region promises it not to
    /// take over.
    pub failsafe: bool,
}

/// PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The engine.
    pub engine: Engine,
    /// Major version wanted; `None`: whatever is installed, 15 or newer.
    pub version: Option<String>,
    /// When a commit counts.
    pub commit: Commit,
    /// Tables that do not replicate: the migration tools' bookkeeping, the user's own list added.
    pub exclude_tables: Vec<String>,
}

/// The engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Stock PostgreSQL.
    Postgres,
    /// Aurora; the lab rehearses it with stock PostgreSQL.
    AuroraPostgresql,
}

/// When a commit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// When the writer has it on disk.
    Async,
    /// When the writer has it on disk; but none is acknowledged while the oldest that no other region has is older
    /// than this.
    Bounded(Duration),
    /// When another region has it on disk too.
    Remote,
}
