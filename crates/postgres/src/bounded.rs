//! Lets acknowledgements pass only while the oldest commit that a standby lacks is young enough (`commit: bounded`).
//!
//! PostgreSQL commits as it always does; it is the gate that holds its answers back. How old a commit is, is never
//! underestimated: what the standby has confirmed is compared with where the log ended at known moments, and whatever
//! came after the last moment that is confirmed counts as having come right then.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use isles_model::{CommitOrder, DatabaseOrder, Epoch, Lsn, Moment, RegionName, Standbys};
use tokio::{sync::watch, time::sleep};
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    error::{DatabaseError, Doing, within},
    gate::Acknowledge,
    link::{Link, Purpose},
    run::World,
};

/// Between two looks at the end of the log: by so much a commit may be taken to be older than it is.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a look may take. Meanwhile acknowledgements pass as long as the last look let them.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The most looks remembered; at the limit the oldest is kept and the next one goes, so that ages grow.
const MARKS_MAX: usize = 1024;

/// Sets whether acknowledgements may pass, and passes on what is known of the followers, with the regions that a bound
/// waits for among those required. Runs until told to stop.
pub(crate) async fn run(
    world: Arc<World>,
    mut orders: watch::Receiver<DatabaseOrder>,
    mut promoted: watch::Receiver<Option<Epoch>>,
    mut followers: watch::Receiver<Standbys>,
    known: watch::Sender<Standbys>,
    stop: CancellationToken,
) {
    let mut link = None;
    let mut bound: Option<Bound> = None;
    while !stop.is_cancelled() {
        let wanted = wanted(&orders.borrow_and_update(), *promoted.borrow_and_update());
        match wanted {
            None => {
                bound = None;
                world.config.acknowledge.send_replace(Acknowledge::Open);
            }
            Some((regions, within)) => match look(&world, &mut link).await {
                Ok((asked, end)) => {
                    if bound.as_ref().is_none_or(|now| now.regions != regions) {
                        info!(
                            ?regions,
                            bound_ms = within.as_millis(),
                            "Acknowledgements wait for these regions, within a bound."
                        );
                    }
                    let now = bound.take().filter(|now| now.regions == regions);
                    let now = bound.insert(now.unwrap_or_else(|| Bound::new(regions, asked, end)));
                    now.mark(asked, end);
                    let until = now.until(within, &followers.borrow());
                    world.config.acknowledge.send_replace(Acknowledge::Until(until));
                }
                Err(error) => {
                    // What the last look allowed runs out by itself.
                    debug!(error = %error, "The end of the log is not known.");
                    link = None;
                }
            },
        }
        let standbys = merged(&followers.borrow_and_update(), bound.as_ref());
        known.send_if_modified(|last| {
            let differs = *last != standbys;
            *last = standbys;
            differs
        });
        let pause =
            async { if bound.is_some() { sleep(LOOK_EVERY).await } else { std::future::pending().await } };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            changed = promoted.changed() => if changed.is_err() { return },
            changed = followers.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
            () = pause => {}
        }
    }
}

/// The regions that a promoted writer's acknowledgements wait for, and how far they may lag; `None`: no bound.
fn wanted(order: &DatabaseOrder, promoted: Option<Epoch>) -> Option<(BTreeSet<RegionName>, Duration)> {
    match order {
        DatabaseOrder::Write { epoch, commit: CommitOrder { standbys, bound: Some(bound) }, .. }
            if promoted == Some(*epoch) && !standbys.is_empty() =>
        {
            Some((standbys.clone(), *bound))
        }
        DatabaseOrder::Write { .. } | DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => None,
    }
}

fn merged(followers: &Standbys, bound: Option<&Bound>) -> Standbys {
    match bound {
        None => followers.clone(),
        Some(bound) => Standbys {
            required: bound.regions.clone(),
            since: bound.since,
            confirmed: followers.confirmed.clone(),
        },
    }
}

