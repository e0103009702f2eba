//! Counts what really happened in a run: faults by kind, what they did to the lease store, what was checked.

use std::fmt;

use crate::kind::Kind;

/// What a fault of the store, or of the way to it, did in one case.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effect {
    StoredUnanswered,
    Unanswered,
    Slow,
    Election,
    QuorumLost,
    WatchMissed,
    Duplicate,
}

impl Effect {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::StoredUnanswered, "puts stored whose answer was lost"),
        (Self::Unanswered, "requests lost or unanswered"),
        (Self::Slow, "requests served far too late"),
        (Self::Election, "elections after the leader was lost"),
        (Self::QuorumLost, "losses of the quorum"),
        (Self::WatchMissed, "watch events missed"),
        (Self::Duplicate, "puts delivered twice"),
    ];
}

/// The invariants by the names in which a violation tells them.
pub(crate) const INVARIANTS: [&str; 10] =
    ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "HELM", "ORDERS", "READ"];

/// The counts of a run, or of many.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    faults: [u64; Kind::NAMES.len()],
    effects: [u64; Effect::NAMES.len()],
    pub(crate) checks: [u64; INVARIANTS.len()],
}

impl Tally {
    pub(crate) fn strike(&mut self, kind: Kind) {
        self.faults[kind as usize] += 1;
    }

    pub(crate) fn count(&mut self, effect: Effect) {
        self.effects[effect as usize] += 1;
    }

    /// An invariant was held against what happened.
    pub(crate) fn check(&mut self, invariant: &'static str) {
        if let Some(index) = INVARIANTS.iter().position(|name| *name == invariant) {
            self.checks[index] += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let pairs = |a: &mut [u64], b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        pairs(&mut self.faults, &other.faults);
        pairs(&mut self.effects, &other.effects);
        pairs(&mut self.checks, &other.checks);
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// How many kinds of faults occurred.
    pub(crate) fn kinds(&self) -> usize {
        self.faults.iter().filter(|count| **count > 0).count()
    }

    pub(crate) fn checks(&self) -> u64 {
        self.checks.iter().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |names: &mut dyn Iterator<Item = (&str, u64)>| {
            names.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let faults = &mut Kind::NAMES.iter().map(|(kind, name)| (*name, self.faults[*kind as usize]));
        writeln!(f, "faults: {}", line(faults))?;
        let effects = &mut Effect::NAMES.iter().map(|(effect, name)| (*name, self.effects[*effect as usize]));
        writeln!(f, "the store and the way to it: {}", line(effects))?;
        let checks = &mut INVARIANTS.iter().copied().zip(self.checks);
        write!(f, "checks (ARCHITECTURE.md says what each one means): {}", line(checks))
    }
}
