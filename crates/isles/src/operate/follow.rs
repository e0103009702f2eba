//! Follows an order to its end and measures, from here, how long no region took writes.

use std::time::{Duration, Instant};

use isles_agent::foresee::Foresight;
use isles_model::{Change, Epoch, OrdersAnswer, RegionName, Snapshot, TransferKind, Writes};
use serde::Serialize;

use super::agents::Agents;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long one look may take: a region may just be silent.
const LOOK_WITHIN: Duration = Duration::from_millis(500);
/// How long a planned change is followed.
const PLANNED_MAX: Duration = Duration::from_secs(30);
/// How long a forced move is followed: the last right has to end first.
const FORCED_MAX: Duration = Duration::from_secs(60);

/// How an order ended, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "ended")]
pub(crate) enum Ended {
    /// It is carried out.
    Done {
        /// Who writes now.
        writer: Option<RegionName>,
        /// Under which epoch.
        epoch: Epoch,
        /// The longest that no region can have taken writes; `None` when it was not seen from the beginning.
        pause_ms_max: Option<u64>,
        /// Since the order.
        elapsed_ms: u64,
    },
    /// It still stands.
    NotYet {
        /// Who writes.
        writer: Option<RegionName>,
        /// What the region that should write says of itself.
        because: String,
    },
    /// Somebody has ordered another move meanwhile.
    Superseded,
}

