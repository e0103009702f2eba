//! Chooses the next compare-and-put on the right to write: claim, renew, or wait, and says why.
//!
//! When and to whom it is given back is in [`crate::handover`].

use std::time::Duration;

use isles_model::{
    Because, Copy, DatabaseRole, DatabaseState, Epoch, LeaseKey, LeaseState, Lineage, Moment, Revision,
    Successor, topology::Commit,
};

use crate::{
    HelmConfig, elect,
    hold::{Hold, Purpose},
    standby::{Protection, Waiting},
    view::{Sighting, View},
};

/// How long all others leave the right to the region that was ordered to take it.
const FORCED_FIRST: Duration = Duration::from_secs(10);

/// What to do about the right to write now.
#[derive(Debug)]
pub(crate) struct Step {
    /// A put, if one is due.
    pub(crate) put: Option<(Purpose, LeaseKey)>,
    /// Why this one, or why none.
    pub(crate) because: Because,
    /// When the answer may change by itself.
    pub(crate) wake: Option<Moment>,
}

impl Step {
    fn wait(because: Because) -> Self {
        Self { put: None, because, wake: None }
    }

    fn wait_until(because: Because, wake: Moment) -> Self {
        Self { put: None, because, wake: Some(wake) }
    }
}

/// Everything that a step depends on.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) config: &'a HelmConfig,
    pub(crate) view: &'a View,
    pub(crate) hold: &'a Hold,
    pub(crate) waiting: &'a Waiting,
    /// Until when this region has promised to claim nothing.
    pub(crate) promised: Moment,
    pub(crate) now: Moment,
}

impl<'a> Situation<'a> {
    /// What to do about the right to write now.
    pub(crate) fn step(self) -> Step {
        let Some(lease) = &self.view.lease else {
            let silent = self.view.store_silent;
            return Step::wait(if silent { Because::LeaseStoreSilent } else { Because::Starting });
        };
        match &lease.key {
            None if self.view.newest == Epoch::NONE => self.found(),
            None => self.claim(lease, None),
            Some(key) if self.is_own(lease, key) => self.own(lease, key),
            Some(key) => self.name_another_heir(lease, key).unwrap_or_else(|| self.claim(lease, Some(key))),
        }
    }

    /// The key names this region, is where it was, and no newer epoch is known.
    fn is_own(self, lease: &Sighting, key: &LeaseKey) -> bool {
        let in_place = lease.revision != Revision::default() && key.epoch == self.view.newest;
        in_place && key.holder == self.config.region && key.state == LeaseState::Held
    }

    /// Nobody has ever written: the primary takes the first epoch.
    fn found(self) -> Step {
        if !self.config.is_primary() {
            return Step::wait(Because::WaitingForPrimary);
        }
        if self.view.stopping.is_some() {
            return Step::wait(Because::Draining);
        }
        let Some(database) = &self.view.database else { return Step::wait(Because::Starting) };
        if let Err(because) = elect::fitness(database, Epoch::NONE) {
            return Step::wait(because);
        }
        if self.now < self.view.settled_at() {
            return Step::wait_until(Because::Starting, self.view.settled_at());
        }
        self.put_claim(None, Epoch::NONE.next())
    }

    /// The right is this region's, or was when its agent last ran.
    fn own(self, lease: &Sighting, key: &LeaseKey) -> Step {
        if let Some(step) = self.give_back(key) {
            return step;
        }
        if self.hold.tenure().is_some() {
            return self.renew(key);
        }
        if self.view.stopping.is_some() {
            let given_back = self.hold.held() != key.epoch || !self.hands_over();
            return Step::wait(if given_back { Because::Draining } else { Because::HandingOver });
        }
        match self.stands(key.epoch) {
            Ok(()) => self.reclaim(key),
            Err(because) if self.now < lease.ends(self.config) => Step::wait(because),
            Err(_) => self.claim(lease, Some(key)),
        }
    }

    fn reclaim(self, key: &LeaseKey) -> Step {
        let step = self.put_claim(Some(key), key.epoch);
        if step.put.is_some() || self.hold.waits() {
            return step;
        }
        Step::wait(if self.view.store_silent { Because::LeaseStoreSilent } else { Because::LeaseLapsed })
    }

