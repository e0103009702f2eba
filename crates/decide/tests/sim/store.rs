//! A lease store that is linearizable and otherwise unkind: it answers late, loses requests and answers, falls
//! silent or slow, loses members, and misses watch events.

use std::time::Duration;

use isles_decide::Helm;
use isles_model::{
    Change, Copy, DatabaseRole, Epoch, LeaseKey, LeaseOrder, LeaseOutcome, LeaseState, Lineage, Orders,
    Revision, TransferKind, topology::Commit,
};

use crate::{
    agent::Wake,
    clock::{MS, Micros},
    mutant::Mutant,
    network::End,
    setup::Setup,
    tally::Effect,
    world::{Event, World},
};

/// A put that was sent before its agent knew an order has arrived by then.
const ORDERS_KNOWN_AFTER: Micros = 2_500 * MS;

/// What a slow store adds, before it serves a request and again before it answers.
const SLOW: std::ops::Range<Micros> = 100 * MS..1_500 * MS;

/// How long the other members take to elect a leader.
const ELECTION: std::ops::Range<Micros> = 200 * MS..1_600 * MS;

/// How long a client takes to go to another member.
const RECONNECT: Micros = 300 * MS;

/// The register.
pub(crate) struct Store {
    pub(crate) key: Option<LeaseKey>,
    revision: u64,
    /// The operator's standing orders, with a revision of their own.
    orders: (Orders, Revision),
    orders_before: Orders,
    /// The epoch at each revision so far.
    epochs: Vec<Epoch>,
    /// No answer before this.
    pub(crate) silent_until: Micros,
    /// No watch event before this.
    pub(crate) unwatched_until: Micros,
    /// Everything takes far too long before this.
    pub(crate) slow_until: Micros,
    /// How many faults keep each member down; the first ones are the regions'.
    lost: Vec<u8>,
    /// The member that leads.
    leader: usize,
    /// Until when each region looks for another member.
    reconnects_until: Vec<Micros>,
}

/// What an agent asks.
pub(crate) enum Request {
    Read { id: u64 },
    Put(LeaseOrder),
}

impl Store {
    /// A store with a member in each region, and at the witness if that makes the number odd.
    pub(crate) fn new(setup: &Setup) -> Self {
        let regions = setup.regions();
        let witness = regions.is_multiple_of(2) && setup.topology.witness.is_some();
        Self {
            key: None,
            revision: 0,
            orders: <(Orders, Revision)>::default(),
            orders_before: Orders::default(),
            epochs: Vec::new(),
            silent_until: 0,
            unwatched_until: 0,
            slow_until: 0,
            lost: vec![0; regions + usize::from(witness)],
            leader: regions - 1,
            reconnects_until: vec![0; regions],
        }
    }

    pub(crate) fn has_quorum(&self) -> bool {
        self.lost.iter().filter(|faults| **faults == 0).count() > self.lost.len() / 2
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    pub(crate) fn find_member(&mut self, member: usize) {
        self.lost[member] -= 1;
    }

    /// From now on it is as good as a store can be.
    pub(crate) fn mend(&mut self) {
        (self.silent_until, self.unwatched_until, self.slow_until) = (0, 0, 0);
        self.lost.fill(0);
        self.reconnects_until.fill(0);
    }

    /// Whether it serves a region in its usual time.
    fn serves_as_usual(&self, now: Micros, region: usize) -> bool {
        now >= self.slow_until && self.lost[region] == 0 && self.has_quorum()
    }

    /// The orders before the last change.
    pub(crate) fn orders_before(&self) -> Orders {
        self.orders_before.clone()
    }

    fn put(&mut self, order: &LeaseOrder, mutant: Option<Mutant>) -> LeaseOutcome {
        let epoch_at = |revision: u64| match usize::try_from(revision).expect("few puts").checked_sub(1) {
            None => Epoch::NONE,
            Some(index) => self.epochs[index],
        };
        let matches = match mutant {
            Some(Mutant::BlindPut) => true,
            Some(Mutant::PutOnEpoch) => epoch_at(order.expected.0) == epoch_at(self.revision),
            Some(_) | None => order.expected.0 == self.revision,
        };
        if !matches {
            return LeaseOutcome::Refused;
        }
        self.revision += 1;
        self.epochs.push(order.value.epoch);
        self.key = Some(order.value.clone());
        LeaseOutcome::Stored(Revision(self.revision))
    }
}

impl World {
    /// A member dies. Its region's agent goes to another one; a leader is elected if it led.
    pub(crate) fn lose_member(&mut self, member: usize) {
        let had_quorum = self.store.has_quorum();
        let election = self.rng.u64(ELECTION);
        let store = &mut self.store;
        store.lost[member] += 1;
        store.reconnects_until[member] = self.now + RECONNECT;
        if store.leader == member {
            store.leader = store.lost.iter().position(|faults| *faults == 0).unwrap_or(member);
            store.silent_until = store.silent_until.max(self.now + election);
            self.tally.count(Effect::Election);
        }
        if had_quorum && !self.store.has_quorum() {
            self.tally.count(Effect::QuorumLost);
        }
    }

