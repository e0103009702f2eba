//! Says, at this very moment, whether bytes may pass: the deadline every gate is shut at.
//!
//! Knows nothing of sockets. The two verdicts, [`route`] and [`allows`], are functions of their arguments.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isles_model::{Because, Epoch, Moment, Plan, RegionName, Writes, ids::Clock};
use tokio::sync::watch;

use super::acknowledge::Acknowledge;
use crate::Coverage;

/// The longest time between two looks at the clock on behalf of idle sessions. Timers may stop while a machine
/// sleeps and the lease clock does not, so a timer for the whole remaining time could fire late.
const IDLE_RECHECK: Duration = Duration::from_millis(25);

/// The way a session takes from this gate to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Into the local database, under the right to write.
    Writer(Epoch),
    /// To the peer gate of the region that writes.
    Peer {
        /// Which region.
        region: RegionName,
        /// Under which epoch it was named.
        epoch: Epoch,
    },
    /// Into the local database, for reading: needs no right.
    Reader,
}

/// Where a new session that wants to write goes at `now`, or why it has to wait.
pub(super) fn route(writes: &Writes, now: Moment) -> Result<Route, Because> {
    match writes {
        Writes::Here { epoch, until } if now < *until => Ok(Route::Writer(*epoch)),
        Writes::Here { .. } => Err(Because::LeaseLapsed),
        Writes::At { region, epoch } => Ok(Route::Peer { region: region.clone(), epoch: *epoch }),
        Writes::Nowhere { because } => Err(*because),
    }
}

/// May a session on `route` pass bytes at `now`?
///
/// A session of the local writer needs its own epoch and an unexpired deadline. A session at a peer goes on while
/// nobody knows of another writer: the peer's own gate checks the right.
pub(super) fn allows(writes: &Writes, route: &Route, now: Moment) -> bool {
    match (route, writes) {
        (Route::Reader, _) => true,
        (Route::Writer(own), Writes::Here { epoch, until }) => own == epoch && now < *until,
        (Route::Writer(_), Writes::At { .. } | Writes::Nowhere { .. }) => false,
        (Route::Peer { .. }, Writes::Nowhere { .. }) => true,
        (Route::Peer { .. }, Writes::Here { .. }) => false,
        (Route::Peer { region: own, epoch: of }, Writes::At { region, epoch }) => {
            own == region && of == epoch
        }
    }
}

/// A shared view of the newest plan on the lease clock.
#[derive(Clone)]
pub(super) struct Permit {
    plans: watch::Receiver<Plan>,
    turns: watch::Receiver<Result<Route, Because>>,
    newest: Arc<AtomicU64>,
    acknowledge: watch::Receiver<Acknowledge>,
    coverage: Coverage,
    covered: watch::Receiver<()>,
    clock: Clock,
}

/// Wakes sessions when the way to write turns, or lapses while nothing is sent.
pub(super) struct Keeper {
    permit: Permit,
    turns: watch::Sender<Result<Route, Because>>,
}

impl Permit {
    /// A permit that reads `plans` on `clock`, and the keeper that must run beside it.
    pub(super) fn new(
        plans: watch::Receiver<Plan>,
        acknowledge: watch::Receiver<Acknowledge>,
        coverage: Coverage,
        clock: Clock,
    ) -> (Self, Keeper) {
        let (sender, turns) = watch::channel(Err(Because::Starting));
        let covered = coverage.passes();
        let permit = Self { plans, turns, newest: Arc::default(), acknowledge, coverage, covered, clock };
        (permit.clone(), Keeper { permit, turns: sender })
    }

    /// Where a new session that wants to write goes now, or why it has to wait.
    pub(super) fn route(&self) -> Result<Route, Because> {
        self.consult(route).unwrap_or(Err(Because::LeaseElsewhere))
    }

    /// May a session on `route` pass bytes now? Ask immediately before each write of a chunk.
    pub(super) fn allows(&self, route: &Route) -> bool {
        *route == Route::Reader || self.consult(|writes, now| allows(writes, route, now)).unwrap_or(false)
    }

    /// May answers of the database on `route` be given to their client? Besides [`Self::allows`], which goes first.
    pub(super) fn acknowledges(&mut self, route: &Route) -> bool {
        if !matches!(route, Route::Writer(_)) {
            return true;
        }
        self.covered.mark_unchanged();
        !self.coverage.holds() && self.acknowledge.borrow_and_update().passes((self.clock)())
    }

    /// The database has ended a transaction on `route` that may have made a table. To be noted before any of its
    /// answer passes.
    pub(super) fn note_tables(&self, route: &Route) {
        if matches!(route, Route::Writer(_)) {
            self.coverage.note();
        }
    }

    /// Waits until the way to write has turned since the last call. A renewed deadline is no turn.
    pub(super) async fn turned(&mut self) {
        self.turned_or_acknowledges(false).await;
    }

    /// The same, or until something new is said on acknowledgements, if they are `held`.
    pub(super) async fn turned_or_acknowledges(&mut self, held: bool) {
        tokio::select! {
            Ok(()) = self.turns.changed() => {}
            Ok(()) = self.acknowledge.changed(), if held => {}
            Ok(()) = self.covered.changed(), if held => {}
            else => std::future::pending().await,
        }
    }

