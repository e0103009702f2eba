//! Runs each region's PostgreSQL: finds the programs, prepares one empty cluster and copies it, starts servers that
//! only the agent and the other regions' replication can reach.

mod cluster;
mod find;

pub use cluster::{Cluster, ClusterError, Template};
pub use find::{PostgresMissing, Programs, VERSION_MIN};

/// The superuser of every lab database: reached through the socket's directory, which only the agent may enter.
pub const ADMIN_USER: &str = "isles";
/// The role that streams between regions.
pub const REPLICATION_USER: &str = "isles_replication";
