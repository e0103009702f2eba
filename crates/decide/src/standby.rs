//! Names the one region that may take over, with `commit: remote` and `bounded`: the one that every acknowledgement
//! waits for.
//!
//! The key names it, and the database waits for it; the two are changed in an order that leaves no acknowledged write
//! behind, wherever the writer dies. From one standby to another, the database waits for both until the new one has
//! everything, then the key is put, then the database waits for the new one alone. A standby that is lost with none to
//! replace it is struck from the key first, and waited for until that is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isles_model::{
    Because, CommitOrder, Copy, DatabaseOrder, DatabaseRole, Epoch, LeaseKey, Moment, RegionName,
    RegionReport, Successor, topology::Commit,
};

use serde::{Deserialize, Serialize};

use crate::{elect, right::Situation};

/// A standby that has confirmed nothing new for so long, though there was something, is lost.
const STANDBY_STUCK: Duration = Duration::from_secs(1);

/// A region that is farther behind than this is not waited for yet: commits would hang for as long.
const STANDBY_LAG_MAX: Duration = Duration::from_secs(1);

/// A region that commits no longer wait for is not waited for again before this: a report from before it was let go
/// would be taken for a new one.
const STANDBY_LEFT_FOR: Duration = Duration::from_secs(3);

/// Another region takes the standby's place while that one is well only if its round trip is so many times shorter,
/// and by so much.
const NEARER_TIMES: u32 = 2;
const NEARER_BY: Duration = Duration::from_millis(20);

/// Whom the commits of this run have been waiting for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Since the last tick.
    now: BTreeSet<RegionName>,
    /// Before that, each until when.
    left: BTreeMap<RegionName, Moment>,
}

impl Waiting {
    /// The plan of a tick: what commits wait for from now on.
    pub(crate) fn order(&mut self, now: Moment, order: &DatabaseOrder) {
        let next = match order {
            DatabaseOrder::Write { commit, .. } => commit.standbys.clone(),
            DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => BTreeSet::new(),
        };
        let last = std::mem::replace(&mut self.now, next);
        self.left
            .extend(last.into_iter().filter(|region| !self.now.contains(region)).map(|region| (region, now)));
        self.left.retain(|_, left| now < left.plus(STANDBY_LEFT_FOR));
    }
}

/// What the commits of the own tenure wait for.
#[derive(Debug)]
pub(crate) struct Protection {
    /// The database's order.
    pub(crate) order: CommitOrder,
    /// Whom the key has to name from now on, if that is another one.
    pub(crate) name: Option<Successor>,
    /// Why the right is as it is.
    pub(crate) because: Because,
}

impl<'a> Situation<'a> {
    /// What the commits of the own tenure, under this key, wait for now.
    pub(crate) fn protection(self, key: &LeaseKey) -> Protection {
        let bound = match self.config.commit {
            Commit::Async => {
                let name = (key.successor != Successor::Any).then_some(Successor::Any);
                return Protection { order: CommitOrder::default(), name, because: Because::HoldsLease };
            }
            Commit::Bounded(bound) => Some(bound),
            Commit::Remote => None,
        };
        let current = match &key.successor {
            Successor::Only { region } => Some(region),
            Successor::Any | Successor::Nobody => None,
        };
        let kept = current.filter(|region| self.confirms(region, key.epoch).is_some());
        let nearest = self.nearest_standby(key.epoch);
        let wanted = match (kept, nearest) {
            (Some(kept), Some(other)) if self.much_nearer(other, kept) => Some(other),
            (kept, nearest) => kept.or(nearest),
        };
        let mut standbys: BTreeSet<RegionName> = self.hold.possible_standbys(self.view);
        standbys.extend(wanted.cloned());
        let name = match wanted {
            Some(region) if current == Some(region) => None,
            Some(region) => {
                self.has_confirmed(region, &standbys).then(|| Successor::Only { region: region.clone() })
            }
            None => (key.successor != Successor::Nobody).then_some(Successor::Nobody),
        };
        let because = if current.is_some() { Because::HoldsLease } else { Because::Unprotected };
        Protection { order: CommitOrder { standbys, bound }, name, because }
    }

