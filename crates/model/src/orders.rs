//! What the operator has ordered: kept in the lease store beside the key, so that an order outlives the command, the
//! agent and the region that took it.
//!
//! An order says what is wanted. Whether, when and how is decided in `decide`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Epoch, RegionName};

/// All standing orders (JSON, one key, changed by compare-and-put).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// Regions that take no users and no right to write until they are undrained.
    pub drained: BTreeSet<RegionName>,
    /// Nobody takes the right over by itself while this is set.
    pub maintenance: bool,
    /// The last move of the right that was asked for.
    pub transfer: Option<Transfer>,
}

/// A move of the right to write. It stands only while the key is of the epoch it was ordered under, so carrying it
/// out ends it, and an old one can never be carried out twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// One more than the last one's: the same move may be asked for again.
    pub number: u64,
    /// To whom.
    pub to: RegionName,
    /// How.
    pub kind: TransferKind,
    /// The epoch under which it was ordered.
    pub from: Epoch,
}

/// How the right is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    /// The writer hands over once the other has every write; it goes on writing if that takes too long.
    Switchover,
    /// The writer is lost: the other takes the right as soon as it has ended, though it may lack writes.
    Failover,
}
