//! Gives the right to write to a peer: when the database is lost, the agent stops, or somebody asks for it.

use std::time::Duration;

use isles_model::{
    Because, Copy, DatabaseRole, DatabaseState, Epoch, LeaseKey, LeaseState, Lineage, RegionReport, Revision,
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
        let (heir, because) = self.successor(key)?;
        Some(self.put_release(key, heir, because))
    }

    /// The heir that this region named cannot take the right, and neither can this region itself: names another.
    pub(crate) fn name_another_heir(self, lease: &Sighting, key: &LeaseKey) -> Option<Step> {
        let in_place = lease.revision != Revision::default() && key.epoch == self.view.newest;
        let heir = elect::heir(key).filter(|_| in_place && key.holder == self.config.region)?;
        let because = self.own_fitness(Some(key)).err()?;
        let may_take = elect::fit_peer(self.view, self.now, heir).is_some();
        let another = elect::best_peer(self.config, self.view, self.now).or_else(|| self.source(key))?;
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

    /// Who is given the right now, and why.
    fn successor(self, key: &LeaseKey) -> Option<(&'a RegionReport, Because)> {
        let best = elect::best_peer(self.config, self.view, self.now);
        let down_too_long =
            self.view.down_since.is_some_and(|down| self.now >= down.plus(self.config.database_grace));
        if let Some(stopping) = self.view.stopping {
            let late = self.now >= stopping.plus(HANDOVER_MAX) || self.stands(key.epoch).is_err();
            return best
                .filter(|heir| late || self.has_all(heir, key))
                .map(|heir| (heir, Because::HandingOver));
        }
        if self.view.down_since.is_some() {
            return best
                .filter(|heir| down_too_long || self.has_all(heir, key))
                .map(|heir| (heir, Because::DatabaseDown));
        }
        if let Some(heir) = self.asked_heir().filter(|heir| self.has_all(heir, key)) {
            return Some((heir, Because::HandingOver));
        }
        if self.promotion_hangs() {
            return best.map(|heir| (heir, Because::Promoting));
        }
        let unfit = self.stands(key.epoch).err().filter(|because| *because != Because::Starting)?;
        best.or_else(|| self.source(key)).map(|heir| (heir, unfit))
    }

    /// The right is on its way to a peer: writes wait here, and the own log comes to its end.
    pub(crate) fn hands_over(self) -> bool {
        if self.view.stopping.is_some() {
            return elect::best_peer(self.config, self.view, self.now).is_some();
        }
        self.asked_heir().is_some()
    }

    /// The region that somebody asked for lately, while it can become the writer without losing a write.
    fn asked_heir(self) -> Option<&'a RegionReport> {
        let (to, asked) = self.view.hand_over.as_ref()?;
        let tenure = self.hold.tenure()?;
        if self.now >= asked.plus(HANDOVER_MAX) || self.promoting(tenure) {
            return None;
        }
        elect::fit_peer(self.view, self.now, to).filter(|heir| self.follows(heir, tenure.epoch))
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
