//! The rehearsal: every region of a spec as real processes on one machine, with the distance between them emulated.
//!
//! Contains no special agent code: it starts the same `isles agent` that runs in production.

pub mod blueprint;
pub mod control;
pub mod crossing;
pub mod drill;
pub mod etcd;
pub mod http;
pub mod layout;
pub mod ports;
pub mod postgres;
pub mod processes;
pub mod report;
pub mod requirements;
mod sock_diag;
pub mod status;
pub mod supervisor;
pub mod table;
pub mod tail;
pub mod timeline;
pub mod wan;
