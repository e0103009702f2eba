//! Holds every run against the invariants.
//!
//! I1 no acknowledgement of an epoch after one of a later epoch, and never two gates open at one true time;
//! I3 an acknowledged write is in the last writer's log or listed as stranded; I4 exactly one gate is open, and
//! every copy has rejoined, within a bound after healing; I5 no epoch changes without a long fault; I6 an epoch
//! has one holder and one writer, and epochs only grow; I7 a diverged or incomplete copy never serves and is never
//! promoted. HELM: what the driver may rely on in every decision. (I2 is of synchronous commit, I8 and I9 are the
//! edge's.) ORDERS: nobody takes the right against an order that it has known for long. READ: no put is decided from a
//! stale read, that is from a state that the store had left before the last answered read was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isles_decide::Decision;
use isles_model::{
    Copy, DatabaseRole, DatabaseState, Epoch, LeaseKey, LeaseState, Moment, RegionName, Revision, Writes,
    topology::Commit,
};

use crate::{
    agent::Agent,
    clock::{MS, Micros},
    database::Database,
    setup::Setup,
    tally::Tally,
};

/// From the check whether a commit is too old until its acknowledgement is seen: the gate's longest way out.
const BOUND_SLACK: Duration = Duration::from_millis(60);

/// A broken invariant.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) at: Micros,
    pub(crate) text: String,
}

/// What has been seen of a run.
pub(crate) struct Judge {
    pub(crate) violation: Option<Violation>,
    calm: bool,
    holders: BTreeMap<Epoch, RegionName>,
    writers: BTreeMap<Epoch, usize>,
    newest_stored: Epoch,
    /// What was checked.
    pub(crate) checked: Tally,
    /// How often the right went to another region: because it had run out, or because it was given back.
    pub(crate) failovers: u64,
    pub(crate) given_back: u64,
    admitted: BTreeMap<u32, Epoch>,
    /// Every acknowledged write, with its epoch and the moment.
    acknowledged: BTreeMap<u32, (Epoch, Micros)>,
    /// The last acknowledgement of each epoch.
    ends: BTreeMap<Epoch, Micros>,
    /// Acknowledged writes that a later writer did not have.
    lost: BTreeSet<u32>,
    /// An operator has accepted loss.
    loss_accepted: bool,
    commit: Commit,
    newest_acknowledged: Epoch,
    last_acknowledged_at: Micros,
    /// When each epoch's first acknowledgement left.
    pub(crate) first_acknowledged: BTreeMap<Epoch, Micros>,
}