    /// Prolongs the right when that is due, and at once when the key has to name another standby.
    fn renew(self, key: &LeaseKey) -> Step {
        let due = self.hold.renewal_due(self.config);
        let Protection { name, because, .. } = self.protection(key);
        let mut step = Step::wait_until(because, due);
        if self.drained_alone() {
            step.because = Because::NobodyElse;
        }
        if self.now >= self.hold.renewed().plus(self.config.usable(key.ttl)) {
            step.because = Because::HoldsByPromise;
        }
        if (self.now >= due || name.is_some()) && self.hold.may_put(self.view) {
            let unrest = self.hold.unrest(self.now, self.view, self.config, key);
            let value = LeaseKey {
                seq: self.hold.next_seq(key),
                ttl: self.config.ttl_after(unrest),
                successor: name.unwrap_or_else(|| key.successor.clone()),
                unrest,
                ..key.clone()
            };
            step.put = Some((Purpose::Renew, value));
        }
        step
    }

    /// Whether the own database is the one that this epoch's right was given to: it wrote the epoch, or was never
    /// promoted under it.
    pub(crate) fn stands(self, epoch: Epoch) -> Result<(), Because> {
        let own = self.view.database.as_ref().ok_or(Because::Starting)?;
        if own.state == DatabaseState::Down {
            return Err(Because::DatabaseDown);
        }
        if matches!(own.role, DatabaseRole::Replica { copy: Copy::Running, .. }) {
            return Err(Because::CopyIncomplete);
        }
        if own.lineage.epoch == epoch {
            return if own.lineage.wrote { Ok(()) } else { Err(Because::CopyDiverged) };
        }
        if own.lineage.epoch > Epoch::NONE {
            return Ok(());
        }
        // An empty database is the first epoch's writer before its promotion, unless somebody has rows already.
        let written = epoch > Epoch::NONE.next() || self.view.peers_have_rows();
        if written {
            return Err(Because::CopyIncomplete);
        }
        if self.now < self.view.settled_at() { Err(Because::Starting) } else { Ok(()) }
    }

    /// The right is somebody else's, was given back, or its key is lost: takes it when it is free and the turn
    /// has come.
    fn claim(self, lease: &Sighting, key: Option<&LeaseKey>) -> Step {
        let Self { config, view, now, .. } = self;
        let held = key.is_none_or(|key| key.state == LeaseState::Held);
        let free = if held { lease.ends(config) } else { lease.changed };
        if now < free {
            let quiet = now.since(lease.changed) >= free.since(lease.changed) / 2;
            let because = if quiet { Because::WaitingForLeaseEnd } else { Because::LeaseElsewhere };
            return Step::wait_until(because, free);
        }
        let free = if held { free.max(self.promised) } else { free };
        if now < free {
            return Step::wait_until(Because::Promised, free);
        }
        if view.stopping.is_some() {
            return Step::wait(Because::Draining);
        }
        if let Err(because) = self.may_take(lease, key) {
            return Step::wait(because);
        }
        let turn = match self.own_fitness(key).and_then(|()| self.turn(key)) {
            Ok(turn) => turn,
            Err(because) => return Step::wait(because),
        };
        // Because the holder compared all copies when it named an heir, the heir need not.
        let compared = if self.is_heir(key) { free } else { free.max(view.settled_at()) };
        let at = compared.plus(turn.after);
        if now < at {
            return Step::wait_until(turn.because, at);
        }
        if view.store_silent {
            return Step::wait(Because::LeaseStoreSilent);
        }
        self.put_claim(key, view.newest.next())
    }

