//! One torture: clients work, the schedule is carried out, everything is mended, the history is judged.

use std::{path::Path, sync::Arc, time::Duration};

use isles_model::{
    Moment,
    drill::{Deed, Drill},
    topology::Commit,
};
use tokio::task::JoinSet;

use super::{
    Orders,
    check::{Terms, check},
    journals, quiet,
    report::TortureReport,
    workload::Workload,
};
use crate::drill::{
    doors,
    error::DrillError,
    ground::{Ground, Writer},
    overlap,
    record::Record,
    roles::Roles,
    stage::Stage,
    watch, whole_ms,
};

/// Every region must have had so many acknowledgements before anything is broken.
const ACKNOWLEDGED_BEFORE: usize = 5;
/// How long that may take.
const WARM_UP_MAX: Duration = Duration::from_secs(60);
/// How long the clients go on after the last act, so that a late wrong answer is seen too.
const GO_ON_FOR: Duration = Duration::from_secs(5);
/// How long the clients may take to end.
const CLIENTS_END_MAX: Duration = Duration::from_secs(40);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A writer must be back so many times-to-live after everything is mended: one until the last right has surely run
/// out, one for a claim that failed …
const BACK_TTLS: u32 = 2;
/// … and so much later for starting a database, promoting and connecting, on a busy machine.
const BACK_BESIDE_TTLS: Duration = Duration::from_secs(10);

/// All that one torture needs.
pub(super) struct Torture<'a> {
    pub(super) ground: &'a Ground,
    pub(super) orders: &'a Orders,
    pub(super) drill: &'a Drill,
    pub(super) record: &'a Arc<Record>,
    pub(super) workload: &'a Arc<Workload>,
}

/// What was done, and when.
#[derive(Default)]
struct Acted {
    faults: usize,
    refused: Vec<String>,
    /// Moments at which nothing was broken any more, and when something was again.
    whole: Vec<(Moment, Option<Moment>)>,
    from: Moment,
    until: Moment,
}