async fn look(world: &World, link: &mut Option<Link>) -> Result<(Moment, Lsn), DatabaseError> {
    if link.as_ref().is_none_or(|link| link.is_closed()) {
        *link = Some(Link::cluster(&world.config.database, Purpose::Standbys).await?);
    }
    let open = link.as_ref().expect("opened above");
    // The clock is read first: what is in the log by then came no earlier than the look before.
    let asked = (world.clock)();
    let doing = "asking where the log ends";
    let row = within(LOOK_MAX, doing, async {
        open.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await.doing(doing)
    })
    .await?;
    Ok((asked, Lsn(row.get::<_, PgLsn>(0).into())))
}

/// A bound in force.
#[derive(Debug)]
struct Bound {
    regions: BTreeSet<RegionName>,
    /// Where the log ended when it came into force.
    since: Lsn,
    /// Where the log ended no earlier than at which moment, oldest first.
    marks: VecDeque<(Moment, Lsn)>,
}

impl Bound {
    fn new(regions: BTreeSet<RegionName>, asked: Moment, end: Lsn) -> Self {
        Self { regions, since: end, marks: VecDeque::from([(asked, end)]) }
    }

    fn mark(&mut self, asked: Moment, end: Lsn) {
        if self.marks.len() >= MARKS_MAX {
            self.marks.remove(1);
        }
        self.marks.push_back((asked, end));
    }

    /// Until when acknowledgements may pass: everything up to the newest mark that all regions have confirmed is
    /// there, and what came later came at that mark's moment at the earliest.
    fn until(&mut self, within: Duration, followers: &Standbys) -> Moment {
        let confirmed = self.regions.iter().map(|region| followers.confirmed.get(region).copied());
        let all = confirmed.min().flatten().unwrap_or_default();
        while self.marks.get(1).is_some_and(|(_, end)| *end <= all) {
            self.marks.pop_front();
        }
        let (moment, end) = self.marks.front().copied().unwrap_or_default();
        // The first mark itself may not be confirmed yet: then nothing is known of how old its log is.
        if end <= all { moment.plus(within) } else { moment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    fn regions(names: &[&str]) -> BTreeSet<RegionName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn confirmed(positions: &[(&str, u64)]) -> Standbys {
        let confirmed = positions.iter().map(|(name, lsn)| (name.parse().unwrap(), Lsn(*lsn))).collect();
        Standbys { confirmed, ..Standbys::default() }
    }

    #[test]
    fn acknowledgements_stop_a_bound_after_the_last_moment_that_is_confirmed() {
        let mut bound = Bound::new(regions(&["us"]), at(1_000), Lsn(10));
        bound.mark(at(1_025), Lsn(20));
        bound.mark(at(1_050), Lsn(30));
        assert_eq!(bound.until(BOUND, &confirmed(&[("us", 10)])), at(1_500));
        assert_eq!(bound.until(BOUND, &confirmed(&[("us", 29)])), at(1_525));
        assert_eq!(bound.until(BOUND, &confirmed(&[("us", 30)])), at(1_550));
        bound.mark(at(9_000), Lsn(30));
        assert_eq!(bound.until(BOUND, &confirmed(&[("us", 30)])), at(9_500), "nothing was written meanwhile");
    }

    #[test]
    fn the_slowest_of_several_regions_counts_and_one_that_says_nothing_lets_nothing_pass() {
        let mut bound = Bound::new(regions(&["us", "ap"]), at(1_000), Lsn(10));
        bound.mark(at(1_025), Lsn(20));
        assert_eq!(bound.until(BOUND, &confirmed(&[("us", 20), ("ap", 12)])), at(1_500));
        let mut silent = Bound::new(regions(&["us", "ap"]), at(1_000), Lsn(10));
        assert_eq!(silent.until(BOUND, &confirmed(&[("us", 20)])), at(1_000), "which is over");
    }

    #[test]
    fn at_the_limit_commits_are_taken_to_be_older_never_younger() {
        let mut bound = Bound::new(regions(&["us"]), at(0), Lsn(0));
        for look in 1..=2_000 {
            bound.mark(at(look * 25), Lsn(look));
        }
        assert_eq!(bound.marks.len(), MARKS_MAX);
        assert_eq!(bound.until(BOUND, &confirmed(&[("us", 0)])), at(500));
    }
}
