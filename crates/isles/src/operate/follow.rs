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

/// Looks again and again until the order is carried out, or for too long.
pub(super) async fn follow(
    agents: &Agents,
    change: &Change,
    plan: &Foresight,
    answer: &OrdersAnswer,
) -> Ended {
    let begun = Instant::now();
    let forced = matches!(change, Change::Transfer { kind: TransferKind::Failover, .. });
    let until = begun + if forced { FORCED_MAX } else { PLANNED_MAX };
    let mut watch = Watch { from: plan.epoch, last_open: None, opened: None };
    loop {
        let asked = Instant::now();
        let (before, after) = tokio::join!(
            look(agents, plan.writer.as_ref()),
            look(agents, plan.next_writer.as_ref().filter(|next| Some(*next) != plan.writer.as_ref())),
        );
        let shown: Vec<&Snapshot> = before.iter().chain(&after).collect();
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
            (Some(_), None) | (None, _) => None,
        };
        let (writer, epoch) =
            self.opened.map_or((None, self.from), |(region, epoch, _)| (Some(region), epoch));
        Ended::Done { writer, epoch, pause_ms_max: pause, elapsed_ms: millis(begun.elapsed()) }
    }
}

/// Whether the right to write is where the order wants it; and if not, why.
fn reached(change: &Change, plan: &Foresight, watch: &Watch, shown: &[&Snapshot]) -> (bool, String) {
    let moves = plan.next_writer != plan.writer;
    let wanted = match change {
        Change::Transfer { to, .. } => Some(to),
        Change::Drain { .. } | Change::Undrain { .. } | Change::Maintenance { .. } => None,
    };
    let there = match (&watch.opened, wanted) {
        (Some((region, ..)), Some(to)) => region == to,
        (Some(_), None) => true,
        (None, _) => !moves,
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