/// Looks from the moment of the order on, again and again, until the order is carried out, or for too long.
pub(super) async fn follow(
    agents: &Agents,
    change: &Change,
    plan: &Foresight,
    (begun, answer): (Instant, &OrdersAnswer),
) -> Ended {
    let forced = matches!(change, Change::Transfer { kind: TransferKind::Failover, .. });
    let until = begun + if forced { FORCED_MAX } else { PLANNED_MAX };
    let mut watch = Watch { from: plan.epoch, last_open: None, opened: None };
    loop {
        let asked = Instant::now();
        let answers = match change {
            // Whoever is level with the foreseen region when the time comes may take the right instead.
            Change::Drain { .. } => agents.shown_within(LOOK_WITHIN).await,
            Change::Undrain { .. } | Change::Maintenance { .. } | Change::Transfer { .. } => {
                let next = plan.next_writer.as_ref().filter(|next| Some(*next) != plan.writer.as_ref());
                let (before, after) = tokio::join!(look(agents, plan.writer.as_ref()), look(agents, next));
                before.into_iter().chain(after).collect()
            }
        };
        let shown: Vec<&Snapshot> = answers.iter().collect();
        watch.see(asked, &shown);
        let (done, because) = reached(change, plan, &watch, &shown);
        if done && heeded(agents, change).await {
            return watch.done(begun);
        }
        let number = answer.orders.transfer.as_ref().map(|transfer| transfer.number);
        let superseded = |snapshot: &&&Snapshot| {
            snapshot.orders.transfer.as_ref().map(|transfer| transfer.number) > number
        };
        if matches!(change, Change::Transfer { .. }) && shown.iter().any(|snapshot| superseded(&snapshot)) {
            return Ended::Superseded;
        }
        if Instant::now() > until {
            return Ended::NotYet {
                writer: watch.opened.map(|(region, ..)| region).or(plan.writer.clone()),
                because,
            };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is known of the writer's moves.
struct Watch {
    from: Epoch,
    /// When was last asked who then said that it takes writes under the old epoch.
    last_open: Option<Instant>,
    /// Who takes writes under a newer one, and when its answer came.
    opened: Option<(RegionName, Epoch, Instant)>,
}

impl Watch {
    fn see(&mut self, asked: Instant, shown: &[&Snapshot]) {
        for snapshot in shown {
            let Writes::Here { epoch, .. } = snapshot.plan.writes else { continue };
            if epoch <= self.from {
                self.last_open = Some(asked);
            } else if self.opened.as_ref().is_none_or(|(_, newest, _)| epoch > *newest) {
                self.opened = Some((snapshot.report.region.clone(), epoch, Instant::now()));
            }
        }
    }

    fn done(self, begun: Instant) -> Ended {
        let pause = match (&self.opened, self.last_open) {
            (Some((_, _, opened)), Some(last)) => Some(millis(opened.saturating_duration_since(last))),
            // It moved before the first look: the writer wrote when the order was given.
            (Some((_, _, opened)), None) => Some(millis(opened.saturating_duration_since(begun))),
            (None, _) => None,
        };
        let (writer, epoch) =
            self.opened.map_or((None, self.from), |(region, epoch, _)| (Some(region), epoch));
        Ended::Done { writer, epoch, pause_ms_max: pause, elapsed_ms: millis(begun.elapsed()) }
    }
}

/// Whether the right to write is where the order wants it; and if not, why.
fn reached(change: &Change, plan: &Foresight, watch: &Watch, shown: &[&Snapshot]) -> (bool, String) {
    let moves = plan.next_writer != plan.writer;
    let opened = watch.opened.as_ref().map(|(region, ..)| region);
    let there = match change {
        Change::Transfer { to, .. } => opened.map_or(!moves, |region| region == to),
        // Any other region will do, once this one takes neither writes nor new work; one that is silent takes none.
        Change::Drain { region: drained } => {
            let own = shown.iter().find(|snapshot| snapshot.report.region == *drained);
            let out =
                own.is_none_or(|own| own.plan.draining && !matches!(own.plan.writes, Writes::Here { .. }));
            out && opened.map_or(!moves, |region| region != drained)
        }
        Change::Undrain { .. } | Change::Maintenance { .. } => opened.is_some() || !moves,
    };
    let next = shown.iter().find(|snapshot| Some(&snapshot.report.region) == plan.next_writer.as_ref());
    let because = match next.map(|snapshot| &snapshot.plan.writes) {
        Some(Writes::Nowhere { because }) => because.to_string(),
        Some(Writes::At { region, .. }) => format!("writes go to {region}"),
        Some(Writes::Here { .. }) => "it writes".into(),
        None => "it does not answer".into(),
    };
    (there, because)
}

/// Whether the region that is drained or undrained has seen it; one that does not answer will when it does.
async fn heeded(agents: &Agents, change: &Change) -> bool {
    let (region, drained) = match change {
        Change::Drain { region } => (region, true),
        Change::Undrain { region } => (region, false),
        Change::Maintenance { .. } | Change::Transfer { .. } => return true,
    };
    look(agents, Some(region))
        .await
        .is_none_or(|snapshot| snapshot.orders.drained.contains(region) == drained)
}

async fn look(agents: &Agents, region: Option<&RegionName>) -> Option<Snapshot> {
    let agent = agents.of(region?)?;
    tokio::time::timeout(LOOK_WITHIN, agent.status()).await.ok()?.ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use isles_agent::foresee::Loss;
    use isles_model::{AppReport, Because, DatabaseReport, Moment, Orders, Plan, RegionReport};

    use super::*;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn snapshot(name: &str, writes: Writes, draining: bool) -> Snapshot {
        Snapshot {
            report: RegionReport {
                region: region(name),
                incarnation: 1,
                epoch: Epoch(4),
                database: DatabaseReport::unknown(),
                app: AppReport::default(),
                draining,
            },
            plan: Plan { epoch: Epoch(4), writes, draining, ..Plan::starting() },
            lease: None,
            orders: Orders::default(),
            peers: std::collections::BTreeMap::new(),
            findings: Vec::new(),
            stranded_writes: 0,
            uptime: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_drain_is_done_when_any_other_region_writes_and_the_drained_one_takes_nothing() {
        let change = Change::Drain { region: region("eu") };
        let plan = Foresight {
            writer: Some(region("eu")),
            next_writer: Some(region("us")),
            epoch: Epoch(3),
            loss: Loss::Nothing,
            pause: None,
            standing: false,
            done: false,
        };
        let done = |shown: &[&Snapshot]| {
            let mut watch = Watch { from: plan.epoch, last_open: None, opened: None };
            watch.see(Instant::now(), shown);
            reached(&change, &plan, &watch, shown).0
        };
        let here = |epoch| Writes::Here { epoch, until: Moment::ZERO };
        let gone = || Writes::At { region: region("ap"), epoch: Epoch(4) };
        let ap = snapshot("ap", here(Epoch(4)), false);
        assert!(!done(&[&snapshot("eu", here(Epoch(3)), true)]), "it writes still");
        assert!(!done(&[&snapshot("eu", Writes::Nowhere { because: Because::HandingOver }, true)]));
        assert!(!done(&[&snapshot("eu", gone(), false), &ap]), "it takes new work still");
        assert!(done(&[&snapshot("eu", gone(), true), &ap]), "another than was foreseen writes");
        assert!(done(&[&ap]), "the drained region does not answer");
    }
}