    /// Whom a key of a new epoch names: nobody follows its writer yet.
    pub(crate) fn nobody_yet(self) -> Successor {
        match self.config.commit {
            Commit::Async => Successor::Any,
            Commit::Bounded(_) | Commit::Remote => Successor::Nobody,
        }
    }

    /// Whether a region has every acknowledged write of the own tenure, or all that its mode promises.
    pub(crate) fn may_succeed(self, peer: &RegionReport, key: &LeaseKey) -> bool {
        match &key.successor {
            Successor::Any => true,
            Successor::Nobody => false,
            Successor::Only { region } => {
                let possible = self.hold.possible_standbys(self.view);
                *region == peer.region && possible.iter().all(|one| one == region)
            }
        }
    }

    /// The report of a region that follows this writer and confirms what it gets. One that is named already stays so
    /// while new tables are copied to it: acknowledgements wait until it has them.
    fn confirms(self, region: &RegionName, epoch: Epoch) -> Option<&'a RegionReport> {
        let peer = elect::fit_peer(self.view, self.now, region)?;
        let follows = matches!(&peer.database.role, DatabaseRole::Replica { writer, epoch: under, copy }
            if *writer == self.config.region && *under == epoch && *copy != Copy::Running);
        (follows && !self.is_stuck(region)).then_some(peer)
    }

    fn is_stuck(self, region: &RegionName) -> bool {
        let end = self.view.database.as_ref().map(|own| own.position).unwrap_or_default();
        self.view
            .confirmed
            .get(region)
            .is_some_and(|(position, since)| *position < end && self.now >= since.plus(STANDBY_STUCK))
    }

    /// The nearest region that may be waited for; of equals, the preferred one.
    fn nearest_standby(self, epoch: Epoch) -> Option<&'a RegionName> {
        let own = self.view.database.as_ref()?;
        let known = |region: &RegionName| own.standbys.confirmed.contains_key(region);
        let near = |region: &RegionName| self.view.peers.get(region).and_then(|peer| peer.rtt);
        let in_step = |peer: &RegionReport| peer.database.lag.is_none_or(|lag| lag.time <= STANDBY_LAG_MAX);
        let fit = self.config.peers().filter_map(|region| self.confirms(region, epoch));
        // Because a change of mind costs time, the one that is waited for already comes first.
        let fresh = |region: &RegionName| !self.waiting.now.contains(region);
        // Older acknowledged rows may be missing where a table is still copied for one that nobody waited for.
        let whole = |peer: &RegionReport| {
            matches!(peer.database.role, DatabaseRole::Replica { copy: Copy::Complete, .. })
        };
        fit.filter(|peer| whole(peer) && known(&peer.region) && in_step(peer) && self.may_begin(&peer.region))
            .min_by_key(|peer| {
                (fresh(&peer.region), near(&peer.region), self.config.preference(&peer.region))
            })
            .map(|peer| &peer.region)
    }

    /// What is reported of a region that commits begin to wait for now is of now, and not of an earlier time.
    fn may_begin(self, region: &RegionName) -> bool {
        let own = self.view.database.as_ref();
        let reported = own.is_some_and(|own| own.standbys.required.contains(region));
        self.waiting.now.contains(region) || !reported && !self.waiting.left.contains_key(region)
    }

    fn much_nearer(self, other: &RegionName, kept: &RegionName) -> bool {
        let rtt = |region: &RegionName| self.view.peers.get(region).and_then(|peer| peer.rtt);
        let (Some(other), Some(kept)) = (rtt(other), rtt(kept)) else { return false };
        other * NEARER_TIMES < kept && other + NEARER_BY < kept
    }

    /// The database waits for all of these by a report of now, and one of them has confirmed everything from before it did.
    fn has_confirmed(self, region: &RegionName, standbys: &BTreeSet<RegionName>) -> bool {
        let Some(own) = &self.view.database else { return false };
        let report = &own.standbys;
        let confirmed = report.confirmed.get(region).is_some_and(|position| *position >= report.since);
        confirmed && standbys.is_subset(&report.required)
    }
}
