//! One region's PostgreSQL between the others: who may write to it, whom it follows, what it alone holds.
//!
//! [`run()`] brings the database to what a plan orders and reports what it is. Replication is PostgreSQL's own
//! (logical replication, one writer), over stock PostgreSQL 15 and newer. [`gate`] is the door the app
//! comes through. Nothing is decided here.

mod admission;
mod bookkeeping;
mod bounded;
mod coverage;
mod crash;
mod error;
mod fence;
mod findings;
mod follow;
pub mod gate;
mod lag;
pub mod ledger;
mod lineage;
mod link;
mod measure;
mod preflight;
mod probe;
mod promote;
mod publish;
mod rebuild;
mod reconcile;
mod rejoin;
mod roles;
mod room;
mod run;
mod schema;
pub mod sentry;
mod sequences;
mod slots;
mod standbys;
mod subscription;
mod verifier;
pub mod wire;

pub use coverage::Coverage;
pub use error::DatabaseError;
pub use findings::{FINDINGS_MAX, Findings};
pub use probe::{ANSWER_MAX, REPORT_EVERY};
pub use run::{PostgresConfig, run};
