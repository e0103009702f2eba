//! Gives the right to write to a peer: when the database is lost, the agent stops, or somebody asks for it.

use std::time::Duration;

use isles_model::{
    Because, Copy, DatabaseRole, DatabaseState, Epoch, LeaseKey, LeaseState, Lineage, RegionReport, Revision,
    Successor, TransferKind, topology::Commit,
};

use crate::{
    elect,
    hold::{Purpose, Tenure},
    right::{Situation, Step},
    view::Sighting,
};

/// How long a holder, its gate shut, waits for a peer to have all of its log. After that a stopping one gives the
/// right to the peer that has most; one that was asked to hand over goes on writing.
const HANDOVER_MAX: Duration = Duration::from_secs(5);

/// How long a drained writer goes on writing before it tries again to hand over.
const DRAIN_PAUSE: Duration = Duration::from_secs(10);

/// How long a holder's database may take to be promoted before a peer is given the right instead.
const PROMOTION_MAX: Duration = Duration::from_secs(15);

impl<'a> Situation<'a> {
    /// Gives the right to a peer when the own database is lost, the agent stops or somebody asked for it, and a peer
    /// can take it. The plan of the same tick has no deadline any more, so the gate is shut before the put can
    /// have been stored.
    pub(crate) fn give_back(self, key: &LeaseKey) -> Option<Step> {
        // Because a former run's gate is known to be shut only after a TTL, only an own tenure is given back early.
        let gate_is_shut = self.hold.held() == key.epoch || self.source(key).is_some();
        if !gate_is_shut || !self.hold.may_put(self.view) {
            return None;
        }
        let (heir, because) = self.heir(key)?;
        Some(self.put_release(key, heir, because))
    }

    /// The heir that this region named cannot take the right, and neither can this region itself: names another.
    pub(crate) fn name_another_heir(self, lease: &Sighting, key: &LeaseKey) -> Option<Step> {
        let in_place = lease.revision != Revision::default() && key.epoch == self.view.newest;
        let heir = elect::heir(key).filter(|_| in_place && key.holder == self.config.region)?;
        let because = self.own_fitness(Some(key)).err()?;
        let may_take = elect::fit_peer(self.view, self.now, heir).is_some();
        let safe = self.best_heir(key).filter(|another| self.may_succeed(another, key));
        let another = safe.or_else(|| self.source(key))?;
        let useful = !may_take && another.region != *heir && self.hold.may_put(self.view);
        useful.then(|| self.put_release(key, another, because))
    }

    fn put_release(self, key: &LeaseKey, heir: &RegionReport, because: Because) -> Step {
        let state = LeaseState::Released { heir: Some(heir.region.clone()) };
        let value = LeaseKey { seq: self.hold.next_seq(key), state, ..key.clone() };
        Step { put: Some((Purpose::Release, value)), because, wake: None }
    }

