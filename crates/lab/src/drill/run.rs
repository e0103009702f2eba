//! One run: clients work, something is broken, the run waits until they work again, mends it, and counts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use isles_model::{Moment, RegionName};
use tokio::task::JoinSet;

use super::{
    Orders, apps, doors,
    error::DrillError,
    ground::{Ground, Place, Writer},
    history::{Fault, History, Outcome, Reader, STEADY},
    ledger, overlap,
    record::{Numbers, Record, Stopwatch},
    roles::{Roles, Struck},
    stage::{self, Stage},
    table::Table,
    users,
    verdict::Judged,
    watch, whole_ms,
};
use crate::{
    report::Run,
    timeline::{Mark, Told, View, timeline},
};

/// Every client must have succeeded so often before anything is broken.
const SUCCESSES_BEFORE: usize = 10;
/// How long the clients may take for that.
const WARM_UP_MAX: Duration = Duration::from_secs(60);
/// How long the run waits for reads and writes beyond twice the promised recovery time.
const RECOVERY_WAIT_BEYOND: Duration = Duration::from_secs(30);
/// How long the struck region may take to be whole again.
const BACK_WAIT_MAX: Duration = Duration::from_secs(180);
/// How long the clients may take to end.
const CLIENTS_END_MAX: Duration = Duration::from_secs(40);
/// Pause between two looks at what the clients have recorded.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Carries out one run.
pub(super) async fn run(
    ground: &Ground,
    orders: &Orders,
    watch: Stopwatch,
    table: &Table,
    numbers: &Numbers,
    step: &(impl Fn(&str) + Sync),
) -> Result<Judged, DrillError> {
    let writer = ground.until_well().await?;
    let struck = orders.region.clone().unwrap_or_else(|| writer.region.clone());
    let topology = &ground.topology;
    let roles = Roles::new(&struck, topology.region_names(), topology.witness.as_ref());
    let record = Record::new(watch, table.clone(), numbers.clone());
    let mut clients = JoinSet::new();
    apps::start(ground, &record, &mut clients);
    users::start(ground, &orders.paths, &record, &mut clients);
    doors::start(ground, &record, &mut clients);
    watch::start(ground, &record, &mut clients);
    let cast = Cast::of(orders, &roles);
    let attempt =
        Attempt { ground, orders, record: &record, cast: &cast, writer: &writer, roles: &roles, step };
    let broken = attempt.break_and_mend().await;
    record.stop.cancel();
    let ended = async { while clients.join_next().await.is_some() {} };
    // Because a client has deadlines of its own, one that is still there is only waiting for a long answer.
    let _ = tokio::time::timeout(CLIENTS_END_MAX, ended).await;
    clients.shutdown().await;
    attempt.count(&broken?).await
}

/// Whose recovery counts.
struct Cast {
    /// The regions that the drill strikes.
    struck: Vec<RegionName>,
    /// Through these regions' write gates.
    writers: BTreeSet<RegionName>,
    readers: BTreeSet<Reader>,
}

impl Cast {
    fn of(orders: &Orders, roles: &Roles) -> Self {
        let Struck { regions: struck, shut } = Struck::by(&orders.drill, roles);
        let breaks = orders.drill.acts.iter().any(|act| act.deed.breaks());
        // An app beside a broken database may have no database to read from; its users are sent elsewhere.
        let apps = roles.regions().filter(|region| !breaks || !struck.contains(region));
        let readers: BTreeSet<Reader> =
            roles.regions().cloned().map(Reader::User).chain(apps.cloned().map(Reader::App)).collect();
        let writers = roles.regions().filter(|region| !shut.contains(*region)).cloned().collect();
        Self { struck, writers, readers }
    }
}

/// What the drill did, and when.
struct Done {
    /// The first act.
    fault: Fault,
    /// The last one.
    healed: Fault,
    marks: Vec<Mark>,
}

struct Attempt<'a, S> {
    ground: &'a Ground,
    orders: &'a Orders,
    record: &'a Arc<Record>,
    cast: &'a Cast,
    writer: &'a Writer,
    roles: &'a Roles,
    step: &'a S,
}