    /// `None` for a plan of an epoch older than one already seen: nobody obeys it.
    fn consult<T>(&self, verdict: impl FnOnce(&Writes, Moment) -> T) -> Option<T> {
        let plan = self.plans.borrow();
        let newest = self.newest.load(Ordering::Acquire);
        if plan.epoch.0 < newest {
            return None;
        }
        if plan.epoch.0 > newest {
            self.newest.fetch_max(plan.epoch.0, Ordering::AcqRel);
        }
        // The clock is read last: a pause anywhere before it then counts against the deadline.
        Some(verdict(&plan.writes, (self.clock)()))
    }

    fn left(&self) -> Duration {
        let left = |writes: &Writes, now: Moment| match writes {
            Writes::Here { until, .. } => until.since(now),
            Writes::At { .. } | Writes::Nowhere { .. } => Duration::MAX,
        };
        self.consult(left).unwrap_or(Duration::MAX)
    }
}

impl Keeper {
    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let mut planned = true;
        loop {
            let now = self.permit.route();
            let may_lapse = matches!(now, Ok(Route::Writer(_)));
            let left = self.permit.left().min(IDLE_RECHECK);
            self.turns.send_if_modified(|known| {
                let turned = *known != now;
                *known = now;
                turned
            });
            tokio::select! {
                changed = self.permit.plans.changed(), if planned => planned = changed.is_ok(),
                () = tokio::time::sleep(left), if may_lapse => {}
                else => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(epoch: u64, until_ms: u64) -> Writes {
        Writes::Here { epoch: Epoch(epoch), until: at(until_ms) }
    }

    fn there(region: &str, epoch: u64) -> Writes {
        Writes::At { region: region.parse().unwrap(), epoch: Epoch(epoch) }
    }

    fn peer(region: &str, epoch: u64) -> Route {
        Route::Peer { region: region.parse().unwrap(), epoch: Epoch(epoch) }
    }

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    fn check(writes: &Writes, route: &Route, now_ms: u64, expect: bool) {
        assert_eq!(allows(writes, route, at(now_ms)), expect, "{writes:?} {route:?} {now_ms}");
    }

    #[test]
    fn a_writer_passes_bytes_until_just_before_its_deadline() {
        check(&here(3, 100), &Route::Writer(Epoch(3)), 99, true);
        check(&here(3, 100), &Route::Writer(Epoch(3)), 100, false);
        check(&here(3, 100), &Route::Writer(Epoch(3)), 5_000, false);
    }

    #[test]
    fn a_writer_of_another_epoch_passes_nothing() {
        check(&here(4, 100), &Route::Writer(Epoch(3)), 1, false);
        check(&here(3, 100), &Route::Writer(Epoch(4)), 1, false);
        check(&there("b", 4), &Route::Writer(Epoch(3)), 1, false);
        check(&Writes::Nowhere { because: Because::Released }, &Route::Writer(Epoch(3)), 1, false);
    }

    #[test]
    fn a_session_at_a_peer_ends_when_another_writer_is_known() {
        check(&there("b", 3), &peer("b", 3), 1, true);
        check(&there("b", 4), &peer("b", 3), 1, false);
        check(&there("c", 3), &peer("b", 3), 1, false);
        check(&here(4, 100), &peer("b", 3), 1, false);
        check(&Writes::Nowhere { because: Because::LeaseStoreSilent }, &peer("b", 3), 1, true);
    }

    #[test]
    fn a_reader_needs_no_right() {
        check(&Writes::Nowhere { because: Because::Starting }, &Route::Reader, 1, true);
    }

    #[test]
    fn a_new_session_goes_where_the_plan_says_and_waits_past_the_deadline() {
        assert_eq!(route(&here(3, 100), at(99)), Ok(Route::Writer(Epoch(3))));
        assert_eq!(route(&here(3, 100), at(100)), Err(Because::LeaseLapsed));
        assert_eq!(route(&there("b", 2), at(0)), Ok(peer("b", 2)));
        let silent = Writes::Nowhere { because: Because::LeaseStoreSilent };
        assert_eq!(route(&silent, at(0)), Err(Because::LeaseStoreSilent));
    }

    #[test]
    fn a_plan_of_an_older_epoch_is_not_obeyed() {
        let plan = |epoch, writes| Plan { epoch: Epoch(epoch), writes, ..Plan::starting() };
        let (plans, receiver) = watch::channel(plan(5, there("b", 5)));
        let (permit, _keeper) = Permit::new(
            receiver,
            watch::channel(Acknowledge::Open).1,
            Coverage::new(),
            Arc::new(|| Moment::ZERO),
        );
        assert_eq!(permit.route(), Ok(peer("b", 5)));
        plans.send_replace(plan(4, here(4, 100)));
        assert_eq!(permit.route(), Err(Because::LeaseElsewhere));
        assert!(!permit.allows(&Route::Writer(Epoch(4))));
        plans.send_replace(plan(6, here(6, 100)));
        assert!(permit.allows(&Route::Writer(Epoch(6))));
    }
}
