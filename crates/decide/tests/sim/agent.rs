//! One region's agent: the real helm, and a driver around it that polls, watches, probes and may stall.

use std::{collections::BTreeMap, time::Duration};

use isles_decide::Helm;
use isles_model::{
    AppReport, AttemptId, Because, DatabaseOrder, DatabaseReport, Epoch, Fact, LeaseKey, LeaseOrder,
    LeaseOutcome, LeaseState, Moment, Orders, Plan, PromiseRequest, RegionReport, Revision, Successor,
    Writes,
};

use crate::{
    clock::{Clock, MS, Micros},
    follow::Pending,
    mutant::Mutant,
    network::End,
    store::Request,
    world::{Event, World},
};

const PROBE_EVERY: Micros = 200 * MS;
const PROBE_TIMEOUT: Micros = 450 * MS;
const READ_TIMEOUT: Micros = 600 * MS;
const DATABASE_EVERY: Micros = 100 * MS;

/// What wakes an agent's process.
pub(crate) enum Wake {
    Timer { at: Micros },
    Poll,
    LeaseRead { id: u64, key: Option<LeaseKey>, revision: Revision, orders: (Orders, Revision) },
    ReadTimeout { id: u64 },
    LeaseWatched { key: Option<LeaseKey>, revision: Revision },
    LeaseAnswered { attempt: AttemptId, outcome: LeaseOutcome },
    Probe,
    Probed { from: usize, incarnation: u64, id: u64 },
    ProbeAnswered { id: u64, report: Box<RegionReport> },
    ProbeTimeout { id: u64 },
    DatabaseProbe,
    DatabaseChanged,
    Write { write: u32 },
    PeerWrite { write: u32, epoch: Epoch },
    Acknowledge { write: u32, epoch: Epoch, position: usize },
    PromiseAsked { from: usize, incarnation: u64, request: Box<PromiseRequest> },
    Promised { region: usize, epoch: Epoch, asked_at: Moment },
    Stop,
    Stopping,
    Exit,
}

/// The gate as its last plan left it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    pub(crate) epoch: Epoch,
    pub(crate) until: Moment,
}

/// One region's agent and its machine's clock.
pub(crate) struct Agent {
    /// `None` while the process is dead.
    pub(crate) helm: Option<Helm>,
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) stalled_until: Micros,
    pub(crate) gate: Option<Gate>,
    pub(crate) writes: Option<Writes>,
    /// What the helm was last told of its own database.
    pub(crate) told: Option<DatabaseReport>,
    pub(crate) newest: Epoch,
    /// The newest revision it was told.
    revision: Revision,
    /// When the helm wants to be asked again, and when a timer rings that is not later than that.
    wanted_at: Micros,
    timer_at: Option<Micros>,
    reading: u64,
    /// The store's revision when the read was asked that is under way, and that was answered last.
    asked_at: Revision,
    answered_for: Revision,
    /// What that read showed: what its own member of the store has, if that is cut off from now on.
    last_read: Option<(Option<LeaseKey>, Revision, (Orders, Revision))>,
    probes: BTreeMap<u64, (usize, Moment)>,
    probe: u64,
    emitted: BTreeMap<AttemptId, (Moment, Revision)>,
    polled: [Moment; 2],
    late_by: Duration,
    orders_seen: u64,
    /// The newest orders it has read in this run, and when.
    pub(crate) orders_known: (Revision, Micros),
    /// When it last gave a promise; 0: never.
    pub(crate) consented_at: Micros,
    /// When the last run saw the key change, and to which revision.
    pub(crate) remembered: Option<(Revision, Moment)>,
    /// When it last asked for promises.
    pub(crate) asked: Moment,
    started: Micros,
}

impl Agent {
    pub(crate) fn new(rng: &mut fastrand::Rng) -> Self {
        Self {
            helm: None,
            incarnation: 0,
            clock: Clock::new(rng),
            stalled_until: 0,
            gate: None,
            writes: None,
            told: None,
            newest: Epoch::NONE,
            revision: Revision(0),
            wanted_at: 0,
            timer_at: None,
            reading: 0,
            asked_at: Revision(0),
            answered_for: Revision(0),
            last_read: None,
            probes: BTreeMap::new(),
            probe: 0,
            emitted: BTreeMap::new(),
            polled: [Moment::ZERO; 2],
            late_by: Duration::ZERO,
            asked: Moment::ZERO,
            orders_seen: 0,
            orders_known: (Revision(0), 0),
            consented_at: 0,
            remembered: None,
            started: 0,
        }
    }

