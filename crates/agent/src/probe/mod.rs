//! Looks at what only this region can see: its own app instances, and whether its peers answer.

mod app;
pub(crate) mod http;
mod peer;

pub use app::{AppProbe, probe_apps};
pub use peer::{PeerProbe, probe_peer};
