//! The rehearsal: every region of a spec as real processes on one machine, with the distance between them emulated.
//!
//! Contains no special agent code: it starts the same `isles agent` that runs in production.

pub mod control;
pub mod wan;
