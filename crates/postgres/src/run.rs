//! Brings one region's PostgreSQL to what is ordered, and reports what it is.
//!
//! Tasks of their own, so that none delays another: the fence, the probe, the look at the log of a database that
//! crashed, the trial whether it can write, the measure of the writer's log, and the reconciling work (promote, follow, rejoin, carry the schema). Decides nothing.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use isles_model::{
    Because, DatabaseOrder, Epoch, EpochSecret, Fact, Meter, Plan, RegionName, Standbys,
    config::DatabaseConfig, ids::Clock, topology::Commit,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use crate::{
    Coverage, bounded, coverage, crash,
    error::DatabaseError,
    fence,
    findings::Findings,
    gate::Acknowledge,
    ledger,
    link::{Link, Purpose},
    measure, probe, reconcile,
    room::{self, Room},
    standbys,
};

/// Where this region's database and its peers' are.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// This region.
    pub region: RegionName,
    /// Its database.
    pub database: DatabaseConfig,
    /// What the app's role's password of each epoch is made from.
    pub secret: EpochSecret,
    /// The other regions' databases, as reached from here.
    pub peers: BTreeMap<RegionName, SocketAddr>,
    /// What a commit of the writer waits for.
    pub commit: Commit,
    /// Tables that do not replicate: bare names or `schema.name`.
    pub exclude_tables: Vec<String>,
    /// Whether the gate may let acknowledgements pass: set here, obeyed there.
    pub acknowledge: watch::Sender<Acknowledge>,
    /// Where the gate notes commits that may have made a table.
    pub coverage: Coverage,
    /// Whether the writer's database is away or fenced just now: how far this one is then matters at once.
    pub closely: watch::Receiver<bool>,
    /// Where writes that only this region held are kept (JSON lines, mode 0600).
    pub ledger_path: PathBuf,
    /// How many writes the ledger holds; kept up to date for whoever shows it.
    pub stranded: Arc<AtomicU64>,
}

/// What all tasks share.
pub(crate) struct World {
    pub(crate) config: PostgresConfig,
    pub(crate) findings: Findings,
    pub(crate) meter: Meter,
    pub(crate) clock: Clock,
    /// Whether PostgreSQL would let the app's role in, as far as the file of those who may log in goes.
    pub(crate) admits: AtomicBool,
    /// Whether the database can write.
    pub(crate) room: Room,
    /// Rung after a change that should be reported at once.
    pub(crate) changed: Arc<Notify>,
    /// Rung when there are tables that should be published at once.
    pub(crate) publish: Notify,
}

impl World {
    /// A session with a peer's database.
    pub(crate) async fn peer_link(
        &self,
        region: &RegionName,
        purpose: Purpose,
    ) -> Result<Link, DatabaseError> {
        Link::peer(&self.config.database, region, self.peer_address(region)?, purpose).await
    }

    pub(crate) fn peer_address(&self, region: &RegionName) -> Result<SocketAddr, DatabaseError> {
        let address = self.config.peers.get(region).copied();
        address.ok_or_else(|| DatabaseError::UnknownPeer(region.clone()))
    }
}

/// Runs until `stop`. Starts fenced, obeys only plans whose epoch is not older than one it has seen, reports
/// [`Fact::Database`] every [`probe::REPORT_EVERY`] and at once upon a change, and leaves the database fenced.
///
/// Never gives up: what fails is shown in `findings` and tried again.
pub async fn run(
    config: PostgresConfig,
    plans: watch::Receiver<Plan>,
    facts: mpsc::Sender<Fact>,
    findings: Findings,
    meter: Meter,
    clock: Clock,
    stop: CancellationToken,
) {
    let span = info_span!("postgres", region = %config.region);
    ledger::tally(&config.ledger_path, &config.stranded).await;
    // Where there is no such file, the role's own right to log in is all there is.
    let admits = AtomicBool::new(config.database.files.is_none());
    let (room, changed) = (Room::new(), Arc::new(Notify::new()));
    let world =
        Arc::new(World { config, findings, meter, clock, admits, room, changed, publish: Notify::new() });
    let (order_in, orders) = watch::channel(Plan::starting().database);
    let (promoted_in, promoted) = watch::channel(None);
    let (sample_in, samples) = watch::channel(None);
    let (standbys_in, followers) = watch::channel(Standbys::default());
    let (known_in, known) = watch::channel(Standbys::default());
    let (died_in, died) = watch::channel(None);
    let work = async {
        tokio::join!(
            obey(plans.clone(), order_in, stop.clone()),
            fence::run(world.clone(), orders.clone(), promoted.clone(), died.clone(), stop.clone()),
            standbys::run(world.clone(), orders.clone(), promoted.clone(), standbys_in, stop.clone()),
            bounded::run(world.clone(), orders.clone(), promoted.clone(), followers, known_in, stop.clone()),
            coverage::keep::run(world.clone(), orders.clone(), promoted, stop.clone()),
            probe::run(world.clone(), facts.clone(), (samples, known), died_in, stop.clone()),
            crash::run(world.clone(), plans, died, facts, stop.clone()),
            room::run(world.clone(), stop.clone()),
            measure::run(world.clone(), orders.clone(), sample_in, stop.clone()),
            reconcile::run(world.clone(), orders, promoted_in, stop.clone()),
        );
    };
    Box::pin(work.instrument(span)).await;
}

/// Passes the orders of plans on, but none of an epoch older than one already seen.
async fn obey(
    mut plans: watch::Receiver<Plan>,
    orders: watch::Sender<DatabaseOrder>,
    stop: CancellationToken,
) {
    let mut newest = Epoch::NONE;
    loop {
        match obeyed(&plans.borrow_and_update(), &mut newest) {
            None => warn!(%newest, "Refused a plan of an older epoch."),
            Some(obeyed) => {
                orders.send_if_modified(|order| {
                    let differs = *order != obeyed;
                    *order = obeyed;
                    differs
                });
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = plans.changed() => if changed.is_err() {
                // Whoever decides is gone: what it last ordered runs out by itself.
                stop.cancelled().await;
                return;
            }
        }
    }
}

/// The order of a plan; `None` for a plan older than one seen. A plan that knows a newer epoch than its own order
/// is about has been overtaken half-way: it only fences.
fn obeyed(plan: &Plan, newest: &mut Epoch) -> Option<DatabaseOrder> {
    if plan.epoch < *newest {
        return None;
    }
    *newest = plan.epoch;
    match plan.database {
        DatabaseOrder::Write { epoch, .. } if epoch < *newest => {
            Some(DatabaseOrder::Fence { because: Because::LeaseElsewhere })
        }
        DatabaseOrder::Fence { .. } | DatabaseOrder::Write { .. } | DatabaseOrder::Follow { .. } => {
            Some(plan.database.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use isles_model::{CommitOrder, Moment};

    use super::*;

    #[test]
    fn a_plan_of_an_older_epoch_is_refused() {
        let write = |plan: u64, order: u64| Plan {
            epoch: Epoch(plan),
            database: DatabaseOrder::Write {
                epoch: Epoch(order),
                until: Moment::ZERO,
                commit: CommitOrder::default(),
            },
            ..Plan::starting()
        };
        let mut newest = Epoch(2);
        assert_eq!(obeyed(&write(3, 3), &mut newest), Some(write(3, 3).database));
        assert_eq!(newest, Epoch(3));
        assert_eq!(obeyed(&write(2, 2), &mut newest), None);
        let overtaken = obeyed(&write(4, 3), &mut newest);
        assert_eq!(overtaken, Some(DatabaseOrder::Fence { because: Because::LeaseElsewhere }));
    }
}
