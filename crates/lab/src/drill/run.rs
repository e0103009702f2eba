//! One run: clients work, something is broken, the run waits until they work again, mends it, and counts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use isles_model::{Moment, RegionName};
use tokio::task::JoinSet;

use super::{
    Orders, Scenario, apps, doors,
    error::DrillError,
    ground::{Ground, Writer},
    history::{Fault, History, Outcome, Reader, STEADY},
    ledger, overlap,
    record::{Numbers, Record, Stopwatch},
    table::Table,
    users,
    verdict::Judged,
    watch, whole_ms,
};
use crate::{
    control::{Part, PartAction},
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
    let region = orders.region.clone().unwrap_or_else(|| writer.region.clone());
    let record = Record::new(watch, table.clone(), numbers.clone());
    let mut clients = JoinSet::new();
    apps::start(ground, &record, &mut clients);
    users::start(ground, &orders.paths, &record, &mut clients);
    doors::start(ground, &record, &mut clients);
    watch::start(ground, &record, &mut clients);
    let cast = Cast::of(ground, orders.scenario, &region);
    let attempt = Attempt { ground, orders, record: &record, cast: &cast, writer: &writer, step };
    let broken = attempt.break_and_mend(region).await;
    record.stop.cancel();
    let ended = async { while clients.join_next().await.is_some() {} };
    // Because a client has deadlines of its own, one that is still there is only waiting for a long answer.
    let _ = tokio::time::timeout(CLIENTS_END_MAX, ended).await;
    clients.shutdown().await;
    let (fault, marks) = broken?;
    attempt.count(&fault, marks).await
}

/// Whose recovery counts.
struct Cast {
    /// Through these regions' write gates.
    writers: BTreeSet<RegionName>,
    readers: BTreeSet<Reader>,
    /// The regions whose agents go on.
    survivors: BTreeSet<RegionName>,
}

impl Cast {
    fn of(ground: &Ground, scenario: Scenario, struck: &RegionName) -> Self {
        let all: BTreeSet<RegionName> = ground.places.iter().map(|place| place.region.clone()).collect();
        let others: BTreeSet<RegionName> = all.iter().filter(|region| *region != struck).cloned().collect();
        // An app beside a crashed database has no database to read from; its users are sent elsewhere.
        let users = all.iter().cloned().map(Reader::User);
        let readers = users.chain(others.iter().cloned().map(Reader::App)).collect();
        let survivors = match scenario {
            Scenario::RegionOutage => others,
            Scenario::DatabaseCrash => all,
        };
        Self { writers: survivors.clone(), readers, survivors }
    }
}

struct Attempt<'a, S> {
    ground: &'a Ground,
    orders: &'a Orders,
    record: &'a Arc<Record>,
    cast: &'a Cast,
    writer: &'a Writer,
    step: &'a S,
}

