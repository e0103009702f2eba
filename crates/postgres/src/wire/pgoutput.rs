//! Reads the changes that PostgreSQL's output plugin `pgoutput` writes, protocol version 1 (PostgreSQL, chapter
//! 55.9 "Logical Replication Message Formats").
//!
//! Every length and count in the bytes is checked against what is there: a malformed message is an error, never a
//! panic.

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pgoutput message is malformed: {0}")]
pub struct Malformed(pub &'static str);
