//! The steering loop: hands facts to the helm, asks it for a decision, sends out the plan, the lease orders and the
//! requests for promises.

use std::sync::Arc;

use isles_decide::{Decision, Helm};
use isles_model::{
    Because, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Fact, LeaseOrder, Meter, Metric, Moment,
    Orders, Plan, PromiseAnswer, PromiseRequest, RegionName, RegionReport, Revision, Snapshot, Writes,
    ids::Clock,
};
use isles_postgres::Findings;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::{journal::Journal, promise::Asked};

/// Facts that may wait for the helm. Actuators wait when it is full; the lease's watch leaves a fact out.
pub const FACTS_WAITING_MAX: usize = 1_024;
/// Facts observed before the helm is asked for a decision.
const FACTS_A_TICK_MAX: usize = 64;

/// What people are told while it is so.
const BY_PROMISE: &str = "The lease store does not answer. Writes go on because every other region promises not to take \
    over; if one of them is lost or cut off too, they stop.";

/// The helm and all that it is joined to.
pub struct Steering {
    /// Decides.
    pub helm: Helm,
    /// Comes from every actuator and probe.
    pub facts: mpsc::Receiver<Fact>,
    /// Goes to every actuator.
    pub plans: watch::Sender<Plan>,
    /// Goes to the lease's driver.
    pub orders: mpsc::Sender<LeaseOrder>,
    /// Goes to those who ask peers for promises; only the newest counts.
    pub asks: watch::Sender<Option<PromiseRequest>>,
    /// Peers asking for a promise.
    pub asked: mpsc::Receiver<Asked>,
    /// Goes to peers.
    pub report: watch::Sender<RegionReport>,
    /// Tells the database's actuator whether the writer's database is away or fenced.
    pub closely: watch::Sender<bool>,
    /// People asking.
    pub snapshots: mpsc::Receiver<oneshot::Sender<Snapshot>>,
    /// What the database's actuator found.
    pub findings: Findings,
    /// Where facts and ticks are recorded.
    pub journal: Option<Journal>,
    /// Counts.
    pub meter: Meter,
    /// Time.
    pub clock: Clock,
    /// When the agent started.
    pub started: Moment,
    /// Writes in the ledger.
    pub stranded: Arc<std::sync::atomic::AtomicU64>,
    /// The operator's orders as last seen, for people; and their revision.
    pub standing: (Orders, Revision),
    /// What was last answered to whom under which epoch, and when.
    pub answered: Option<(RegionName, Epoch, PromiseAnswer, Moment)>,
}