    /// The last writer, when this region claimed while its own copy of that writer was being made anew: it was
    /// never promoted, so the last writer still has the newest rows.
    fn source(self, key: &LeaseKey) -> Option<&'a RegionReport> {
        let DatabaseRole::Replica { writer, epoch, copy: Copy::Running } = &self.view.database.as_ref()?.role
        else {
            return None;
        };
        let wrote = Lineage { epoch: *epoch, wrote: true };
        let last = self.view.fresh(writer, self.now).filter(|_| epoch.next() == key.epoch)?;
        let up = last.database.state == DatabaseState::Up && last.database.lineage == wrote;
        (up && !last.draining).then_some(last)
    }

    /// Who is given the right now, and why. Only a region that has every acknowledged write, as far as the commit mode
    /// promises it: the one that the key names, or one that is seen to have the whole log.
    fn heir(self, key: &LeaseKey) -> Option<(&'a RegionReport, Because)> {
        let best = self.best_heir(key);
        if let Some(stopping) = self.view.stopping {
            let late = self.now >= stopping.plus(HANDOVER_MAX) || self.stands(key.epoch).is_err();
            return best
                .filter(|heir| self.has_all(heir, key) || late && self.may_succeed(heir, key))
                .map(|heir| (heir, Because::HandingOver));
        }
        if let Some(down) = self.view.down_since {
            let missing_none = self.config.commit == Commit::Remote;
            let waited = missing_none || self.now >= down.plus(self.config.database_grace);
            return best
                .filter(|heir| self.has_all(heir, key) || waited && self.may_succeed(heir, key))
                .map(|heir| (heir, Because::DatabaseDown));
        }
        if let Some(heir) = self.asked_heir().filter(|heir| self.has_all(heir, key)) {
            return Some((heir, Because::HandingOver));
        }
        let safe = best.filter(|heir| self.may_succeed(heir, key) || self.has_all(heir, key));
        if self.promotion_hangs() {
            return safe.map(|heir| (heir, Because::Promoting));
        }
        let unfit = self.stands(key.epoch).err().filter(|because| *because != Because::Starting)?;
        safe.or_else(|| self.source(key)).map(|heir| (heir, unfit))
    }

    /// The standby that the key names, else the region that holds most.
    fn best_heir(self, key: &LeaseKey) -> Option<&'a RegionReport> {
        let named = match &key.successor {
            Successor::Only { region } => elect::fit_peer(self.view, self.now, region),
            Successor::Any | Successor::Nobody => None,
        };
        named.or_else(|| elect::best_peer(self.config, self.view, self.now))
    }

    /// The right is on its way to a peer: writes wait here, and the own log comes to its end.
    pub(crate) fn hands_over(self) -> bool {
        if self.view.stopping.is_some() {
            return elect::best_peer(self.config, self.view, self.now).is_some();
        }
        self.asked_heir().is_some()
    }

    /// The region that an operator's order gives the right to, while it can become the writer without losing a write:
    /// the one that was asked for, or any other when this one is drained.
    fn asked_heir(self) -> Option<&'a RegionReport> {
        let tenure = self.hold.tenure()?;
        if self.promoting(tenure) {
            return None;
        }
        self.switchover_heir(tenure).or_else(|| self.drain_heir(tenure))
    }

    fn switchover_heir(self, tenure: Tenure) -> Option<&'a RegionReport> {
        let transfer = self.view.transfer().filter(|transfer| transfer.kind == TransferKind::Switchover)?;
        let asked = self.view.transfer_seen.max(tenure.since);
        if self.now >= asked.plus(HANDOVER_MAX) {
            return None;
        }
        elect::fit_peer(self.view, self.now, &transfer.to).filter(|heir| self.follows(heir, tenure.epoch))
    }

    /// A drained writer tries for a while, writes on, and tries again.
    fn drain_heir(self, tenure: Tenure) -> Option<&'a RegionReport> {
        let since = self.view.drained_since?.max(tenure.since);
        let turn = (HANDOVER_MAX + DRAIN_PAUSE).as_nanos();
        if self.now.since(since).as_nanos() % turn >= HANDOVER_MAX.as_nanos() {
            return None;
        }
        elect::best_peer(self.config, self.view, self.now).filter(|heir| self.follows(heir, tenure.epoch))
    }

    /// This region is drained by order, and writes on because no other can take the right.
    pub(crate) fn drained_alone(self) -> bool {
        self.view.drained_since.is_some() && self.hold.tenure().is_some() && self.asked_heir().is_none()
    }

    /// Whether this region takes no new work.
    pub(crate) fn drains(self) -> bool {
        self.view.stopping.is_some() || self.view.drained_since.is_some() && !self.drained_alone()
    }

    fn promotion_hangs(self) -> bool {
        let tenure = self.hold.tenure().filter(|tenure| self.promoting(*tenure));
        tenure.is_some_and(|tenure| self.now >= tenure.since.plus(PROMOTION_MAX))
    }

    fn promoting(self, tenure: Tenure) -> bool {
        let own = self.view.database.as_ref();
        own.is_some_and(|own| own.lineage != Lineage { epoch: tenure.epoch, wrote: true })
    }

    /// A peer holds all of this writer's tables.
    fn follows(self, peer: &RegionReport, epoch: Epoch) -> bool {
        matches!(&peer.database.role, DatabaseRole::Replica { writer, epoch: under, copy: Copy::Complete }
            if *writer == self.config.region && *under == epoch)
    }

    /// The own database takes no writes any more, and a peer has applied the last of them.
    fn has_all(self, peer: &RegionReport, key: &LeaseKey) -> bool {
        let applied = peer.database.position;
        self.follows(peer, key.epoch) && self.view.last_write.is_some_and(|last| applied >= last)
    }
}
