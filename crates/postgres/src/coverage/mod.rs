//! Holds acknowledgements while a table is so new that a standby does not have it yet.
//!
//! PostgreSQL's logical replication carries rows and no schemas. A table that was just made reaches the replicas a
//! moment later, and is then copied; until it is, a replica confirms the log of the table's rows without having them.
//! So neither a synchronous commit nor a bound protects such a row, and an acknowledgement would promise what is not
//! so. A table is *covered* once every standby has it whole and applies its changes.
//!
//! The gates note each commit that may have made or changed a table, before any answer of that commit is given to
//! anybody; from then on no acknowledgement passes, of whatever session, as any may know of the table. [`keep`] asks
//! the standbys, and lets them pass when all tables are covered. Where no standby is named nothing is held.

pub(crate) mod keep;
mod tables;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::{Notify, watch};

/// What the gates have noted and what is covered, shared between the gates and the database's actuator.
#[derive(Debug, Clone, Default)]
pub struct Coverage(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether acknowledgements wait for any region.
    demanded: AtomicBool,
    /// How many commits were noted.
    noted: AtomicU64,
    /// How many of those are covered, and everything before them.
    covered: AtomicU64,
    rung: Notify,
    passes: watch::Sender<()>,
}

impl Coverage {
    /// Nothing noted, nothing demanded.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A commit may have made or changed a table: acknowledgements wait from here on.
    pub(crate) fn note(&self) {
        self.0.noted.fetch_add(1, Ordering::AcqRel);
        self.0.rung.notify_one();
    }

    /// Do acknowledgements wait?
    pub(crate) fn holds(&self) -> bool {
        self.0.demanded.load(Ordering::Acquire)
            && self.0.noted.load(Ordering::Acquire) != self.0.covered.load(Ordering::Acquire)
    }

    /// Changes whenever acknowledgements may pass that had to wait.
    pub(crate) fn passes(&self) -> watch::Receiver<()> {
        self.0.passes.subscribe()
    }

    /// How many commits were noted.
    pub(crate) fn noted(&self) -> u64 {
        self.0.noted.load(Ordering::Acquire)
    }

    /// Ends when something was noted since it ended last.
    async fn rung(&self) {
        self.0.rung.notified().await;
    }

    /// All that was noted up to here is covered.
    pub(crate) fn cover(&self, noted: u64) {
        if self.0.covered.swap(noted, Ordering::AcqRel) != noted {
            self.0.passes.send_replace(());
        }
    }

    /// Sets whether acknowledgements wait for any region at all. Where they have not, nothing noted counts.
    pub(crate) fn demand(&self, demanded: bool) {
        if self.0.demanded.load(Ordering::Acquire) != demanded {
            self.cover(self.noted());
            self.0.demanded.store(demanded, Ordering::Release);
            self.0.passes.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_wait_from_a_note_until_it_is_covered_and_only_where_that_is_demanded() {
        let coverage = Coverage::new();
        coverage.note();
        assert!(!coverage.holds(), "nobody waits for anybody");
        coverage.demand(true);
        assert!(!coverage.holds(), "what was noted before does not count");
        coverage.note();
        let noted = coverage.noted();
        coverage.note();
        coverage.cover(noted);
        assert!(coverage.holds(), "a later one is not covered yet");
        coverage.cover(coverage.noted());
        assert!(!coverage.holds());
        coverage.note();
        let mut passes = coverage.passes();
        passes.mark_unchanged();
        coverage.demand(false);
        assert!(!coverage.holds() && passes.has_changed().unwrap());
    }
}