    /// What is added to a message between a region and the store: the way to another region's member, and the load.
    fn store_delay(&mut self, region: usize) -> Micros {
        let slow = if self.now < self.store.slow_until { self.rng.u64(SLOW) } else { 0 };
        let away = self.store.lost[region] > 0;
        slow + if away { self.setup.one_way[region].iter().copied().max().unwrap_or(0) } else { 0 }
    }

    /// An operator changes the standing orders; whoever polls next sees them.
    pub(crate) fn order_change(&mut self, change: &Change) {
        let epoch = self.store.key.as_ref().map_or(Epoch::NONE, |key| key.epoch);
        if let Some(after) = self.store.orders.0.after(change, epoch) {
            let store = &mut self.store;
            store.orders_before = store.orders.0.clone();
            store.orders = (after, Revision(store.orders.1.0 + 1));
        }
    }

    /// Whether a region was ordered to take the right though it may lack writes.
    pub(crate) fn is_forced(&self, region: usize) -> bool {
        let epoch = self.store.key.as_ref().map(|key| key.epoch);
        self.orders().transfer.as_ref().is_some_and(|transfer| {
            transfer.kind == TransferKind::Failover
                && transfer.to == *self.setup.name(region)
                && Some(transfer.from) == epoch
        })
    }

    /// ORDERS: nobody takes the right against an order that its agent has known for long.
    fn check_orders(&mut self, from: usize, before: &LeaseKey, forced: bool) {
        let name = self.setup.name(from);
        let heir = matches!(&before.state, LeaseState::Released { heir: Some(heir) } if heir == name);
        let last = before.holder == *name;
        let (known, since) = self.agents[from].orders_known;
        let (orders, revision) = &self.store.orders;
        let obliged = known == *revision && self.now > since + ORDERS_KNOWN_AFTER;
        let against = orders.drained.contains(name) || orders.maintenance;
        self.tally.check("ORDERS");
        if obliged && against && !heir && !last && !forced {
            let orders = orders.clone();
            self.judge.fail(self.now, "ORDERS", || format!("{from} takes the right against {orders:?}"));
        }
    }

    /// The standing orders.
    pub(crate) fn orders(&self) -> &Orders {
        &self.store.orders.0
    }

    /// Sends a request on its way; a network that repeats itself may deliver it twice.
    pub(crate) fn ask_store(&mut self, from: usize, request: Request) {
        let incarnation = self.agents[from].incarnation;
        if let Request::Put(order) = &request
            && self.rng.f64() < self.setup.loss / 2.0
            && let Some(delay) = self.net.delay(&mut self.rng, End::Region(from), End::Store)
        {
            let again = Request::Put(order.clone());
            self.tally.count(Effect::Duplicate);
            self.after(delay, Event::Store { from, incarnation, request: again });
        }
        if let Some(delay) = self.net.delay(&mut self.rng, End::Region(from), End::Store) {
            let delay = delay + self.store_delay(from);
            self.after(delay, Event::Store { from, incarnation, request });
        } else {
            self.tally.count(Effect::Unanswered);
        }
    }

