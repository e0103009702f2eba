//! Bytes of PostgreSQL's protocols.

pub mod pgoutput;
