//! Decides, for one region, who may write and who serves.
//!
//! Pure: no clock, no chance, no waiting, no I/O. Facts come in through [`Helm::observe`], orders go out of
//! [`Helm::tick`], and the same facts at the same moments give the same bytes. The driver in the agent crate
//! probes, reads and puts; the simulation in `tests/sim` runs many helms in virtual time.

mod answers;
mod config;
mod elect;
pub mod foresee;
mod handover;
mod helm;
mod hold;
mod promise;
mod right;
mod standby;
mod view;

pub use config::HelmConfig;
pub use helm::{Decision, Helm};