impl Judge {
    pub(crate) fn new(calm: bool, commit: Commit) -> Self {
        Self {
            violation: None,
            calm,
            holders: BTreeMap::new(),
            writers: BTreeMap::new(),
            newest_stored: Epoch::NONE,
            checked: Tally::default(),
            failovers: 0,
            given_back: 0,
            admitted: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            ends: BTreeMap::new(),
            lost: BTreeSet::new(),
            loss_accepted: false,
            commit,
            newest_acknowledged: Epoch::NONE,
            last_acknowledged_at: 0,
            first_acknowledged: BTreeMap::new(),
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The newest epoch that a region was promoted under, and that region.
    pub(crate) fn last_writer(&self) -> Option<(Epoch, usize)> {
        self.writers.last_key_value().map(|(epoch, region)| (*epoch, *region))
    }

    /// Whether a write has been acknowledged.
    pub(crate) fn knows(&self, write: u32) -> bool {
        self.acknowledged.contains_key(&write)
    }

    /// Whether a log has every acknowledged write.
    pub(crate) fn has_all(&self, log: &[u32]) -> bool {
        let has: BTreeSet<u32> = log.iter().copied().collect();
        self.acknowledged.keys().all(|write| has.contains(write))
    }

    /// When each acknowledgement left.
    pub(crate) fn acknowledged_at(&self) -> impl Iterator<Item = Micros> {
        self.acknowledged.values().map(|(_, at)| *at)
    }

    /// When the last acknowledgement left.
    pub(crate) fn last_acknowledged_at(&self) -> Micros {
        self.last_acknowledged_at
    }

    /// The first violation counts; what follows may follow from it.
    pub(crate) fn fail(&mut self, at: Micros, invariant: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, at, text: text() });
        }
    }

    fn hold(&mut self, at: Micros, invariant: &'static str, holds: bool, text: impl FnOnce() -> String) {
        self.checked.check(invariant);
        if !holds {
            self.fail(at, invariant, text);
        }
    }

    /// The store has taken a value.
    pub(crate) fn stored(&mut self, at: Micros, key: &LeaseKey, handed_over: bool, released: bool) {
        let holder = self.holders.entry(key.epoch).or_insert_with(|| key.holder.clone()).clone();
        self.hold(at, "I6", holder == key.holder, || format!("epoch {} was {holder}'s: {key:?}", key.epoch));
        let newest = self.newest_stored;
        self.hold(at, "I6", key.epoch >= newest, || {
            format!("an epoch older than {newest} is stored: {key:?}")
        });
        let changes = newest > Epoch::NONE && key.epoch != newest && !handed_over;
        self.hold(at, "I5", !(self.calm && changes), || format!("a short fault changed the epoch: {key:?}"));
        let moved = self.holders.range(..key.epoch).next_back().is_some_and(|(_, last)| *last != key.holder);
        let moved = moved && key.epoch > newest;
        self.failovers += u64::from(moved);
        self.given_back += u64::from(moved && released);
        self.newest_stored = newest.max(key.epoch);
    }

    /// A database becomes the writer; `database` is as it was before.
    pub(crate) fn promoted(&mut self, at: Micros, region: usize, epoch: Epoch, database: &Database) {
        let writer = *self.writers.entry(epoch).or_insert(region);
        self.hold(at, "I6", writer == region, || format!("{writer} and {region} both write epoch {epoch}"));
        self.hold(at, "I7", database.whole, || format!("{region} is promoted with an incomplete copy"));
        self.judge_loss(at, region, &database.log);
        let last = self.writers.range(..epoch).next_back().map(|(last, _)| *last);
        let left = database.lineage.wrote && last.is_some_and(|last| last > database.lineage.epoch);
        self.hold(at, "I7", !left, || format!("{region} is promoted from {:?}, diverged", database.lineage));
    }

    /// I2 and I3: what a new writer may lack of what was acknowledged.
    fn judge_loss(&mut self, at: Micros, region: usize, log: &[u32]) {
        let has: BTreeSet<u32> = log.iter().copied().collect();
        let mut missing: Vec<(u32, Epoch, Micros)> = Vec::new();
        for (write, (epoch, when)) in &self.acknowledged {
            if !has.contains(write) && !self.lost.contains(write) {
                missing.push((*write, *epoch, *when));
            }
        }
        let commit = self.commit;
        match commit {
            Commit::Async => {}
            Commit::Remote => self.checked.check("I2"),
            Commit::Bounded(_) => self.checked.check("I3"),
        }
        for (write, epoch, when) in missing {
            self.lost.insert(write);
            if self.loss_accepted {
                continue;
            }
            let end = self.ends.get(&epoch).copied().unwrap_or_default();
            match commit {
                Commit::Async => {}
                Commit::Remote => self.fail(at, "I2", || {
                    format!("{region} is promoted without write {write}, acknowledged at {} ms", when / MS)
                }),
                Commit::Bounded(bound) => {
                    let age = Duration::from_micros(end - when);
                    self.hold(at, "I3", age <= bound + BOUND_SLACK, || {
                        format!("{region} lacks write {write}, acknowledged {age:?} before the last one of epoch {epoch}")
                    });
                }
            }
        }
    }

    /// An operator's order accepts that acknowledged writes are lost.
    pub(crate) fn accept_loss(&mut self) {
        self.loss_accepted = true;
    }

    /// The gate lets an acknowledgement out.
    pub(crate) fn admits(&mut self, write: u32, epoch: Epoch) {
        self.admitted.insert(write, epoch);
    }

    /// An acknowledgement has left.
    pub(crate) fn acknowledge(&mut self, at: Micros, region: usize, write: u32) {
        let epoch = self.admitted.remove(&write).unwrap_or_default();
        let newest = self.newest_acknowledged;
        self.hold(at, "I1", epoch >= newest, || {
            format!("{region} acknowledges write {write} of epoch {epoch} after one of epoch {newest}")
        });
        self.newest_acknowledged = newest.max(epoch);
        self.acknowledged.insert(write, (epoch, at));
        self.ends.insert(epoch, at);
        self.last_acknowledged_at = at;
        self.first_acknowledged.entry(epoch).or_insert(at);
    }

    /// READ: a put expects no revision that was old already when the read was asked that was answered last.
    pub(crate) fn decided_from(&mut self, at: Micros, region: usize, expected: Revision, asked_at: Revision) {
        self.hold(at, "READ", expected >= asked_at, || {
            format!("{region} puts upon {expected:?}, though its last read was asked at {asked_at:?}")
        });
    }

    /// What a driver may rely on in every decision.
    pub(crate) fn decided(
        &mut self,
        at: Micros,
        region: usize,
        now: Moment,
        decision: &Decision,
        agent: &Agent,
        setup: &Setup,
    ) {
        let plan = &decision.plan;
        let wait = decision.next.since(now);
        let soon = Duration::from_millis(1)..=Duration::from_millis(500);
        self.hold(at, "HELM", soon.contains(&wait), || format!("{region} ticks again in {wait:?}"));
        self.hold(at, "HELM", plan.epoch >= agent.newest, || format!("{region} goes back to {}", plan.epoch));
        self.hold(at, "HELM", plan.serve.len() == setup.regions(), || format!("{region} forgets regions"));
        let told = agent.told.as_ref();
        if let Writes::Here { epoch, until } = &plan.writes {
            let ready = told.is_some_and(|own| {
                own.state == DatabaseState::Up && own.role == DatabaseRole::Writer { epoch: *epoch }
            });
            self.hold(at, "HELM", ready && now < *until, || format!("{region} opens for {told:?}"));
            let releases = decision.lease.as_ref().is_some_and(|order| order.value.state != LeaseState::Held);
            self.hold(at, "HELM", !releases, || format!("{region} gives back what it uses"));
        }
        let reads = plan.serve.iter().any(|serving| serving.region == *setup.name(region) && serving.reads);
        let unfit = told.is_none_or(|own| {
            let running =
                matches!(own.role, DatabaseRole::Replica { copy: Copy::Running | Copy::Extending, .. });
            let diverged = own.lineage.wrote && own.lineage.epoch < plan.epoch;
            own.state == DatabaseState::Down || running || diverged
        });
        self.hold(at, "I7", !(reads && unfit), || format!("{region} reads from {told:?}"));
    }

    /// The end of a run: everything was mended long ago.
    pub(crate) fn close(
        &mut self,
        at: Micros,
        databases: &[Database],
        key: Option<&LeaseKey>,
        setup: &Setup,
    ) {
        let Some(key) = key else {
            self.fail(at, "I4", || "nobody ever held the right".to_owned());
            return;
        };
        let writer = setup.index(&key.holder);
        let late = self.last_acknowledged_at < setup.settled_at();
        self.hold(at, "I4", !late, || {
            let waits = databases[writer].followers.report();
            format!(
                "no write is acknowledged after healing: {key:?}, {waits:?}, log {}",
                databases[writer].log.len()
            )
        });
        for (region, database) in databases.iter().enumerate().filter(|(region, _)| *region != writer) {
            let follows = matches!(&database.role, DatabaseRole::Replica { epoch, copy: Copy::Complete, .. }
                if *epoch == key.epoch);
            self.hold(at, "I4", follows && database.whole, || {
                format!("{region} is left as {:?}", database.role)
            });
            let same = databases[writer].log.starts_with(&database.log);
            self.hold(at, "I4", same, || format!("{region} follows and has other rows than its writer"));
        }
        let kept: BTreeSet<u32> = databases[writer].log.iter().copied().collect();
        let listed: BTreeSet<u32> =
            databases.iter().flat_map(|database| &database.stranded).copied().collect();
        let final_loss = self.commit == Commit::Remote && !self.loss_accepted;
        let lacks =
            self.acknowledged.keys().find(|write| !kept.contains(write)).copied().filter(|_| final_loss);
        self.hold(at, "I2", lacks.is_none(), || format!("the final writer lacks write {lacks:?}"));
        let missing = self.acknowledged.keys().find(|write| !kept.contains(write) && !listed.contains(write));
        let missing = missing.copied();
        self.hold(at, "I3", missing.is_none(), || {
            format!("acknowledged write {missing:?} is lost and unlisted")
        });
    }
}
