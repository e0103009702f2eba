//! The right to write: one key in the lease store, renewed by compare-and-put.
//!
//! Observers time the key's last *change* on their own clock; the store's own leases are not used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Epoch, RegionName, Revision};

/// The value of the key, as stored (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The term this right belongs to.
    pub epoch: Epoch,
    /// Who has it, or had it last.
    pub holder: RegionName,
    /// Grows with each renewal, so that each is a change.
    pub seq: u64,
    /// Whether the holder still has it.
    pub state: LeaseState,
    /// How long the right lasts after this change: holder and observers count the same TTL, whatever they are
    /// configured with.
    pub ttl: Duration,
    /// Who may take over without being told to, when the holder is lost.
    pub successor: Successor,
    /// Takeovers in a row without ten quiet minutes between them; a restless right lasts longer.
    pub unrest: u32,
}

/// Who may take the right over without being told to.
///
/// With `commit: async` any region may. Otherwise the key names the one region that every acknowledged write has
/// reached, and is changed *before* an acknowledgement counts on another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Successor {
    /// Any region with a complete copy.
    Any,
    /// Only this one: it has every acknowledged write (`commit: remote`), or all but the newest (`bounded`).
    Only {
        /// Which.
        region: RegionName,
    },
    /// No one but the holder: its writes are on no other region, as none can be reached.
    Nobody,
}

/// Whether the holder still has the right to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It has, until a TTL after the last change.
    Held,
    /// It gave the right back after closing its gate; anyone may claim at once. `heir` goes first where one is named.
    Released {
        /// The region that the holder found in step with itself.
        heir: Option<RegionName>,
    },
}

/// Tells one compare-and-put from the next, so that a late answer is not taken for a newer one's.
/// Unique within one run of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(pub u64);

/// A compare-and-put that the helm asks for: `value` is stored only if the key is still at `expected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOrder {
    /// Comes back with the outcome.
    pub attempt: AttemptId,
    /// The revision the key must still have; 0: the key must not exist.
    pub expected: Revision,
    /// What to store.
    pub value: LeaseKey,
}