impl Steering {
    /// Steers until all senders of facts are gone.
    pub async fn run(mut self) {
        let mut last: Option<Decision> = None;
        loop {
            let now = (self.clock)();
            let decision = self.helm.tick(now);
            if let Some(journal) = &mut self.journal {
                journal.ticked(now, &decision, &self.helm);
            }
            self.send_out(&decision);
            self.tell_what_changed(last.as_ref(), &decision);
            self.count(&decision, now);
            let wait = decision.next.since((self.clock)());
            last = Some(decision);
            tokio::select! {
                biased;
                Some(Asked { request, reply }) = self.asked.recv() => {
                    let answer = self.promise(request);
                    // Whoever asked may have given up; the promise is kept all the same.
                    let _ = reply.send(answer);
                }
                fact = self.facts.recv() => match fact {
                    Some(fact) => self.observe_all(fact),
                    None => return,
                },
                Some(reply) = self.snapshots.recv() => if let Some(decision) = &last {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.snapshot(decision));
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Answers a peer that asks for a promise. Nothing happens between the helm's promise and its answer, and the helm
    /// knows of every claim that it has put out: one that is under way makes the answer a no.
    fn promise(&mut self, request: PromiseRequest) -> PromiseAnswer {
        self.observe(Fact::PromiseAsked(request.clone()));
        let answer = self.helm.answer(&request);
        let now = (self.clock)();
        let known = self.answered.as_ref().is_some_and(|(region, epoch, last, at)| {
            (region, epoch, last) == (&request.holder, &request.epoch, &answer) && now < at.plus(request.ttl)
        });
        let PromiseRequest { holder, epoch, ttl, .. } = request;
        if !known {
            match answer {
                PromiseAnswer::Promised => info!(
                    %holder, %epoch, ttl_ms = ttl.as_millis() as u64,
                    "Promised the holder not to take over while it does not reach the lease store."
                ),
                PromiseAnswer::Refused { because } => {
                    info!(%holder, %epoch, %because, "Did not promise a region to leave the right to it.");
                }
            }
        }
        self.answered = Some((holder, epoch, answer, now));
        answer
    }

    fn observe_all(&mut self, first: Fact) {
        self.observe(first);
        for _ in 1..FACTS_A_TICK_MAX {
            let Ok(fact) = self.facts.try_recv() else { return };
            self.observe(fact);
        }
    }

    fn observe(&mut self, fact: Fact) {
        let now = (self.clock)();
        if let Some(journal) = &mut self.journal {
            journal.observed(now, &fact);
        }
        match &fact {
            Fact::Peer { report, rtt } => {
                self.meter.set(Metric::WanRttSeconds, &[report.region.as_str()], rtt.as_secs_f64());
                self.look_closely(report);
            }
            Fact::Database(report) => {
                let up = report.state == DatabaseState::Up;
                self.meter.set(Metric::DatabaseUp, &[], f64::from(u8::from(up)));
            }
            Fact::App(report) => {
                let healthy = report.healthy.iter().filter(|well| **well).count();
                self.meter.set(Metric::AppInstancesHealthy, &[], healthy as f64);
            }
            Fact::Orders { orders, revision } if *revision > self.standing.1 => self.stand(orders, *revision),
            Fact::Orders { .. }
            | Fact::LeaseSeen { .. }
            | Fact::LeaseAnswered { .. }
            | Fact::LeaseStoreSilent
            | Fact::CommitsEnd { .. }
            | Fact::PeerSilent { .. }
            | Fact::PromiseAsked(_)
            | Fact::Promised { .. }
            | Fact::Stopping => {}
        }
        self.helm.observe(now, fact);
    }

    /// While the database that writes go to stands still, it matters how far this region's is.
    fn look_closely(&self, peer: &RegionReport) {
        let writes = match &self.plans.borrow().writes {
            Writes::At { region, .. } => *region == peer.region,
            Writes::Here { .. } | Writes::Nowhere { .. } => false,
        };
        let DatabaseReport { state, role, .. } = &peer.database;
        let stands = *state == DatabaseState::Down || *role == DatabaseRole::Fenced;
        self.closely.send_if_modified(|closely| replace(closely, &(stands && writes)));
    }

    fn stand(&mut self, orders: &Orders, revision: Revision) {
        self.standing = (orders.clone(), revision);
        let drained = orders.drained.contains(&self.helm.report((self.clock)()).region);
        self.meter.set(Metric::Drained, &[], f64::from(u8::from(drained)));
        self.meter.set(Metric::Maintenance, &[], f64::from(u8::from(orders.maintenance)));
    }

    fn send_out(&self, decision: &Decision) {
        // The plan goes out before the order: a right is withdrawn from the gates before it is given back.
        self.plans.send_if_modified(|plan| replace(plan, &decision.plan));
        self.report.send_if_modified(|report| replace(report, &self.helm.report((self.clock)())));
        if let Some(order) = &decision.lease
            && self.orders.try_send(order.clone()).is_err()
        {
            // The helm calls an attempt without an answer lost and goes on.
            warn!("The lease's driver is behind; an order was left out.");
        }
        if let Some(request) = &decision.ask {
            self.asks.send_replace(Some(request.clone()));
        }
    }

    fn tell_what_changed(&self, last: Option<&Decision>, decision: &Decision) {
        let epoch = decision.plan.epoch;
        match (last.is_some_and(by_promise), by_promise(decision)) {
            (false, true) => {
                warn!(%epoch, "Writes go on without the lease store, by the promise of every other region.");
            }
            (true, false) => info!(%epoch, because = %decision.because, "Writes no longer go by promises."),
            (true, true) | (false, false) => {}
        }
        let before = last.map(|last| place(&last.plan));
        let now = place(&decision.plan);
        if before.as_ref() == Some(&now) {
            return;
        }
        match now {
            Place::Here(epoch) => info!(%epoch, "Took over as writer."),
            Place::At(region, epoch) => info!(%region, %epoch, "Writes go to another region."),
            Place::Nowhere(because) => info!(%epoch, %because, "Writes are held."),
        }
    }

    fn count(&self, decision: &Decision, now: Moment) {
        let here = matches!(decision.plan.writes, Writes::Here { .. });
        self.meter.set(Metric::Writer, &[], f64::from(u8::from(here)));
        self.meter.set(Metric::ByPromise, &[], f64::from(u8::from(by_promise(decision))));
        self.meter.set(Metric::Epoch, &[], decision.plan.epoch.0 as f64);
        if let Some((_, changed)) = self.helm.lease() {
            self.meter.set(Metric::LeaseAgeSeconds, &[], now.since(changed).as_secs_f64());
        }
    }

    fn snapshot(&self, decision: &Decision) -> Snapshot {
        let now = (self.clock)();
        let mut findings = self.findings.list();
        if by_promise(decision) {
            findings.insert(0, BY_PROMISE.to_owned());
        }
        Snapshot {
            report: self.helm.report(now),
            plan: decision.plan.clone(),
            lease: self.helm.lease().map(|(key, changed)| (key.clone(), now.since(changed))),
            peers: self.helm.peers(now),
            orders: self.standing.0.clone(),
            findings,
            stranded_writes: self.stranded.load(std::sync::atomic::Ordering::Relaxed),
            uptime: now.since(self.started),
        }
    }
}

/// Whether this region writes without the lease store.
fn by_promise(decision: &Decision) -> bool {
    decision.because == Because::HoldsByPromise && matches!(decision.plan.writes, Writes::Here { .. })
}

/// Where writes go, without the deadline that moves with every renewal.
#[derive(PartialEq)]
enum Place {
    Here(Epoch),
    At(RegionName, Epoch),
    Nowhere(Because),
}

fn place(plan: &Plan) -> Place {
    match &plan.writes {
        Writes::Here { epoch, .. } => Place::Here(*epoch),
        Writes::At { region, epoch } => Place::At(region.clone(), *epoch),
        Writes::Nowhere { because } => Place::Nowhere(*because),
    }
}

fn replace<T: PartialEq + Clone>(old: &mut T, new: &T) -> bool {
    let changed = old != new;
    if changed {
        old.clone_from(new);
    }
    changed
}
