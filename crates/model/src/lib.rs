//! The nouns that the crates of Isles exchange: names, facts, plans, topology, metric names.
//!
//! Knows nothing of the world: no socket, no clock, no file. A type enters only if two crates exchange it.

pub mod config;
pub mod credential;
pub mod drill;
pub mod fact;
pub mod ids;
pub mod lease;
pub mod metric;
pub mod orders;
pub mod plan;
pub mod rtt;
pub mod snapshot;
pub mod spec;
pub mod topology;

pub use config::AgentConfig;
pub use credential::EpochSecret;
pub use fact::{
    AppReport, Copy, DatabaseReport, DatabaseRole, DatabaseState, Fact, Lag, LeaseOutcome, Lineage,
    NoPromise, PROMISE_MAX, PromiseAnswer, PromiseRequest, RegionReport, Standbys,
};
pub use ids::{Epoch, InvalidName, Lsn, Moment, RegionName, Revision};
pub use lease::{AttemptId, LeaseKey, LeaseOrder, LeaseState, Successor};
pub use metric::{Label, Meter, Metric};
pub use orders::{AuditEntry, Change, OrderRequest, Orders, OrdersAnswer, Transfer, TransferKind};
pub use plan::{Because, CommitOrder, DatabaseOrder, Plan, Serving, Writes};
pub use snapshot::Snapshot;
pub use spec::{Checked, Spec, SpecErrors};
pub use topology::Topology;
