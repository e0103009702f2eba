//! The HTTP edge of one region: takes users' requests, answers safe ones nearby, brings writes to the writer, and
//! hides the death of an app instance or of a whole region where that can be done without doing a write twice.
//!
//! Decides nothing about regions: who may serve and who may write comes in the [`Plan`](isles_model::Plan).
//!
//! The way of a request: `listen` accepts it, `client` and `head` refuse what two programs could read in two ways,
//! `exchange` asks `route` where it goes, `attempt` brings it there over a connection of `pool`, and `hold` makes it
//! wait while nobody may serve it.

mod answer;
mod attempt;
mod body;
mod chunk;
mod client;
mod edge;
mod exchange;
mod head;
mod hold;
mod hop;
mod link;
mod listen;
mod peer;
mod pool;
mod request;
mod route;
mod serve;
mod silence;
mod tunnel;

pub use listen::{EdgeConfig, EdgeError, run};