    pub(crate) fn on_store(&mut self, from: usize, incarnation: u64, request: Request) {
        let store = &self.store;
        let silent = self.now < store.silent_until.max(store.reconnects_until[from]) || !store.has_quorum();
        // Because a store may lose its leader between applying and answering, half of the puts are applied.
        if silent && (matches!(request, Request::Read { .. }) || self.rng.bool()) {
            self.tally.count(Effect::Unanswered);
            return;
        }
        if self.now < self.store.slow_until {
            self.tally.count(Effect::Slow);
        }
        let mut stored = false;
        let wake = match request {
            Request::Read { id } => {
                let (key, orders) = (self.store.key.clone(), self.store.orders.clone());
                Wake::LeaseRead { id, key, revision: Revision(self.store.revision), orders }
            }
            Request::Put(order) => {
                let before = self.store.key.clone();
                let before_epoch = before.as_ref().map_or(Epoch::NONE, |key| key.epoch);
                let forced = self.is_forced(from);
                let outcome = self.store.put(&order, self.setup.mutant);
                let renewal = before
                    .as_ref()
                    .is_some_and(|key| key.epoch == order.value.epoch && key.seq + 1 == order.value.seq);
                let plain = renewal
                    && matches!(outcome, LeaseOutcome::Stored(_))
                    && order.value.state == LeaseState::Held;
                self.note_unless(plain, || {
                    let LeaseKey { epoch, seq, state, .. } = &order.value;
                    format!("store: {outcome:?} for {from}: epoch {epoch}, seq {seq}, {state:?}")
                });
                if matches!(outcome, LeaseOutcome::Stored(_)) {
                    stored = true;
                    if let Some(before) = before.as_ref().filter(|_| before_epoch < order.value.epoch) {
                        self.check_orders(from, before, forced);
                        if forced {
                            self.judge.accept_loss();
                        }
                    }
                    if before_epoch < order.value.epoch {
                        self.check_choice(from);
                    }
                    // Because a database's crash may move the right at once, if nothing is missing there.
                    let released = before.as_ref().is_some_and(|key| key.state != LeaseState::Held);
                    let log = &self.databases[from].log;
                    let handed_over = released && self.judge.has_all(log);
                    self.judge.stored(self.now, &order.value, handed_over, released);
                    self.tell_watchers();
                }
                Wake::LeaseAnswered { attempt: order.attempt, outcome }
            }
        };
        let way = if silent { None } else { self.net.delay(&mut self.rng, End::Store, End::Region(from)) };
        if let Some(delay) = way {
            let delay = delay + self.store_delay(from);
            self.after(delay, Event::Agent(from, incarnation, wake));
        } else {
            self.tally.count(if stored { Effect::StoredUnanswered } else { Effect::Unanswered });
        }
    }

