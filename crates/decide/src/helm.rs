//! Steers one region: facts in, decisions out.
//!
//! [`Helm::observe`] changes what is known and nothing else; [`Helm::tick`] changes what should be.

use std::{collections::BTreeMap, mem, time::Duration};

use isles_model::{
    AttemptId, Because, CommitOrder, DatabaseOrder, DatabaseReport, DatabaseRole, Epoch, Fact, LeaseKey,
    LeaseOrder, LeaseOutcome, LeaseState, Moment, NoPromise, Plan, PromiseAnswer, PromiseRequest, RegionName,
    RegionReport, Writes, snapshot::PeerSnapshot,
};
use serde::{Deserialize, Serialize};

use crate::{
    HelmConfig, answers,
    hold::{Answer, Hold, Tenure},
    promise::{Promises, may_promise},
    right::{Situation, Step},
    standby::Waiting,
    view::View,
};

/// The longest time between two ticks.
const TICK_MAX: Duration = Duration::from_millis(500);

/// The shortest time between two ticks that no fact has asked for.
const TICK_MIN: Duration = Duration::from_millis(5);

/// Answers kept between two ticks. One attempt is under way at a time, so more are late answers; the oldest go.
const INBOX_MAX: usize = 32;

/// What one tick decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// Orders for this region's actuators. Carried out before [`Self::lease`] is sent.
    pub plan: Plan,
    /// A compare-and-put to send now; its outcome comes back as [`Fact::LeaseAnswered`].
    pub lease: Option<LeaseOrder>,
    /// To be asked of every other region now; each consent comes back as [`Fact::Promised`]. One that has not been
    /// sent when the next comes may be left out.
    pub ask: Option<PromiseRequest>,
    /// Tick again no later than this, even if no fact comes.
    pub next: Moment,
    /// Why the right to write is where it is, as seen from here.
    pub because: Because,
}

/// Steers one region. The journal keeps it whole, so that its decisions can be made again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Helm {
    config: HelmConfig,
    incarnation: u64,
    view: View,
    hold: Hold,
    promises: Promises,
    waiting: Waiting,
    inbox: Vec<Answer>,
}

impl Helm {
    /// A helm that knows nothing yet. `incarnation` differs between two runs of the same agent.
    pub fn new(config: HelmConfig, incarnation: u64, now: Moment) -> Self {
        let view = View::new(&config, now);
        Self {
            config,
            incarnation,
            view,
            hold: Hold::default(),
            promises: Promises::default(),
            waiting: Waiting::default(),
            inbox: Vec::new(),
        }
    }

    /// Takes in one fact, received at `now` of this agent's own clock.
    pub fn observe(&mut self, now: Moment, fact: Fact) {
        match fact {
            Fact::LeaseAnswered { attempt, outcome } => self.hear_answer(now, attempt, outcome),
            Fact::PromiseAsked(request) => {
                self.promises.consider(now, &self.config, &self.view, &self.hold, request);
            }
            Fact::Promised { region, epoch, asked_at } => self.promises.receive(region, epoch, asked_at),
            fact => self.view.take(now, fact),
        }
    }

    fn hear_answer(&mut self, now: Moment, attempt: AttemptId, outcome: LeaseOutcome) {
        if let LeaseOutcome::Stored(revision) = outcome
            && let Some(value) = self.hold.value_of(attempt)
        {
            self.view.see_lease(now, Some(value.clone()), revision);
        }
        if self.inbox.len() == INBOX_MAX {
            self.inbox.remove(0);
        }
        self.inbox.push(Answer { attempt, outcome, sightings: self.view.sightings });
    }

    /// Whether this request was consented to. Asked right after [`Fact::PromiseAsked`] with it was observed.
    pub fn promised(&self, request: &PromiseRequest) -> bool {
        self.promises.gave(request)
    }

    /// The answer to a request, with the reason for a no. Asked at the same moment as [`Self::promised`].
    pub fn answer(&self, request: &PromiseRequest) -> PromiseAnswer {
        if self.promised(request) {
            return PromiseAnswer::Promised;
        }
        // Because what it was judged by has not changed since, a no has its reason still.
        let barred = may_promise(&self.config, &self.view, &self.hold, request);
        PromiseAnswer::Refused { because: barred.err().unwrap_or(NoPromise::NotTheHolder) }
    }

