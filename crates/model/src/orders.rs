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

/// One change of the standing orders that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Change {
    /// The region takes no users and no right to write from now on.
    Drain {
        /// Which.
        region: RegionName,
    },
    /// It may again.
    Undrain {
        /// Which.
        region: RegionName,
    },
    /// Nobody takes the right over by itself while this is on.
    Maintenance {
        /// On or off.
        on: bool,
    },
    /// The right to write moves.
    Transfer {
        /// To whom.
        to: RegionName,
        /// How.
        kind: TransferKind,
    },
}

impl Change {
    /// The region that it is about.
    pub fn region(&self) -> Option<&RegionName> {
        match self {
            Self::Drain { region } | Self::Undrain { region } | Self::Transfer { to: region, .. } => {
                Some(region)
            }
            Self::Maintenance { .. } => None,
        }
    }
}

impl Orders {
    /// The orders after a change asked for under `epoch`; `None` when they say so already. A transfer that stands
    /// keeps its number, so that a command that died half-way can be typed again.
    #[must_use]
    pub fn after(&self, change: &Change, epoch: Epoch) -> Option<Self> {
        let mut after = self.clone();
        match change {
            Change::Drain { region } => drop(after.drained.insert(region.clone())),
            Change::Undrain { region } => drop(after.drained.remove(region)),
            Change::Maintenance { on } => after.maintenance = *on,
            Change::Transfer { to, kind } => {
                let standing = self.transfer.as_ref().filter(|transfer| transfer.from == epoch);
                if standing.is_none_or(|transfer| transfer.to != *to || transfer.kind != *kind) {
                    let number =
                        self.transfer.as_ref().map_or(1, |transfer| transfer.number.saturating_add(1));
                    after.transfer = Some(Transfer { number, to: to.clone(), kind: *kind, from: epoch });
                }
            }
        }
        (after != *self).then_some(after)
    }
}

/// A change with its author, as sent to an agent (`POST /v1/orders`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRequest {
    /// What.
    pub change: Change,
    /// Who asks, at most [`WHO_BYTES_MAX`].
    pub who: String,
    /// Why, at most [`WHY_BYTES_MAX`]; may be empty.
    pub why: String,
}

/// The longest name of an author, in bytes.
pub const WHO_BYTES_MAX: usize = 128;
/// The longest reason, in bytes.
pub const WHY_BYTES_MAX: usize = 512;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersAnswer {
    /// The standing orders now.
    pub orders: Orders,
    /// The audit entry written; `None` when the orders said so already.
    pub entry: Option<u64>,
}

/// One change that was made: written in the same transaction as the change itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts every change of the orders from 1.
    pub number: u64,
    /// Wall-clock time of the agent that wrote it, in milliseconds since 1970 UTC. For people; nothing is decided by it.
    pub at_ms: u64,
    /// Who asked.
    pub who: String,
    /// Why.
    pub why: String,
    /// What.
    pub change: Change,
    /// The epoch it was asked under.
    pub epoch: Epoch,
    /// The region whose agent wrote it.
    pub by: RegionName,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RegionName {
        text.parse().unwrap()
    }

    #[test]
    fn a_transfer_typed_again_is_the_same_one_until_it_is_carried_out() {
        let change = |to: &str| Change::Transfer { to: name(to), kind: TransferKind::Switchover };
        let first = Orders::default().after(&change("us"), Epoch(3)).unwrap();
        assert_eq!(first.transfer.as_ref().unwrap().number, 1);
        assert_eq!(first.after(&change("us"), Epoch(3)), None);
        assert_eq!(first.after(&change("ap"), Epoch(3)).unwrap().transfer.unwrap().number, 2);
        assert_eq!(first.after(&change("us"), Epoch(4)).unwrap().transfer.unwrap().number, 2);
    }

    #[test]
    fn a_change_that_changes_nothing_is_none() {
        let drain = Change::Drain { region: name("us") };
        let drained = Orders::default().after(&drain, Epoch(1)).unwrap();
        assert_eq!(drained.after(&drain, Epoch(1)), None);
        assert_eq!(drained.after(&Change::Undrain { region: name("us") }, Epoch(1)), Some(Orders::default()));
        assert_eq!(Orders::default().after(&Change::Maintenance { on: false }, Epoch(1)), None);
    }
}