impl Torture<'_> {
    pub(super) async fn run(
        &self,
        writer: &Writer,
        journals_dir: &Path,
        step: &(impl Fn(&str) + Sync),
    ) -> Result<TortureReport, DrillError> {
        let mut clients = JoinSet::new();
        self.workload.start(self.ground, self.record, self.orders.seed, &mut clients);
        doors::start(self.ground, self.record, &mut clients);
        watch::start(self.ground, self.record, &mut clients);
        journals::start(self.ground, self.record, journals_dir, &mut clients);
        let acted = self.break_and_mend(writer, step).await;
        self.record.stop.cancel();
        let ended = async { while clients.join_next().await.is_some() {} };
        // Because a client has deadlines of its own, one that is still there is only waiting for a long answer.
        let _ = tokio::time::timeout(CLIENTS_END_MAX, ended).await;
        clients.shutdown().await;
        step("judging the history");
        self.judge(&acted?).await
    }

    async fn break_and_mend(
        &self,
        writer: &Writer,
        step: &(impl Fn(&str) + Sync),
    ) -> Result<Acted, DrillError> {
        step("clients begin to write in every region");
        self.until_warm().await?;
        let topology = &self.ground.topology;
        let roles = Roles::new(&writer.region, topology.region_names(), topology.witness.as_ref());
        let mut stage = Stage::new(&self.ground.lab, &roles, topology.service.replicas.min);
        let acted = self.acts(&mut stage, step).await;
        if acted.is_err() {
            // Because the first error is the one to be told, a second one is only noted.
            if let Err(error) = stage.heal().await {
                tracing::warn!(%error, "What the torture had broken could not be mended.");
            }
        }
        let mut acted = acted?;
        step("waiting until every region is whole again");
        self.ground.until_well().await?;
        self.record.pause(self.record.now(), GO_ON_FOR).await;
        acted.until = self.record.now();
        Ok(acted)
    }

    async fn until_warm(&self) -> Result<(), DrillError> {
        let until = self.record.now().plus(WARM_UP_MAX);
        for place in &self.ground.places {
            let enough = || {
                let ops = self.workload.ops();
                ops.iter().filter(|op| op.via == place.region && op.is_ok()).count() >= ACKNOWLEDGED_BEFORE
            };
            while !enough() {
                if self.record.now() > until {
                    let who = format!("writing through {}'s write gate", place.region);
                    return Err(DrillError::NeverWorked { who });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn acts(&self, stage: &mut Stage, step: &(impl Fn(&str) + Sync)) -> Result<Acted, DrillError> {
        let from = self.record.now();
        let mut acted = Acted { from, ..Acted::default() };
        for act in &self.drill.acts {
            if !self.record.pause(from, act.at).await {
                return Err(DrillError::TooMuch);
            }
            let deed = stage.fix(&act.deed).await;
            step(&format!("{:>6.1} s  {deed}", act.at.as_secs_f64()));
            if deed != Deed::Heal {
                acted.faults += 1;
                let now = self.record.now();
                if let Some((_, broken)) = acted.whole.last_mut().filter(|(_, broken)| broken.is_none()) {
                    *broken = Some(now);
                }
            }
            match stage.carry_out(&deed).await {
                Ok(()) => {}
                // An order may well be refused while things are broken.
                Err(error) if matches!(deed, Deed::Switchover { .. }) => {
                    acted.refused.push(error.to_string());
                }
                Err(source) => return Err(DrillError::Lab { doing: "do what the torture is to do", source }),
            }
            if deed == Deed::Heal && stage.is_whole() {
                acted.whole.push((self.record.now(), None));
            }
        }
        Ok(acted)
    }

    async fn judge(&self, acted: &Acted) -> Result<TortureReport, DrillError> {
        let writer = self.ground.until_well().await?;
        let place = self.ground.place(&writer.region)?;
        let last = self.workload.last(place).await?;
        let divergent_rows = self.workload.divergent_rows(self.ground, place).await?;
        let topology = &self.ground.topology;
        let (changes, ttl) = {
            let watched = self.record.watched();
            (watched.changes(), watched.longest_ttl().unwrap_or(topology.quorum.lease_ttl))
        };
        let micros = |moment: &Moment| u64::try_from(moment.0.as_micros()).unwrap_or(u64::MAX);
        let changes_us: Vec<u64> = changes.iter().map(micros).collect();
        let none_lost = topology.database.commit == Commit::Remote;
        let ops = self.workload.ops();
        let checked = check(&ops, &last, &Terms { none_lost, changes_us: &changes_us });
        let acknowledged = ops.iter().filter(|op| op.is_ok() && op.writes());
        let mut acknowledged: Vec<Moment> =
            acknowledged.map(|op| Moment(Duration::from_micros(op.ended_us))).collect();
        acknowledged.sort_unstable();
        let bound = ttl * BACK_TTLS + BACK_BESIDE_TTLS;
        let (from, until) = (acted.from, acted.until);
        let mut report = TortureReport {
            seed: self.orders.seed,
            minutes: self.orders.length.as_secs_f64() / 60.0,
            pattern: topology.pattern,
            regions: self.ground.places.len(),
            faults: acted.faults,
            tries: ops.len(),
            acknowledged: checked.acknowledged,
            lost: checked.lost,
            none_lost,
            conflicts: checked.conflicts,
            divergent_rows,
            two_writers_ms: whole_ms(overlap::two_writers(&self.record.tries())),
            longest_without_writer_ms: whole_ms(quiet::longest_without_writer(&acknowledged, from, until)),
            longest_after_heal_ms: whole_ms(quiet::longest_after_heal(
                &acknowledged,
                &acted.whole,
                until,
                bound,
            )),
            back_within_ms: whole_ms(bound),
            epochs: changes.len(),
            refused: acted.refused.clone(),
            violations: checked.violations,
            ..TortureReport::default()
        };
        report.judge();
        Ok(report)
    }
}
