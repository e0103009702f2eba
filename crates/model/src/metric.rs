//! Every metric name, in one enum: actuators count by it, dashboards and alerts are drawn from it.
//!
//! Knows no registry: whoever counts is handed a [`Meter`].

use std::sync::Arc;

/// What a metric is in Prometheus terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets of seconds.
    Histogram,
}

/// A label name. `region` (whose agent exports it) is on every metric and is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// The region whose app served the request; `none`: the edge answered by itself.
    ServedFrom,
    /// `safe` or `write`; `unread`: refused before its method counted.
    Method,
    /// Status class: `2xx` … `5xx`.
    Status,
    /// The other region.
    Peer,
    /// Why, as a constant snake_case word.
    Reason,
}

impl Label {
    /// The name as Prometheus sees it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServedFrom => "served_from",
            Self::Method => "method",
            Self::Status => "status",
            Self::Peer => "peer",
            Self::Reason => "reason",
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $variant:ident = $name:literal, $kind:ident, [$($label:ident),*];)+) => {
        /// Every metric an agent exports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric { $($(#[doc = $help])+ $variant,)+ }

        impl Metric {
            /// All of them, in a fixed order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The exported name.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)+ } }

            /// The help text.
            pub fn help(self) -> &'static str { match self { $(Self::$variant => concat!($($help),+).trim_ascii(),)+ } }

            /// Counter, gauge or histogram.
            pub fn kind(self) -> Kind { match self { $(Self::$variant => Kind::$kind,)+ } }

            /// Its labels beside `region`, in the order in which values are given.
            pub fn labels(self) -> &'static [Label] { match self { $(Self::$variant => &[$(Label::$label),*],)+ } }
        }
    };
}

metrics! {
    /// Requests answered by this region's edge.
    Requests = "isles_requests_total", Counter, [ServedFrom, Method, Status];
    /// Seconds from a request's head to its answer's head.
    RequestSeconds = "isles_request_seconds", Histogram, [ServedFrom, Method];
    /// Requests the edge could not serve, by reason.
    RequestErrors = "isles_request_errors_total", Counter, [Reason];
    /// Requests sent on to another region.
    Forwarded = "isles_forwarded_total", Counter, [Peer];
    /// Requests tried again elsewhere.
    Retried = "isles_retried_total", Counter, [Reason];
    /// Writes held just now for want of a writer.
    Held = "isles_held", Gauge, [];
    /// Writes that were held, by how it ended: released, timed_out, refused_full.
    HeldTotal = "isles_held_total", Counter, [Reason];
    /// 1 while this region takes the app's writes.
    Writer = "isles_writer", Gauge, [];
    /// The newest epoch this region has seen.
    Epoch = "isles_epoch", Gauge, [];
    /// Seconds since the lease key was last seen to change.
    LeaseAgeSeconds = "isles_lease_age_seconds", Gauge, [];
    /// Compare-and-puts of the lease key, by outcome.
    LeasePuts = "isles_lease_puts_total", Counter, [Reason];
    /// Seconds one compare-and-put took.
    LeasePutSeconds = "isles_lease_put_seconds", Histogram, [];
    /// 1 while this region writes on without the lease store, by the promise of every other region.
    ByPromise = "isles_writes_by_promise", Gauge, [];
    /// Promises not to take over asked of a peer, by its answer: promised, refused, silent.
    Promises = "isles_promises_total", Counter, [Peer, Reason];
    /// 1 while the operator keeps users and the right to write away from this region.
    Drained = "isles_drained", Gauge, [];
    /// 1 while the operator lets nobody take over by itself.
    Maintenance = "isles_maintenance", Gauge, [];
    /// Regions that every acknowledged commit of this writer is known to be on, beside its own.
    ProtectedBy = "isles_commit_protected_by", Gauge, [];
    /// Bytes of the writer's log not yet applied here.
    ReplicationLagBytes = "isles_replication_lag_bytes", Gauge, [];
    /// Age of the oldest write not yet applied here, in seconds.
    ReplicationLagSeconds = "isles_replication_lag_seconds", Gauge, [];
    /// Times a replica was copied afresh, by reason.
    ReplicaCopies = "isles_replica_copies_total", Counter, [Reason];
    /// Writes found only in this region after it lost the right to write.
    StrandedWrites = "isles_stranded_writes_total", Counter, [];
    /// Database connections open through the gate.
    GateConnections = "isles_gate_connections", Gauge, [Method];
    /// Database connections the gate closed, by reason.
    GateClosed = "isles_gate_closed_total", Counter, [Reason];
    /// Round trip to a peer's agent, in seconds.
    WanRttSeconds = "isles_wan_rtt_seconds", Gauge, [Peer];
    /// 1 while the local database answers.
    DatabaseUp = "isles_database_up", Gauge, [];
    /// App instances that pass their health check.
    AppInstancesHealthy = "isles_app_instances_healthy", Gauge, [];
}

/// Where counts go. Label values come in the order of [`Metric::labels`].
pub trait Count: Send + Sync {
    /// Adds to a counter.
    fn add(&self, metric: Metric, labels: &[&str], amount: u64);
    /// Sets a gauge.
    fn set(&self, metric: Metric, labels: &[&str], value: f64);
    /// Puts a number of seconds into a histogram.
    fn seconds(&self, metric: Metric, labels: &[&str], seconds: f64);
}

/// A shared [`Count`].
pub type Meter = Arc<dyn Count>;

/// Counts nothing: for tests and tools.
#[derive(Debug, Default, Clone, Copy)]
pub struct Uncounted;

impl Count for Uncounted {
    fn add(&self, _: Metric, _: &[&str], _: u64) {}
    fn set(&self, _: Metric, _: &[&str], _: f64) {}
    fn seconds(&self, _: Metric, _: &[&str], _: f64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_follow_prometheus_conventions() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(name.starts_with("isles_"), "{name}");
            assert_eq!(metric.kind() == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(!metric.help().is_empty());
        }
    }
}
