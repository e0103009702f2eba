//! Finds out when the tables of a writer are covered, and lets acknowledgements pass then.
//!
//! What is noted is published at once, the followers are rung, and each standby is asked until it covers all tables.
//! Tables that no gate could see being made (by a function that a SELECT calls, a trigger, a job inside the database)
//! are found by a look at the catalogue every [`LOOK_EVERY`]: what is acknowledged before that look is not protected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use isles_model::{DatabaseOrder, Epoch, RegionName};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::tables::{self, Name, Tables};
use crate::{
    error::{DatabaseError, within},
    link::{Link, Purpose},
    run::World,
};

/// Between two looks at the catalogue for tables that no gate saw being made.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two questions while a standby lacks a table.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long one look, or one standby's answer, may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long acknowledgements wait for the same tables. Past it a table that does not get through (its first copy takes
/// longer, or cannot be made at all) is named in a finding instead, and its rows are not protected until it is there:
/// a standby that cannot be reached at all is no longer named long before.
const HOLD_MAX: Duration = Duration::from_secs(30);
/// The key of that finding.
const FINDING: &str = "coverage";

/// Keeps at it until told to stop. `promoted` says which epoch the database is the writer of.
pub(crate) async fn run(
    world: Arc<World>,
    mut orders: watch::Receiver<DatabaseOrder>,
    mut promoted: watch::Receiver<Option<Epoch>>,
    stop: CancellationToken,
) {
    let mut keeper = Keeper::new(&world);
    while !stop.is_cancelled() {
        let named = standbys(&orders.borrow_and_update(), *promoted.borrow_and_update());
        keeper.wait_for(&named);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = others_named(&mut orders, &mut promoted, &named) => {}
            () = keeper.keep() => {}
        }
    }
}

/// Ends when other regions are named. A renewed right interrupts nothing.
async fn others_named(
    orders: &mut watch::Receiver<DatabaseOrder>,
    promoted: &mut watch::Receiver<Option<Epoch>>,
    named: &BTreeSet<RegionName>,
) {
    loop {
        tokio::select! {
            Ok(()) = orders.changed() => {}
            Ok(()) = promoted.changed() => {}
            else => std::future::pending().await,
        }
        if standbys(&orders.borrow_and_update(), *promoted.borrow_and_update()) != *named {
            return;
        }
    }
}

/// The regions that a promoted writer's acknowledgements wait for, in whatever way.
fn standbys(order: &DatabaseOrder, promoted: Option<Epoch>) -> BTreeSet<RegionName> {
    match order {
        DatabaseOrder::Write { epoch, commit, .. } if promoted == Some(*epoch) => commit.standbys.clone(),
        DatabaseOrder::Write { .. } | DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => {
            BTreeSet::new()
        }
    }
}

/// A standby that is asked.
#[derive(Default)]
struct Standby {
    link: Option<Link>,
    covered: Tables,
}

struct Keeper<'a> {
    world: &'a World,
    own: Option<Link>,
    standbys: BTreeMap<RegionName, Standby>,
    /// The tables at the last look, and those that are waited for no longer.
    seen: Option<Tables>,
    given_up: Tables,
    /// Since when acknowledgements wait.
    held: Option<Instant>,
}