    /// The process dies: its gate with it.
    pub(crate) fn kill(&mut self) {
        let changed = self.helm.as_ref().and_then(|helm| helm.lease()).map(|(_, changed)| changed);
        self.remembered = changed.map(|changed| (self.revision, changed));
        self.helm = None;
        self.gate = None;
        self.writes = None;
    }
}

impl World {
    /// Starts a new run of an agent.
    pub(crate) fn start_agent(&mut self, region: usize) {
        let config = self.setup.config(region, self.agents[region].incarnation);
        let now = self.now;
        let agent = &mut self.agents[region];
        if agent.helm.is_some() {
            return;
        }
        agent.incarnation += 1;
        agent.stalled_until = 0;
        agent.told = None;
        agent.reading = 0;
        agent.answered_for = Revision(0);
        agent.timer_at = None;
        agent.newest = Epoch::NONE;
        agent.probes.clear();
        agent.emitted.clear();
        agent.late_by = Duration::ZERO;
        agent.started = now;
        agent.orders_known = (Revision(0), 0);
        agent.polled = [agent.clock.read(now); 2];
        agent.helm = Some(Helm::new(config, agent.incarnation, agent.clock.read(now)));
        self.note(|| format!("{region}: agent starts"));
        self.tell(region, Fact::App(AppReport { healthy: vec![true] }));
        for wake in [Wake::Poll, Wake::Probe, Wake::DatabaseProbe] {
            let delay = self.rng.u64(..30 * MS);
            self.wake(region, delay, wake);
        }
    }

    pub(crate) fn on_agent(&mut self, region: usize, incarnation: u64, wake: Wake) {
        if self.agents[region].incarnation != incarnation || self.agents[region].helm.is_none() {
            return;
        }
        match wake {
            Wake::Timer { at } => self.ring(region, at),
            Wake::Poll => self.poll(region),
            Wake::LeaseRead { id, key, revision, orders: (orders, ordered) } => {
                if self.agents[region].reading == id {
                    self.agents[region].reading = 0;
                    if self.setup.mutant == Some(Mutant::SerializableReads) {
                        let read = (key.clone(), revision, (orders.clone(), ordered));
                        self.agents[region].last_read = Some(read);
                    }
                    self.see_orders(region, orders, ordered);
                    // Because what a read shows is told one fact after the other, it counts from the last one on.
                    self.agents[region].answered_for = self.agents[region].asked_at;
                    self.see_lease(region, true, key, revision);
                }
            }
            Wake::ReadTimeout { id } => {
                if self.agents[region].reading == id {
                    self.agents[region].reading = 0;
                    self.tell(region, Fact::LeaseStoreSilent);
                }
            }
            Wake::LeaseWatched { key, revision } => self.see_lease(region, false, key, revision),
            Wake::LeaseAnswered { attempt, outcome } => self.see_answer(region, attempt, outcome),
            Wake::Probe => self.probe_peers(region),
            Wake::Probed { from, incarnation, id } => self.answer_probe(region, from, incarnation, id),
            Wake::ProbeAnswered { id, report } => {
                let agent = &mut self.agents[region];
                if let Some((_, sent)) = agent.probes.remove(&id) {
                    let rtt = agent.clock.read(self.now).since(sent);
                    self.tell(region, Fact::Peer { report: *report, rtt });
                }
            }
            Wake::ProbeTimeout { id } => {
                if let Some((peer, _)) = self.agents[region].probes.remove(&id) {
                    let peer = self.setup.name(peer).clone();
                    self.tell(region, Fact::PeerSilent { region: peer });
                }
            }
            Wake::DatabaseProbe => {
                self.see_database(region);
                self.wake(region, DATABASE_EVERY, Wake::DatabaseProbe);
            }
            Wake::DatabaseChanged => self.see_database(region),
            Wake::Write { write } => self.route(region, write),
            Wake::PeerWrite { write, epoch } => self.admit(region, write, Some(epoch)),
            Wake::Acknowledge { write, epoch, position } => {
                self.acknowledge(region, Pending { write, epoch, incarnation, position });
            }
            Wake::PromiseAsked { from, incarnation, request } => {
                self.consider_promise(region, from, incarnation, &request);
            }
            Wake::Promised { region: peer, epoch, asked_at } => {
                self.see_promise(region, peer, epoch, asked_at);
            }
            Wake::Stop => self.stop(region),
            Wake::Stopping => self.tell(region, Fact::Stopping),
            Wake::Exit => self.agents[region].kill(),
        }
    }