    /// I3: when nothing has begun or ended for a while, the region that takes the right holds every acknowledged
    /// write of the last writer's log that some other region holds which could have taken it as well. Writes that the
    /// last writer lacked itself were lost when it was promoted; a copy that still has them has less of its log.
    fn check_choice(&mut self, region: usize) {
        // Because reports are some 400 ms old, what was written just before the right lapsed is not compared: to wait
        // for newer ones would cost every takeover that long.
        let written = self.judge.last_acknowledged_at();
        let forced =
            self.orders().transfer.as_ref().is_some_and(|transfer| transfer.kind == TransferKind::Failover);
        let quiet = !forced && self.now >= (self.disturbed_at + 1_200 * MS).max(written + 500 * MS);
        // With a standby in the key there is no choice.
        let any = self.setup.topology.database.commit == Commit::Async;
        let silent_lately = self.now < self.store.silent_until + 1_200 * MS;
        if self.setup.loss > 0.001 || !self.setup.watched || !quiet || !any || silent_lately {
            return;
        }
        self.tally.check("I3");
        let ends = [End::Region(region), End::Store];
        // One that learned of the last change much later must wait longer than others' patience.
        let tolerance = self.setup.ttl() / 10 + Duration::from_millis(150);
        let age = self.lease_age(region);
        for other in (0..self.agents.len()).filter(|other| *other != region) {
            let (agent, database) = (&self.agents[other], &self.databases[other]);
            let whole = matches!(database.role, DatabaseRole::Replica { copy: Copy::Complete, .. });
            // Because a promise binds the one that gave it, and others do not know of it.
            let bound = agent.consented_at > 0 && self.now < agent.consented_at + 7_000 * MS;
            let could = agent.stalled_until <= self.now
                && !bound
                && agent.helm.as_ref().is_some_and(|helm| !helm.report(agent.clock.read(self.now)).draining)
                && self.lease_age(other) + tolerance >= age
                && self.store.serves_as_usual(self.now, other)
                && self.hears(region, other)
                && ends.iter().all(|end| self.net.connected(End::Region(other), *end))
                && database.up
                && whole
                && !database.lineage.wrote;
            let (own, last) = (&self.databases[region].log, self.last_log());
            let counts = |write: &u32| self.judge.knows(*write) && last.is_none_or(|log| log.contains(write));
            let lost = database.log.iter().find(|write| counts(write) && !own.contains(write));
            if let Some(lost) = lost.filter(|_| could).copied() {
                self.judge
                    .fail(self.now, "I3", || format!("{region} goes before {other}, which has write {lost}"));
            }
        }
    }

    /// The log of the last region that was promoted, while that is what it wrote.
    fn last_log(&self) -> Option<&Vec<u32>> {
        let (epoch, writer) = self.judge.last_writer()?;
        let database = &self.databases[writer];
        (database.lineage == Lineage { epoch, wrote: true }).then_some(&database.log)
    }

    /// How long ago a region's helm saw the last change, by its own clock.
    fn lease_age(&self, region: usize) -> Duration {
        let agent = &self.agents[region];
        let changed = agent.helm.as_ref().and_then(Helm::lease).map(|(_, changed)| changed);
        changed.map_or(Duration::ZERO, |changed| agent.clock.read(self.now).since(changed))
    }

    /// Whether a peer's probes are answered: one that answers too late is silent, and nobody waits for it.
    fn hears(&self, region: usize, other: usize) -> bool {
        let agent = &self.agents[region];
        let peers = agent.helm.as_ref().map(|helm| helm.peers(agent.clock.read(self.now)));
        let peer = peers.and_then(|peers| peers.get(self.setup.name(other)).cloned());
        peer.is_some_and(|peer| peer.report.is_some() && peer.age < Duration::from_millis(600))
    }

    /// I3: a right that is handed over because somebody asked goes to a region that has all that the writer has.
    pub(crate) fn check_handed_over(&mut self, key: &LeaseKey) {
        let LeaseState::Released { heir: Some(heir) } = &key.state else { return };
        self.tally.check("I3");
        let own = &self.databases[self.setup.index(&key.holder)].log;
        let log = &self.databases[self.setup.index(heir)].log;
        if let Some(lost) = own.iter().find(|write| self.judge.knows(**write) && !log.contains(write)) {
            self.judge.fail(self.now, "I3", || format!("{heir} is handed the right without write {lost}"));
        }
    }

    fn tell_watchers(&mut self) {
        if !self.setup.watched {
            return;
        }
        if self.now < self.store.unwatched_until {
            self.tally.count(Effect::WatchMissed);
            return;
        }
        for region in 0..self.agents.len() {
            if let Some(delay) = self.net.delay(&mut self.rng, End::Store, End::Region(region)) {
                let delay = delay + self.store_delay(region);
                let wake = Wake::LeaseWatched {
                    key: self.store.key.clone(),
                    revision: Revision(self.store.revision),
                };
                let incarnation = self.agents[region].incarnation;
                self.after(delay, Event::Agent(region, incarnation, wake));
            }
        }
    }
}