impl<'a> Keeper<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, own: None, standbys: BTreeMap::new(), seen: None, given_up: Tables::new(), held: None }
    }

    /// From here on these regions are asked.
    fn wait_for(&mut self, regions: &BTreeSet<RegionName>) {
        let coverage = &self.world.config.coverage;
        if self.standbys.keys().eq(regions) {
            return;
        }
        if regions.is_empty() {
            coverage.demand(false);
            self.world.findings.clear(FINDING);
            *self = Self::new(self.world);
            return;
        }
        let first = self.standbys.is_empty();
        let adds = regions.iter().any(|region| !self.standbys.contains_key(region));
        self.standbys.retain(|region, _| regions.contains(region));
        for region in regions {
            self.standbys.entry(region.clone()).or_default();
        }
        coverage.demand(true);
        self.held = None;
        if adds && !first {
            // What the former standby had, another may lack.
            coverage.note();
        }
    }

    /// Looks again and again.
    async fn keep(&mut self) {
        loop {
            let pause = match self.round().await {
                Ok(true) => LOOK_EVERY,
                Ok(false) => ASK_EVERY,
                Err(error) => {
                    debug!(error = %error, "It is not known which tables the standbys have.");
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = self.world.config.coverage.rung() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks once. Says whether nothing is waited for any more.
    async fn round(&mut self) -> Result<bool, DatabaseError> {
        if self.standbys.is_empty() {
            return Ok(true);
        }
        let coverage = self.world.config.coverage.clone();
        let mut noted = coverage.noted();
        let needed = self.look().await?;
        let is_new = self.seen.as_ref().is_some_and(|seen| tables::first_beyond(&needed, seen).is_some());
        self.given_up.retain(|name, shape| needed.get(name) == Some(shape));
        self.seen = Some(needed.clone());
        if self.standbys.values().all(|standby| tables::first_beyond(&needed, &standby.covered).is_none()) {
            self.pass(noted, true);
            return Ok(true);
        }
        if is_new {
            if !coverage.holds() {
                // No gate saw it being made.
                coverage.note();
                noted = coverage.noted();
            }
            self.world.publish.notify_one();
        }
        if coverage.holds() {
            self.held.get_or_insert_with(Instant::now);
        }
        let asked = self.ask(&needed).await;
        if matches!(asked, Ok(None)) {
            self.pass(noted, true);
            return Ok(true);
        }
        if asked.is_ok() && !self.is_waited_for(&needed) {
            self.pass(noted, false);
            return Ok(true);
        }
        if self.held.is_some_and(|since| since.elapsed() >= HOLD_MAX) {
            self.give_up(needed, asked.as_ref().ok().and_then(Option::as_ref));
            self.pass(noted, false);
            return Ok(true);
        }
        asked?;
        if !coverage.holds() {
            // The first answer of a region that has just been named.
            coverage.note();
        }
        Ok(false)
    }

    /// Acknowledgements wait no longer for these tables, though a region lacks one of them.
    fn give_up(&mut self, tables: Tables, lacking: Option<&(RegionName, Name)>) {
        let because = match lacking {
            Some((region, (schema, table))) => format!("Table {schema}.{table} has not reached {region}"),
            None => "The region that commits wait for has not said which tables it has".to_owned(),
        };
        warn!(because, "Acknowledgements wait no longer for new tables.");
        let within = HOLD_MAX.as_secs();
        let text = format!(
            "{because} within {within} s: until it has, what is written into new tables may be lost with this region."
        );
        self.world.findings.set(FINDING, text);
        self.given_up = tables;
    }

    /// Whether a table is lacking that has not been given up.
    fn is_waited_for(&self, needed: &Tables) -> bool {
        self.standbys.values().any(|standby| {
            needed.iter().any(|(name, shape)| {
                standby.covered.get(name) != Some(shape) && self.given_up.get(name) != Some(shape)
            })
        })
    }

    /// What was noted up to here holds acknowledgements no longer.
    fn pass(&mut self, noted: u64, all_covered: bool) {
        self.world.config.coverage.cover(noted);
        if let Some(since) = self.held.take() {
            let elapsed_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            debug!(elapsed_ms, all_covered, "Acknowledgements wait for new tables no longer.");
        }
        if all_covered && !self.given_up.is_empty() {
            self.given_up.clear();
            self.world.findings.clear(FINDING);
        }
    }

    async fn look(&mut self) -> Result<Tables, DatabaseError> {
        let config = &self.world.config;
        if self.own.as_ref().is_none_or(|link| link.is_closed()) {
            self.own = Some(Link::own(&config.database, Purpose::Coverage).await?);
        }
        let own = self.own.as_ref().expect("opened above");
        let looked = tables::needed(own, &config.exclude_tables);
        let looked = within(ANSWER_MAX, "listing the tables to be covered", looked).await;
        if looked.is_err() {
            self.own = None;
        }
        looked
    }

    /// Asks the standbys that are not known to have all, and answers the first table that one lacks.
    async fn ask(&mut self, needed: &Tables) -> Result<Option<(RegionName, Name)>, DatabaseError> {
        let mut lacking = None;
        for (region, standby) in &mut self.standbys {
            if tables::first_beyond(needed, &standby.covered).is_some() {
                let link = standby.link.take().filter(|link| !link.is_closed());
                let link = match link {
                    Some(link) => link,
                    None => self.world.peer_link(region, Purpose::Coverage).await?,
                };
                let asked = tables::covered(&link);
                standby.covered = within(ANSWER_MAX, "asking a standby which tables it has", asked).await?;
                standby.link = Some(link);
            }
            if let Some(table) = tables::first_beyond(needed, &standby.covered) {
                lacking.get_or_insert_with(|| (region.clone(), table.clone()));
            }
        }
        Ok(lacking)
    }
}