    /// Tells the helm one fact, and lets it decide.
    pub(crate) fn tell(&mut self, region: usize, fact: Fact) {
        let now = self.agents[region].clock.read(self.now);
        self.tell_as_of(region, now, fact);
    }

    fn tell_as_of(&mut self, region: usize, moment: Moment, fact: Fact) {
        if let Fact::Database(report) = &fact {
            self.agents[region].told = Some(report.clone());
        }
        if let Some(helm) = &mut self.agents[region].helm {
            helm.observe(moment, fact);
            self.tick(region);
        }
    }

    fn tick(&mut self, region: usize) {
        let agent = &mut self.agents[region];
        let now = agent.clock.read(self.now);
        let Some(helm) = &mut agent.helm else { return };
        let decision = helm.tick(now);
        agent.wanted_at = self.now + agent.clock.true_length(decision.next.since(now));
        self.judge.decided(self.now, region, now, &decision, &self.agents[region], &self.setup);
        self.agents[region].newest = decision.plan.epoch;
        self.set_timer(region);
        self.apply(region, &decision.plan);
        if let Some(order) = &decision.lease
            && decision.because == Because::HandingOver
            && !decision.plan.draining
        {
            self.check_handed_over(&order.value);
        }
        if let Some(request) = &decision.ask {
            self.agents[region].asked = request.asked_at;
            self.ask_promises(region, request);
        }
        if let Some(order) = decision.lease {
            self.put(region, order, decision.because);
        }
    }

    fn set_timer(&mut self, region: usize) {
        let agent = &mut self.agents[region];
        let at = agent.wanted_at;
        if agent.timer_at.is_none_or(|timer| timer > at) {
            agent.timer_at = Some(at);
            self.wake(region, at.saturating_sub(self.now), Wake::Timer { at });
        }
    }

    fn ring(&mut self, region: usize, at: Micros) {
        if self.agents[region].timer_at != Some(at) {
            return;
        }
        self.agents[region].timer_at = None;
        if self.now < self.agents[region].wanted_at {
            self.set_timer(region);
        } else {
            self.tick(region);
        }
    }

    fn put(&mut self, region: usize, order: LeaseOrder, because: Because) {
        let now = self.agents[region].clock.read(self.now);
        self.agents[region].emitted.insert(order.attempt, (now, order.expected));
        if !matches!(because, Because::HoldsLease | Because::Unprotected) {
            self.note(|| format!("{region}: {because}: puts {order:?}"));
        }
        let (expected, answered_for) = (order.expected, self.agents[region].answered_for);
        self.judge.decided_from(self.now, region, expected, answered_for);
        if let Some(timeout) = self.setup.put_timeout {
            let wake = Wake::LeaseAnswered { attempt: order.attempt, outcome: LeaseOutcome::Unknown };
            self.wake(region, timeout, wake);
        }
        self.ask_store(region, Request::Put(order));
    }