    /// Whether this region may take the right over at all, once it is free. An order to take it in spite of what may
    /// be lost lifts every bar but that of the lease itself.
    fn may_take(self, lease: &Sighting, key: Option<&LeaseKey>) -> Result<(), Because> {
        let Self { config, view, now, .. } = self;
        match view.forced() {
            Some(region) if *region == config.region => return Ok(()),
            Some(_) if now < lease.ends(config).max(view.transfer_seen).plus(FORCED_FIRST) => {
                return Err(Because::OrderedElsewhere);
            }
            Some(_) | None => {}
        }
        let last = key.is_some_and(|key| key.holder == config.region);
        if self.is_heir(key) {
            return Ok(());
        }
        if view.is_drained(&config.region) {
            return Err(Because::Drained);
        }
        if !config.may_fail_over && !self.needs_no_witness(key) {
            return Err(Because::NoWitness);
        }
        if view.orders.0.maintenance && !last {
            return Err(Because::Maintenance);
        }
        let known = key.filter(|key| key.epoch == view.newest).map(|key| &key.successor);
        match known {
            // Because nobody knows whom the lost key named, only who wrote last can have every write.
            None if self.config.commit != Commit::Async => {
                let wrote = Lineage { epoch: view.newest, wrote: true };
                let own = view.database.as_ref().map(|own| own.lineage);
                if own == Some(wrote) { Ok(()) } else { Err(Because::NotTheStandby) }
            }
            Some(Successor::Only { region }) if *region != config.region && !last => {
                Err(Because::NotTheStandby)
            }
            Some(Successor::Nobody) if !last => Err(Because::NotTheStandby),
            Some(_) | None => Ok(()),
        }
    }

    /// When the turn of this region comes. Whom the key or an order names waits for nobody.
    fn turn(self, key: Option<&LeaseKey>) -> Result<elect::Turn, Because> {
        let named = Successor::Only { region: self.config.region.clone() };
        // Because a right that was given back goes to its heir first, the standby gives way to that one.
        let first = |key: &LeaseKey| key.successor == named && key.state == LeaseState::Held;
        if self.view.forced() == Some(&self.config.region) || key.is_some_and(first) {
            return Ok(elect::Turn { after: Duration::ZERO, because: Because::Claiming });
        }
        elect::turn(self.config, self.view, self.now, key)
    }

    /// Whether the own copy may become the next writer. A last holder that was never promoted under its epoch is
    /// as fit as it was before: nobody else can have written then. An heir was found fit by who knows that.
    pub(crate) fn own_fitness(self, key: Option<&LeaseKey>) -> Result<(), Because> {
        match key {
            Some(key) if self.is_heir(Some(key)) && key.epoch == self.view.newest => {
                let own = self.view.database.as_ref().ok_or(Because::Starting)?;
                elect::fitness(own, own.lineage.epoch.max(Epoch::NONE.next()))
            }
            Some(key) if key.holder == self.config.region && key.epoch == self.view.newest => {
                self.stands(key.epoch)
            }
            Some(_) | None => {
                let own = self.view.database.as_ref().ok_or(Because::Starting)?;
                elect::fitness(own, self.view.newest)
            }
        }
    }

    /// Whether the right may pass on without a witness: to the heir its holder named, or back to its last holder.
    fn needs_no_witness(self, key: Option<&LeaseKey>) -> bool {
        self.is_heir(key)
            || match key {
                Some(key) => key.holder == self.config.region,
                None => self.view.database.as_ref().is_some_and(|database| database.lineage.wrote),
            }
    }

    fn is_heir(self, key: Option<&LeaseKey>) -> bool {
        key.and_then(elect::heir) == Some(&self.config.region)
    }

    /// Takes the right: a new epoch, or the own one again as it was.
    fn put_claim(self, last: Option<&LeaseKey>, epoch: Epoch) -> Step {
        let unrest = last.map_or(0, |key| key.unrest);
        let fresh = LeaseKey {
            epoch,
            holder: self.config.region.clone(),
            seq: 1,
            state: LeaseState::Held,
            ttl: self.config.ttl_after(unrest),
            successor: self.nobody_yet(),
            unrest,
        };
        let value = match last {
            Some(key) if key.epoch == epoch => {
                LeaseKey { seq: self.hold.next_seq(key), successor: key.successor.clone(), ..fresh }
            }
            Some(_) | None => fresh,
        };
        let put = self.hold.may_put(self.view).then_some((Purpose::Claim, value));
        Step { put, because: Because::Claiming, wake: None }
    }
}
