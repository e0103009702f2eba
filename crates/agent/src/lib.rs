//! The agent of one region: carries facts up to the helm and plans down to the actuators.
//!
//! Decides nothing: `isles-decide` does. Spawns no databases and no apps: whoever starts the agent does.

pub mod ask;
pub mod clock;
pub mod control;
pub mod journal;
pub mod lease;
pub mod meter;
pub mod probe;
pub mod promise;
pub mod sentry;
pub mod steer;
mod wiring;

pub use isles_decide::foresee;
pub use isles_postgres::ledger;
pub use wiring::{AgentError, LEDGER_FILE, run};