impl<S: Fn(&str) + Sync> Attempt<'_, S> {
    async fn break_and_mend(&self, region: RegionName) -> Result<(Fault, Vec<Mark>), DrillError> {
        (self.step)("clients begin to read and write in every region");
        self.until_warm().await?;
        let (what, mended) = self.words();
        (self.step)(&format!("{region}: {what}"));
        let at = self.record.now();
        let broken = self.break_it(&region).await;
        let struck = self.record.now();
        let fault = Fault { region: region.clone(), at, struck };
        let mut marks = vec![Mark { at, event: what, region: Some(region.clone()) }];
        broken.map_err(|source| DrillError::Lab { doing: "break what the drill is to break", source })?;
        self.until_recovered(&fault).await;
        self.record.calm_down();
        let start = self.record.now();
        if self.orders.restart && self.orders.scenario == Scenario::DatabaseCrash {
            (self.step)(&format!("{region}: waiting until its database is whole again"));
        } else {
            (self.step)(&format!("{region}: starting it again, and waiting until it is whole"));
            let mend = self.mend(&region).await;
            mend.map_err(|source| DrillError::Lab { doing: "start again what was broken", source })?;
            marks.push(Mark { at: start, event: mended, region: Some(region.clone()) });
        }
        marks.extend(self.until_back(&fault, start).await?);
        Ok((fault, marks))
    }

    fn words(&self) -> (&'static str, &'static str) {
        match self.orders.scenario {
            Scenario::RegionOutage => ("region stopped", "region started again"),
            Scenario::DatabaseCrash => ("database killed", "database started again"),
        }
    }

    async fn break_it(&self, region: &RegionName) -> Result<(), crate::control::ControlError> {
        match (self.orders.scenario, self.orders.restart) {
            (Scenario::RegionOutage, _) => self.ground.lab.kill_region(region).await,
            (Scenario::DatabaseCrash, true) => {
                self.ground.lab.part(region, Part::Postgres, PartAction::Crash).await
            }
            (Scenario::DatabaseCrash, false) => {
                self.ground.lab.part(region, Part::Postgres, PartAction::Kill).await
            }
        }
    }

    async fn mend(&self, region: &RegionName) -> Result<(), crate::control::ControlError> {
        match self.orders.scenario {
            Scenario::RegionOutage => self.ground.lab.start_region(region).await,
            Scenario::DatabaseCrash => self.ground.lab.part(region, Part::Postgres, PartAction::Start).await,
        }
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

    /// Waits until reads and writes are back for good wherever they can be, or it has lasted too long to wait for.
    async fn until_recovered(&self, fault: &Fault) {
        (self.step)("waiting until reads and writes are back");
        let until = fault.at.plus(self.ground.topology.objectives.rto * 2 + RECOVERY_WAIT_BEYOND);
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

    /// Waits until the struck region is whole, and tells when.
    async fn until_back(&self, fault: &Fault, from: Moment) -> Result<Vec<Mark>, DrillError> {
        let until = self.record.now().plus(BACK_WAIT_MAX);
        let region = &fault.region;
        let whole = |view: &View| view.well && (view.replica || view.writer.is_some());
        loop {
            let seen = {
                let watched = self.record.watched();
                let answers = watched.first(region, from, |_| true);
                answers.zip(watched.first(region, from, whole))
            };
            if let Some((answers, complete)) = seen {
                let mark = |at, event| Mark { at, event, region: Some(region.clone()) };
                let writes = self.ground.until_well().await?.region == *region;
                let whole = if writes { "writer again" } else { "replica complete" };
                return Ok(match self.orders.scenario {
                    Scenario::RegionOutage => vec![mark(answers, "region answers"), mark(complete, whole)],
                    Scenario::DatabaseCrash => vec![mark(complete, whole)],
                });
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
    async fn count(&self, fault: &Fault, marks: Vec<Mark>) -> Result<Judged, DrillError> {
        (self.step)("counting acknowledged writes");
        let writer = self.ground.until_well().await?;
        let kept = self.record.table.kept(self.ground.place(&writer.region)?).await?;
        let settled = self.record.table.until_settled(self.ground, &kept).await;
        let history = self.record.history();
        let watched = self.record.watched();
        let lost = history.lost(&kept);
        let numbers: BTreeSet<u64> = lost.keys().copied().collect();
        let recovered =
            ledger::holds(&self.ground.place(&fault.region)?.ledger, self.record.table.name(), &numbers);
        let promoted = watched.promoted(self.writer.epoch);
        let told = Told {
            fault,
            before: self.writer.epoch,
            lease_ttl: self.ground.topology.quorum.lease_ttl,
            survivors: &self.cast.survivors,
            history: &history,
            watched: &watched,
            marks: &marks,
        };
        let run = Run {
            rto_reads_ms: history.rto_reads(fault, &self.cast.readers).map(whole_ms),
            rto_writes_ms: history.rto_writes(fault, &self.cast.writers).map(whole_ms),
            pause_ms: None,
            acknowledged: history.acknowledged(),
            lost: numbers.into_iter().collect(),
            stranded_recovered: recovered.len(),
            requests: history.requests(),
            errors_seen: history.errors_seen(),
            two_writers_ms: whole_ms(overlap::two_writers(&self.record.tries())),
            failed_over_to: promoted.map(|(_, region)| region).filter(|region| *region != self.writer.region),
            timeline: timeline(&told),
        };
        let oldest = lost.values().map(|acknowledged| fault.at.since(*acknowledged)).max();
        let oldest_lost_ms = oldest.map_or(0, whole_ms);
        Ok(Judged { run, oldest_lost_ms, settled, overflowed: history.is_full() })
    }
}
