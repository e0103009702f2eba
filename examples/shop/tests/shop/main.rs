//! The shop over HTTP against a real PostgreSQL, which is stopped, cut off and restarted under it.

mod cluster;
mod losing;
mod process;
mod relay;
mod selling;
mod visitor;