    /// Decides what should be from `now` on.
    pub fn tick(&mut self, now: Moment) -> Decision {
        let answers = mem::take(&mut self.inbox);
        let ttl = self.key_ttl();
        self.promises.lasting(now, ttl);
        if let Some(epoch) = self.hold.tenure().map(|tenure| tenure.epoch)
            && let Some(since) = self.promises.all_since(&self.config, epoch)
        {
            self.hold.prolong(since.plus(self.config.usable(ttl)));
        }
        self.hold.settle(now, &self.view, &self.config, answers);
        let step = self.situation(now).step();
        let lease = step
            .put
            .clone()
            .map(|(purpose, value)| self.hold.put(now, &self.view, &self.config, purpose, value));
        self.promises.lasting(now, self.key_ttl());
        let ask = self.promises.ask(now, &self.config, &self.hold);
        let plan = self.plan(now, &step);
        self.waiting.order(now, &plan.database);
        Decision { plan, lease, ask, next: self.next(now, &step), because: step.because }
    }

    /// The lease key as last seen, and when its last change was received.
    pub fn lease(&self) -> Option<(&LeaseKey, Moment)> {
        let lease = self.view.lease.as_ref()?;
        Some((lease.key.as_ref()?, lease.changed))
    }

    /// What this region says of itself to its peers, as of `now`.
    pub fn report(&self, now: Moment) -> RegionReport {
        RegionReport {
            region: self.config.region.clone(),
            incarnation: self.incarnation,
            epoch: self.view.newest,
            database: self.view.database.clone().unwrap_or_else(DatabaseReport::unknown),
            app: self.view.app.clone(),
            draining: self.situation(now).drains(),
        }
    }

    /// What was last heard of each peer, with ages as of `now`.
    pub fn peers(&self, now: Moment) -> BTreeMap<RegionName, PeerSnapshot> {
        let snapshot = |peer: &crate::view::PeerView| PeerSnapshot {
            report: peer.heard.as_ref().map(|(report, _)| report.clone()),
            age: now.since(peer.heard.as_ref().map_or(self.view.started, |(_, received)| *received)),
            rtt: peer.rtt,
        };
        self.view.peers.iter().map(|(region, peer)| (region.clone(), snapshot(peer))).collect()
    }

    /// How long the right lasts by the key, or by a put that may have changed it, whichever is shorter.
    fn key_ttl(&self) -> Duration {
        let key = self.view.lease.as_ref().and_then(|lease| lease.key.as_ref());
        let known = key.map_or(self.config.ttl, |key| key.ttl);
        self.hold.possible_ttls().fold(known, Duration::min)
    }

