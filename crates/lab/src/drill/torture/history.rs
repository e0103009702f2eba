//! What the clients of a torture did and saw: one line for each try, exported as JSON lines beside the report.

use std::io::{self, Write};

use isles_model::RegionName;
use serde::{Deserialize, Serialize};

/// The most tries that are kept of one torture; beyond it the clients stop.
pub const TRIES_MAX: usize = 1_000_000;

/// One try of one client; the tries of a client follow one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Unique among all clients of all regions.
    pub client: u32,
    /// The region whose write gate it went through.
    pub via: RegionName,
    /// When it began, in microseconds of the drill's clock.
    pub begun_us: u64,
    /// When its end was known, or it was given up.
    pub ended_us: u64,
    /// What the client knows.
    pub outcome: Outcome,
    /// The port of the database that answered: tells one region's from another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<u16>,
    /// What was tried.
    #[serde(flatten)]
    pub what: What,
}

/// What a client knows of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was acknowledged.
    Ok,
    /// It may have been carried out or not.
    Unknown,
    /// It never left: there was no connection.
    Unsent,
}

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum What {
    /// Appends a number that nobody else appends, and reads the whole list back in the same transaction.
    Append {
        /// Which list.
        list: u64,
        /// The number.
        element: u64,
        /// The list afterwards; empty unless acknowledged.
        seen: Vec<u64>,
    },
    /// Reads a list through the write gate.
    Read {
        /// Which list.
        list: u64,
        /// What it held; empty unless acknowledged.
        seen: Vec<u64>,
    },
    /// Sets a register to a number that nobody else sets, and learns what it held.
    Swap {
        /// Which register.
        register: u64,
        /// The number.
        new: u64,
        /// What it held before; 0: its beginning, or not known.
        old: u64,
    },
}

impl Op {
    /// Whether it was acknowledged.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Whether it writes.
    pub fn writes(&self) -> bool {
        matches!(self.what, What::Append { .. } | What::Swap { .. })
    }
}

/// Writes one line for each try.
///
/// # Errors
/// Those of writing.
pub fn export(ops: &[Op], mut to: impl Write) -> io::Result<()> {
    for op in ops {
        serde_json::to_writer(&mut to, op)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}