    fn apply(&mut self, region: usize, plan: &Plan) {
        let agent = &mut self.agents[region];
        let next = match &plan.writes {
            Writes::Here { epoch, until } => Some(Gate { epoch: *epoch, until: until.plus(agent.late_by) }),
            Writes::At { .. } | Writes::Nowhere { .. } => None,
        };
        // Because this breakage is in the deadline, the plan that obeys the right one must not undo it.
        let outlasts = |gate: &Gate| agent.late_by > Duration::ZERO && plan.epoch == gate.epoch;
        let lapsed = !matches!(plan.database, DatabaseOrder::Write { .. });
        if next.is_none()
            && lapsed
            && agent.gate.as_ref().is_some_and(outlasts)
            && self.gate(region).is_some()
        {
            return;
        }
        let agent = &mut self.agents[region];
        let next = match (self.setup.mutant, agent.gate, next) {
            (Some(Mutant::GateKeepsTheLongerDeadline), Some(last), Some(next))
                if last.epoch == next.epoch =>
            {
                Some(Gate { until: last.until.max(next.until), ..next })
            }
            (_, _, next) => next,
        };
        if agent.gate.is_some() != next.is_some() {
            let writes = plan.writes.clone();
            self.note(|| format!("{region}: gate: {writes:?}"));
        }
        let agent = &mut self.agents[region];
        agent.gate = next;
        agent.writes = Some(plan.writes.clone());
        self.order(region, &plan.database);
        self.check_gates();
    }

    /// The agent is asked to stop. It tells its helm, which shuts the gate before it gives the right back.
    fn stop(&mut self, region: usize) {
        let key = self.agents[region].helm.as_ref().and_then(|helm| helm.lease()).map(|(key, _)| key.clone());
        let own = key.filter(|key| key.holder == *self.setup.name(region) && key.state == LeaseState::Held);
        let (Some(key), Some(Mutant::ReleaseBeforeGateShuts)) = (own, self.setup.mutant) else {
            self.wake(region, 0, Wake::Stopping);
            return;
        };
        let value = LeaseKey { seq: key.seq + 1, state: LeaseState::Released { heir: None }, ..key };
        let expected = self.agents[region].revision;
        self.ask_store(region, Request::Put(LeaseOrder { attempt: AttemptId(u64::MAX), expected, value }));
        self.wake(region, 400 * MS, Wake::Stopping);
    }

    fn poll(&mut self, region: usize) {
        let now = self.agents[region].clock.read(self.now);
        let agent = &mut self.agents[region];
        agent.polled = [agent.polled[1], now];
        agent.probe += 1;
        let id = agent.probe;
        if agent.reading == 0 {
            agent.reading = id;
            agent.asked_at = self.store.revision();
            self.ask_store(region, Request::Read { id });
            self.ask_own_member(region, id);
            self.wake(region, READ_TIMEOUT, Wake::ReadTimeout { id });
        }
        let jitter = self.rng.u64(..20 * MS);
        self.wake(region, self.setup.poll_every + jitter, Wake::Poll);
    }

    /// The breakage: a member that the others cannot reach answers at once, from what it knows.
    fn ask_own_member(&mut self, region: usize, id: u64) {
        let cut = !self.net.connected(End::Region(region), End::Store);
        let serializable = self.setup.mutant == Some(Mutant::SerializableReads);
        if let Some((key, revision, orders)) =
            self.agents[region].last_read.clone().filter(|_| cut && serializable)
        {
            self.wake(region, MS, Wake::LeaseRead { id, key, revision, orders });
        }
    }

    fn see_lease(&mut self, region: usize, polled: bool, mut key: Option<LeaseKey>, revision: Revision) {
        self.agents[region].revision = self.agents[region].revision.max(revision);
        let agent = &self.agents[region];
        let now = agent.clock.read(self.now);
        let own = self.setup.name(region);
        if self.setup.mutant == Some(Mutant::NeverPolls) && self.setup.watched && polled && revision.0 > 0 {
            return;
        }
        let elsewhere = key.as_ref().is_some_and(|key| key.holder != *own);
        let mut moment = now;
        match self.setup.mutant {
            Some(Mutant::EarlyClaim) if elsewhere => moment = now.minus(self.setup.ttl() / 4),
            Some(Mutant::StandbyIgnored) if elsewhere => {
                if let Some(key) = &mut key {
                    key.successor = Successor::Any;
                }
            }
            Some(Mutant::PromiseForgottenInRestart) if elsewhere && agent.incarnation > 1 => {
                let known = agent.remembered.filter(|(last, _)| *last == revision);
                moment = known.map_or(now, |(_, changed)| changed.min(now));
            }
            Some(Mutant::OwnTtlObserved) if elsewhere => {
                if let Some(key) = &mut key {
                    key.ttl = self.setup.config(region, agent.incarnation).ttl;
                }
            }
            Some(Mutant::ForcedIgnoresLeaseEnd) if elsewhere && self.is_forced(region) => {
                moment = now.minus(Duration::from_secs(8));
            }
            Some(Mutant::TimedFromOwnPoll) if elsewhere => moment = agent.polled[0].min(now),
            Some(Mutant::ReclaimsOthersEpoch) if elsewhere && agent.incarnation > 1 => {
                let young = self.now < agent.started + 1_000 * MS;
                if let Some(key) = key.as_mut().filter(|_| young) {
                    key.holder = own.clone();
                }
            }
            Some(_) | None => {}
        }
        self.tell_as_of(region, moment, Fact::LeaseSeen { key, revision });
    }