    fn situation(&self, now: Moment) -> Situation<'_> {
        let promised = self.promises.kept_until();
        Situation {
            config: &self.config,
            view: &self.view,
            hold: &self.hold,
            waiting: &self.waiting,
            promised,
            now,
        }
    }

    fn plan(&self, now: Moment, step: &Step) -> Plan {
        let writes = self.writes(now, step);
        let writer = match &writes {
            Writes::At { region, .. } => Some(region),
            Writes::Here { .. } => Some(&self.config.region),
            Writes::Nowhere { .. } => self.hold.tenure().map(|_| &self.config.region),
        };
        Plan {
            epoch: self.view.newest,
            serve: answers::serve(&self.config, &self.view, now, writer, self.situation(now).drains()),
            instances: answers::instances(&self.view.app),
            draining: self.situation(now).drains(),
            database: self.database(now, step),
            writes,
        }
    }

    fn writes(&self, now: Moment, step: &Step) -> Writes {
        if let Some(tenure) = self.hold.tenure() {
            return self.own_writes(now, tenure);
        }
        match self.key_elsewhere() {
            Some(key) if key.state == LeaseState::Held && now < self.lease_end() => {
                Writes::At { region: key.holder.clone(), epoch: key.epoch }
            }
            Some(_) | None => Writes::Nowhere { because: step.because },
        }
    }

    fn own_writes(&self, now: Moment, tenure: Tenure) -> Writes {
        let Tenure { epoch, until, .. } = tenure;
        if let Some(because) = self.leaving(now) {
            return Writes::Nowhere { because };
        }
        if let Err(because) = self.situation(now).stands(epoch) {
            return Writes::Nowhere { because };
        }
        match self.view.database.as_ref().map(|database| &database.role) {
            Some(DatabaseRole::Writer { epoch: promoted }) if *promoted == epoch => {
                Writes::Here { epoch, until }
            }
            Some(DatabaseRole::Writer { .. } | DatabaseRole::Replica { .. } | DatabaseRole::Fenced)
            | None => Writes::Nowhere { because: Because::Promoting },
        }
    }

    /// Why a holder shuts its gate though it could go on.
    fn leaving(&self, now: Moment) -> Option<Because> {
        let hands_over = self.situation(now).hands_over();
        let stops = self.view.stopping.map(|_| Because::Draining);
        if hands_over { Some(Because::HandingOver) } else { stops }
    }

    fn database(&self, now: Moment, step: &Step) -> DatabaseOrder {
        if let Some(Tenure { epoch, until, .. }) = self.hold.tenure() {
            if let Some(because) = self.leaving(now) {
                return DatabaseOrder::Fence { because };
            }
            return match self.situation(now).stands(epoch) {
                Ok(()) | Err(Because::DatabaseDown) => {
                    DatabaseOrder::Write { epoch, until, commit: self.commit(now) }
                }
                Err(because) => DatabaseOrder::Fence { because },
            };
        }
        match self.key_elsewhere() {
            Some(key) if self.may_follow(now, key) => {
                DatabaseOrder::Follow { writer: key.holder.clone(), epoch: key.epoch }
            }
            Some(_) | None => DatabaseOrder::Fence { because: step.because },
        }
    }

    /// What the acknowledgements of the own tenure wait for.
    fn commit(&self, now: Moment) -> CommitOrder {
        let key = self.view.lease.as_ref().and_then(|lease| lease.key.as_ref());
        key.map(|key| self.situation(now).protection(key).order).unwrap_or_default()
    }

    /// A complete copy is not given up to follow a writer that may just be losing its right: it may be needed. Who
    /// follows already goes on.
    fn may_follow(&self, now: Moment, key: &LeaseKey) -> bool {
        let holds = key.state == LeaseState::Held && now < self.lease_end();
        let Some(own) = &self.view.database else { return holds };
        let follows = matches!(&own.role, DatabaseRole::Replica { writer, epoch, .. }
            if *writer == key.holder && *epoch == key.epoch);
        holds || follows || own.lineage.epoch == Epoch::NONE
    }

    /// The key, if another region is or was the last writer. One of an older epoch than is known is no guide.
    fn key_elsewhere(&self) -> Option<&LeaseKey> {
        let key = self.view.lease.as_ref()?.key.as_ref()?;
        (key.holder != self.config.region && key.epoch == self.view.newest).then_some(key)
    }

    fn lease_end(&self) -> Moment {
        let lapses = self.view.lease.as_ref().map_or(Moment::ZERO, |lease| lease.ends(&self.config));
        lapses.max(self.promises.kept_until())
    }

    fn next(&self, now: Moment, step: &Step) -> Moment {
        let turning_points = [
            step.wake,
            self.hold.tenure().map(|tenure| tenure.until),
            self.hold.gives_up_at(&self.config),
            self.promises.due(&self.config, &self.hold),
            self.view.stale_at(now),
            self.view.down_since.map(|down| down.plus(self.config.database_grace)),
        ];
        let first = turning_points.into_iter().flatten().filter(|moment| *moment > now).min();
        first.unwrap_or(now.plus(TICK_MAX)).clamp(now.plus(TICK_MIN), now.plus(TICK_MAX))
    }
}

#[cfg(test)]
#[path = "helm_tests/mod.rs"]
pub(crate) mod tests;