impl<S: Fn(&str) + Sync> Attempt<'_, S> {
    async fn break_and_mend(&self) -> Result<Done, DrillError> {
        (self.step)("clients begin to read and write in every region");
        self.until_warm().await?;
        let instances = self.ground.topology.service.replicas.min;
        let mut stage = Stage::new(&self.ground.lab, self.roles, instances);
        let done = self.acts(&mut stage).await;
        if done.is_err() {
            // Because the first error is the one to be told, a second one is only noted.
            if let Err(error) = stage.heal().await {
                tracing::warn!(%error, "What the drill had broken could not be mended.");
            }
        }
        let mut done = done?;
        (self.step)("waiting until reads and writes are back");
        self.until_recovered(&done.fault, done.healed.at).await;
        self.until_recovered(&done.healed, done.healed.at).await;
        self.record.calm_down();
        let from = self.record.now();
        if !stage.is_whole() {
            let mended = stage.heal().await;
            mended.map_err(|source| DrillError::Lab { doing: "mend what was broken", source })?;
            done.marks.push(Mark { at: from, event: "everything mended".into(), region: None });
        }
        (self.step)("waiting until every region is whole again");
        // A single blow mends itself: from when on is not known, only that it is over by now.
        let from = if done.healed.at > done.fault.at { done.healed.at } else { from };
        for region in &self.cast.struck {
            done.marks.extend(self.until_back(region, from).await?);
        }
        Ok(done)
    }

    /// Carries out every act at its time.
    async fn acts(&self, stage: &mut Stage) -> Result<Done, DrillError> {
        let origin = self.record.now();
        let mut marks = Vec::new();
        let mut first = None;
        let mut last = None;
        for act in &self.orders.drill.acts {
            self.record.pause(origin, act.at).await;
            let deed = stage.fix(&act.deed).await;
            (self.step)(&deed.to_string());
            let at = self.record.now();
            let done = stage.carry_out(&deed).await;
            done.map_err(|source| DrillError::Lab { doing: "do what the drill is to do", source })?;
            let (event, regions) = stage::told(&deed, self.roles);
            let mark = |region| Mark { at, event: event.clone(), region };
            match regions.is_empty() {
                true => marks.push(mark(None)),
                false => marks.extend(regions.into_iter().map(Some).map(mark)),
            }
            let region = self.cast.struck.first().unwrap_or(&self.writer.region).clone();
            // Because an order is no fault, what succeeds while it is carried out counts.
            let struck = if deed.breaks() { self.record.now() } else { at };
            let struck = Fault { region, at, struck };
            first.get_or_insert_with(|| struck.clone());
            last = Some(struck);
        }
        let none = || DrillError::NotReady("the drill does nothing".into());
        Ok(Done { fault: first.ok_or_else(none)?, healed: last.ok_or_else(none)?, marks })
    }

    /// Waits until every client has succeeded a few times: what never worked cannot recover.
    async fn until_warm(&self) -> Result<(), DrillError> {
        let until = self.record.now().plus(WARM_UP_MAX);
        loop {
            let cold = self.cold(&self.record.history());
            match cold {
                None => return Ok(()),
                Some(who) if self.record.now() > until => return Err(DrillError::NeverWorked { who }),
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn cold(&self, history: &History) -> Option<String> {
        let regions = || self.ground.places.iter().map(|place| &place.region);
        let fine = |outcome: &Outcome| *outcome == Outcome::Succeeded;
        let writes = |region: &RegionName| {
            history.writes.iter().filter(|write| write.via == *region && fine(&write.outcome)).count()
        };
        let reads = |reader: &Reader| {
            history.reads.iter().filter(|read| read.reader == *reader && fine(&read.outcome)).count()
        };
        let posts = |region: &RegionName| {
            history.posts.iter().filter(|post| post.user == *region && fine(&post.outcome)).count()
        };
        for region in regions() {
            if writes(region) < SUCCESSES_BEFORE {
                return Some(format!("writing through {region}'s write gate"));
            }
            if reads(&Reader::App(region.clone())) < SUCCESSES_BEFORE {
                return Some(format!("reading through {region}'s read gate"));
            }
            if reads(&Reader::User(region.clone())) < SUCCESSES_BEFORE {
                return Some(format!("a user's GET near {region}"));
            }
            if self.orders.paths.post.is_some() && posts(region) < SUCCESSES_BEFORE {
                return Some(format!("a user's POST near {region}"));
            }
        }
        None
    }

    /// Waits until reads and writes are back for good wherever they can be, or it has lasted too long after `from`.
    async fn until_recovered(&self, fault: &Fault, from: Moment) {
        let until = from.plus(self.ground.topology.objectives.rto * 2 + RECOVERY_WAIT_BEYOND);
        while self.record.now() < until {
            let back = {
                let history = self.record.history();
                let reads = history.rto_reads(fault, &self.cast.readers);
                let writes = self.cast.writers.iter().map(|region| history.writes_back(fault, region));
                writes.chain([reads]).try_fold(Duration::ZERO, |longest, one| Some(longest.max(one?)))
            };
            if back.is_some_and(|back| self.record.now() > fault.at.plus(back + STEADY)) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a struck region is whole, and tells when.
    async fn until_back(&self, region: &RegionName, from: Moment) -> Result<Vec<Mark>, DrillError> {
        let until = self.record.now().plus(BACK_WAIT_MAX);
        let whole = |view: &View| view.well && (view.replica || view.writer.is_some());
        loop {
            let seen = {
                let watched = self.record.watched();
                let answers = watched.first(region, from, |_| true);
                answers.zip(watched.first(region, from, whole))
            };
            if let Some((answers, complete)) = seen {
                let mark =
                    |at, event: &'static str| Mark { at, event: event.into(), region: Some(region.clone()) };
                let writes = self.ground.until_well().await?.region == *region;
                let whole = mark(complete, if writes { "writer again" } else { "replica complete" });
                // An agent that has answered all along tells nothing by answering.
                let silent = answers > from;
                return Ok(if silent { vec![mark(answers, "region answers"), whole] } else { vec![whole] });
            }
            if self.record.now() > until {
                let because = self.record.watched().last(region).map_or_else(
                    || "its agent does not answer".to_owned(),
                    |view| {
                        if view.database_up { "its copy is not complete" } else { "its database is down" }
                            .into()
                    },
                );
                return Err(DrillError::NotBack { region: region.clone(), because, within: BACK_WAIT_MAX });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Counts, once all clients have ended.
    async fn count(&self, done: &Done) -> Result<Judged, DrillError> {
        (self.step)("counting acknowledged writes");
        let Done { fault, healed, marks } = done;
        let writer = self.ground.until_well().await?;
        let kept = self.record.table.kept(self.ground.place(&writer.region)?).await?;
        let settled = self.record.table.until_settled(self.ground, &kept).await;
        let history = self.record.history();
        let watched = self.record.watched();
        let lost = history.lost(&kept);
        let numbers: BTreeSet<u64> = lost.keys().copied().collect();
        let in_ledger = |place: &Place| ledger::holds(&place.ledger, self.record.table.name(), &numbers);
        let recovered: BTreeSet<u64> = self.ground.places.iter().flat_map(in_ledger).collect();
        let promoted = watched.promoted(self.writer.epoch).map(|(_, region)| region);
        let told = Told {
            fault,
            before: self.writer.epoch,
            lease_ttl: self.ground.topology.quorum.lease_ttl,
            survivors: &self.cast.writers,
            history: &history,
            watched: &watched,
            marks,
        };
        let planned = !self.orders.drill.acts.iter().any(|act| act.deed.breaks());
        let later = healed.at > fault.at;
        let after_heal = |back: Option<Duration>| back.filter(|_| later).map(whole_ms);
        let run = Run {
            rto_reads_ms: history.rto_reads(fault, &self.cast.readers).map(whole_ms),
            rto_writes_ms: history.rto_writes(fault, &self.cast.writers).map(whole_ms),
            reads_after_heal_ms: after_heal(history.rto_reads(healed, &self.cast.readers)),
            writes_after_heal_ms: after_heal(history.rto_writes(healed, &self.cast.writers)),
            longest_pause_ms: Some(whole_ms(history.longest_pause(fault.at))),
            pause_ms: planned.then(|| whole_ms(history.longest_pause(fault.at))),
            acknowledged: history.acknowledged(),
            lost: numbers.into_iter().collect(),
            stranded_recovered: recovered.len(),
            requests: history.requests(),
            errors_seen: history.errors_seen(),
            two_writers_ms: whole_ms(overlap::two_writers(&self.record.tries())),
            failed_over_to: promoted.filter(|region| *region != self.writer.region),
            timeline: timeline(&told),
        };
        let oldest = lost.values().map(|acknowledged| fault.at.since(*acknowledged)).max();
        let oldest_lost_ms = oldest.map_or(0, whole_ms);
        let overflowed = history.is_full();
        Ok(Judged { run, oldest_lost_ms, one_act: !later, settled, overflowed })
    }
}