    fn see_orders(&mut self, region: usize, mut orders: Orders, mut revision: Revision) {
        if self.agents[region].orders_known.0 < revision {
            self.agents[region].orders_known = (revision, self.now);
        }
        let own = self.setup.name(region);
        match self.setup.mutant {
            Some(Mutant::DrainedClaims) => drop(orders.drained.remove(own)),
            Some(Mutant::MaintenanceIgnored) => orders.maintenance = false,
            Some(Mutant::OlderOrdersObeyed) => {
                self.agents[region].orders_seen += 1;
                if self.rng.u8(..4) > 0 {
                    orders = self.store.orders_before();
                }
                revision = Revision(self.agents[region].orders_seen);
            }
            Some(_) | None => {}
        }
        self.tell(region, Fact::Orders { orders, revision });
    }

    fn see_answer(&mut self, region: usize, attempt: AttemptId, outcome: LeaseOutcome) {
        let agent = &mut self.agents[region];
        let now = agent.clock.read(self.now);
        if let LeaseOutcome::Stored(revision) = outcome {
            agent.revision = agent.revision.max(revision);
        }
        let (mut attempt, mut outcome) = (attempt, outcome);
        let emitted = agent.emitted.get(&attempt).copied();
        match (self.setup.mutant, &outcome) {
            (Some(Mutant::DeadlineFromReceipt), LeaseOutcome::Stored(_)) => {
                agent.late_by = emitted.map_or(Duration::ZERO, |(emitted, _)| now.since(emitted));
            }
            (Some(Mutant::UnknownTakenForStored), LeaseOutcome::Unknown) => {
                if let Some((_, expected)) = emitted {
                    outcome = LeaseOutcome::Stored(Revision(expected.0 + 1));
                }
            }
            (Some(Mutant::LateAnswerForNewest), _) => {
                attempt = agent.emitted.keys().next_back().copied().unwrap_or(attempt);
            }
            (Some(_) | None, _) => {}
        }
        self.tell(region, Fact::LeaseAnswered { attempt, outcome });
    }

    fn probe_peers(&mut self, region: usize) {
        let now = self.agents[region].clock.read(self.now);
        for peer in (0..self.agents.len()).filter(|peer| *peer != region) {
            let agent = &mut self.agents[region];
            agent.probe += 1;
            let (id, incarnation) = (agent.probe, agent.incarnation);
            agent.probes.insert(id, (peer, now));
            if let Some(delay) = self.net.delay(&mut self.rng, End::Region(region), End::Region(peer)) {
                self.wake(peer, delay, Wake::Probed { from: region, incarnation, id });
            }
            self.wake(region, PROBE_TIMEOUT, Wake::ProbeTimeout { id });
        }
        self.wake(region, PROBE_EVERY, Wake::Probe);
    }

    fn answer_probe(&mut self, region: usize, from: usize, incarnation: u64, id: u64) {
        let Some(helm) = &self.agents[region].helm else { return };
        let report = helm.report(self.agents[region].clock.read(self.now));
        if let Some(delay) = self.net.delay(&mut self.rng, End::Region(region), End::Region(from)) {
            let wake = Wake::ProbeAnswered { id, report: Box::new(report) };
            self.after(delay, Event::Agent(from, incarnation, wake));
        }
    }
}
