//! Lets commits of the app wait until other regions have them, and says which regions every commit waits for.
//!
//! PostgreSQL's own synchronous replication (PostgreSQL, chapter 27.2.8), over the logical subscriptions that replicas
//! follow by. The setting alone proves nothing: until each process has read it, a commit may not wait, or be let go by
//! the word of another region. So a region counts as required only once
//!
//! - a commit of our own has been seen to wait: what makes commits wait is a flag that one process (the checkpointer)
//!   sets, some time after the setting has changed;
//! - each process that sends the log shows the rank that the new setting gives it. Names are ranked so that every rank
//!   differs from the one before, with a name in front that nobody has; otherwise the old setting could look like the
//!   new one.
//!
//! The setting changes by order only. Names left from an earlier time as writer are taken away before the database
//! opens, and before it follows: or nothing would ever be let go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use isles_model::{CommitOrder, DatabaseOrder, Epoch, Lsn, Metric, RegionName, Standbys};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_postgres::{Client, types::PgLsn};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    error::{DatabaseError, Doing, within},
    link::{Link, Purpose, literal},
    run::World,
    subscription,
};

/// Between two looks at what the followers have.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks while a setting comes into force.
const SETTLE_EVERY: Duration = Duration::from_millis(3);
/// How long a setting may take to come into force before it is tried afresh.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Pause after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// In the list in front of the regions: no subscription is called so, as ours all begin with `isles_`.
const NOBODY: &str = "isles";

/// Keeps the setting as ordered and reports what it gives, until told to stop. `promoted` says which epoch the database
/// is the writer of.
pub(crate) async fn run(
    world: Arc<World>,
    mut orders: watch::Receiver<DatabaseOrder>,
    mut promoted: watch::Receiver<Option<Epoch>>,
    standbys: watch::Sender<Standbys>,
    stop: CancellationToken,
) {
    let mut keeper = Keeper { world, standbys, link: None, in_force: None };
    while !stop.is_cancelled() {
        let wish = wish(&orders.borrow_and_update(), *promoted.borrow_and_update());
        let pause = match keeper.keep(&wish).await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                debug!(error = %error, "What commits wait for is not as ordered yet.");
                keeper.link = None;
                RETRY_AFTER
            }
        };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return },
            changed = promoted.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// What is to be done about the setting.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    /// The commits of this promoted writer wait for these regions.
    Wait { epoch: Epoch, regions: BTreeSet<RegionName> },
    /// Nothing changes. A writer that was told to fence may be handing over: how far its followers are still counts.
    AsItIs,
    /// It is no writer.
    Nothing,
}

fn wish(order: &DatabaseOrder, promoted: Option<Epoch>) -> Wish {
    match order {
        DatabaseOrder::Write { epoch, commit, .. } if promoted == Some(*epoch) => {
            Wish::Wait { epoch: *epoch, regions: waits_for(commit) }
        }
        DatabaseOrder::Fence { .. } if promoted.is_some() => Wish::AsItIs,
        DatabaseOrder::Write { .. } | DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => {
            Wish::Nothing
        }
    }
}

/// With a bound, PostgreSQL itself waits for nobody: the gate holds answers back instead.
fn waits_for(commit: &CommitOrder) -> BTreeSet<RegionName> {
    if commit.bound.is_none() { commit.standbys.clone() } else { BTreeSet::new() }
}

/// Before the database opens as the writer: puts the setting in place, whatever an earlier time has left.
pub(crate) async fn before_opening(own: &Client, commit: &CommitOrder) -> Result<(), DatabaseError> {
    let wanted = waits_for(commit);
    let shown = shown(own).await?;
    // A setting that was being proved when an agent died waits for somebody whom there is not.
    let waits_for_all_and_no_more =
        wanted.is_empty() || shown.starts_with(&format!("FIRST {} (", wanted.len()));
    if regions_in(&shown, &wanted) == Some(wanted.len()) && waits_for_all_and_no_more {
        return Ok(());
    }
    set(own, &list(&wanted, 0)).await
}

/// Before the database follows: takes the names away. Who still waits for them is ended first, since taking them away
/// would let an unconfirmed commit go as if it had been confirmed.
pub(crate) async fn before_following(own: &Client) -> Result<(), DatabaseError> {
    if shown(own).await?.is_empty() {
        return Ok(());
    }
    let ended = async {
        loop {
            let waiting: i64 = own
                .query_one(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
                    &[],
                )
                .await
                .doing("ending commits that wait")?
                .get(0);
            if waiting == 0 {
                return Ok(());
            }
            sleep(SETTLE_EVERY).await;
        }
    };
    within(SETTLE_MAX, "ending commits that wait", ended).await?;
    set(own, "").await
}

/// A setting that was seen in force.
struct InForce {
    epoch: Epoch,
    /// As PostgreSQL shows it.
    names: String,
    required: BTreeSet<RegionName>,
    since: Lsn,
}

struct Keeper {
    world: Arc<World>,
    standbys: watch::Sender<Standbys>,
    link: Option<Link>,
    in_force: Option<InForce>,
}

impl Keeper {
    async fn keep(&mut self, wish: &Wish) -> Result<(), DatabaseError> {
        let (epoch, wanted) = match wish {
            Wish::Wait { epoch, regions } => (epoch, regions),
            Wish::AsItIs => return self.look().await,
            Wish::Nothing => {
                self.in_force = None;
                self.report(BTreeMap::new());
                return Ok(());
            }
        };
        if self.in_force.as_ref().is_some_and(|now| now.epoch != *epoch) {
            self.in_force = None;
        }
        let settled = self.in_force.as_ref().is_some_and(|now| now.required == *wanted);
        if !settled {
            self.settle(*epoch, wanted).await?;
        }
        self.look().await
    }

    /// Brings a setting into force, and proves it.
    async fn settle(&mut self, epoch: Epoch, wanted: &BTreeSet<RegionName>) -> Result<(), DatabaseError> {
        let waits_already = self.in_force.as_ref().is_some_and(|now| !now.required.is_empty());
        // While it changes, a commit waits at least for those that both settings name.
        if let Some(now) = &mut self.in_force {
            now.required = now.required.intersection(wanted).cloned().collect();
        }
        self.report(BTreeMap::new());
        let config = self.world.config.clone();
        let begun = Instant::now();
        let link = self.link().await?;
        if !wanted.is_empty() && !waits_already {
            let prove = prove(link, &config, wanted);
            if let Err(error) = within(SETTLE_MAX, "seeing a commit wait", prove).await {
                // Commits must not go on waiting for somebody whom there is not.
                set(link, &list(wanted, 0)).await?;
                return Err(error);
            }
        }
        let now = ranks(&shown(link).await?);
        let offset = (0..=now.len()).find(|offset| {
            let after = ranks(&list(wanted, *offset));
            after.iter().all(|(name, rank)| name == NOBODY || now.get(name) != Some(rank))
        });
        let names = list(wanted, offset.unwrap_or_default());
        set(link, &names).await?;
        within(SETTLE_MAX, "seeing every sender heed the setting", heeded(link, &names)).await?;
        let since = end_of_log(link).await?;
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if !wanted.is_empty() || waits_already {
            info!(%epoch, regions = ?wanted, elapsed_ms, "Every commit waits for these regions.");
        }
        self.in_force = Some(InForce { epoch, names, required: wanted.clone(), since });
        self.look().await?;
        self.world.changed.notify_waiters();
        Ok(())
    }

    /// Asks how far the followers are.
    async fn look(&mut self) -> Result<(), DatabaseError> {
        let names: BTreeMap<String, RegionName> =
            self.world.config.peers.keys().map(|peer| (subscription::name(peer), peer.clone())).collect();
        let rows = self
            .link()
            .await?
            .query(
                "SELECT current_setting('synchronous_standby_names'), r.application_name, r.flush_lsn
                 FROM (SELECT) one LEFT JOIN pg_stat_replication r ON r.flush_lsn IS NOT NULL",
                &[],
            )
            .await
            .doing("asking how far the followers are")?;
        let shown: Option<&str> = rows.first().map(|row| row.get(0));
        if self.in_force.as_ref().is_some_and(|now| shown != Some(&now.names)) {
            // Somebody has changed it: what was proved holds no longer.
            self.in_force = None;
        }
        let confirmed = rows.iter().filter_map(|row| {
            let region = names.get(row.get::<_, Option<&str>>(1)?)?;
            Some((region.clone(), Lsn(row.get::<_, PgLsn>(2).into())))
        });
        self.report(confirmed.collect());
        Ok(())
    }

    fn report(&self, confirmed: BTreeMap<RegionName, Lsn>) {
        let (required, since) =
            self.in_force.as_ref().map(|now| (now.required.clone(), now.since)).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and regions are few")]
        self.world.meter.set(Metric::ProtectedBy, &[], required.len() as f64);
        let next = Standbys { required, since, confirmed };
        self.standbys.send_if_modified(|last| {
            let changed = *last != next;
            *last = next;
            changed
        });
    }

    async fn link(&mut self) -> Result<&Link, DatabaseError> {
        if self.link.as_ref().is_none_or(|link| link.is_closed()) {
            self.link = Some(Link::cluster(&self.world.config.database, Purpose::Standbys).await?);
        }
        Ok(self.link.as_ref().expect("opened above"))
    }
}

/// The setting that makes every commit wait for all of these regions, ranked from `offset` + 1 on.
fn list(regions: &BTreeSet<RegionName>, offset: usize) -> String {
    if regions.is_empty() {
        return String::new();
    }
    let names: Vec<String> = std::iter::repeat_n(NOBODY.to_owned(), offset)
        .chain(regions.iter().map(subscription::name))
        .collect();
    format!("FIRST {} ({})", regions.len(), names.join(", "))
}

/// The rank that each name of a setting has, from 1.
fn ranks(setting: &str) -> BTreeMap<String, i32> {
    let names = setting.split_once('(').map_or("", |(_, names)| names.trim_end_matches(')'));
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    // The first mention counts (PostgreSQL, `SyncRepGetStandbyPriority`).
    let mut ranks = BTreeMap::new();
    for (name, rank) in names.zip(1..) {
        ranks.entry(name.to_owned()).or_insert(rank);
    }
    ranks
}

/// How many regions a setting names, if it names just these.
fn regions_in(setting: &str, wanted: &BTreeSet<RegionName>) -> Option<usize> {
    let named: BTreeSet<String> = ranks(setting).into_keys().filter(|name| name != NOBODY).collect();
    let wanted: BTreeSet<String> = wanted.iter().map(subscription::name).collect();
    (named == wanted).then_some(wanted.len())
}

/// The setting as it stands in the files that PostgreSQL reads; a session's own view of it may be a moment older.
async fn shown(own: &Client) -> Result<String, DatabaseError> {
    let row = own
        .query_opt(
            "SELECT setting FROM pg_file_settings WHERE name = 'synchronous_standby_names' AND applied",
            &[],
        )
        .await
        .doing("reading what commits wait for")?;
    Ok(row.and_then(|row| row.get(0)).unwrap_or_default())
}

async fn set(own: &Client, names: &str) -> Result<(), DatabaseError> {
    let change = format!("ALTER SYSTEM SET synchronous_standby_names = {}", literal(names));
    own.batch_execute(&change).await.doing("setting what commits wait for")?;
    own.batch_execute("SELECT pg_reload_conf()").await.doing("setting what commits wait for")
}

/// The end of the log: no commit that did not wait lies beyond it.
async fn end_of_log(own: &Client) -> Result<Lsn, DatabaseError> {
    let row =
        own.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await.doing("reading the log's end")?;
    Ok(Lsn(row.get::<_, PgLsn>(0).into()))
}

/// Makes commits wait for one region more than there is, and sees one of our own wait: then the flag is set, and it
/// stays set while the setting is not empty. The app's commits wait meanwhile, some milliseconds.
async fn prove(
    own: &Client,
    config: &crate::PostgresConfig,
    wanted: &BTreeSet<RegionName>,
) -> Result<(), DatabaseError> {
    let nobody = std::iter::once(NOBODY.to_owned());
    let names: Vec<String> = nobody.chain(wanted.iter().map(subscription::name)).collect();
    set(own, &format!("FIRST {} ({})", names.len(), names.join(", "))).await?;
    loop {
        let witness = Link::own(&config.database, Purpose::Standbys).await?;
        let pid: i32 =
            witness.query_one("SELECT pg_backend_pid()", &[]).await.doing("seeing a commit wait")?.get(0);
        let commit = witness.batch(
            "seeing a commit wait",
            "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'isles', '')",
        );
        tokio::pin!(commit);
        let waits = loop {
            tokio::select! {
                done = &mut commit => { done?; break false }
                () = sleep(SETTLE_EVERY) => {}
            }
            let row = own
                .query_opt("SELECT wait_event FROM pg_stat_activity WHERE pid = $1", &[&pid])
                .await
                .doing("seeing a commit wait")?;
            if row.and_then(|row| row.get::<_, Option<String>>(0)).as_deref() == Some("SyncRep") {
                break true;
            }
        };
        if waits {
            return own
                .execute("SELECT pg_terminate_backend($1)", &[&pid])
                .await
                .doing("ending the commit that waits")
                .map(drop);
        }
        sleep(SETTLE_EVERY).await;
    }
}

/// Waits until each process that sends the log shows the rank that the setting gives it, and this session the setting.
async fn heeded(own: &Client, names: &str) -> Result<(), DatabaseError> {
    let ranks = ranks(names);
    loop {
        let rows = own
            .query(
                "SELECT current_setting('synchronous_standby_names'), r.application_name, r.sync_priority
                 FROM (SELECT) one LEFT JOIN pg_stat_replication r ON true",
                &[],
            )
            .await
            .doing("seeing every sender heed the setting")?;
        let heeds = rows.iter().all(|row| {
            let rank: Option<i32> = row.get(2);
            let given = row.get::<_, Option<&str>>(1).and_then(|name| ranks.get(name)).copied().unwrap_or(0);
            row.get::<_, &str>(0) == names && rank.is_none_or(|rank| rank == given)
        });
        if heeds {
            return Ok(());
        }
        sleep(SETTLE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_of(names: &[&str]) -> BTreeSet<RegionName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn all_named_regions_must_confirm_and_nobody_stands_in_for_one() {
        assert_eq!(list(&set_of(&["eu-west-1", "us"]), 0), "FIRST 2 (isles_eu_west_1, isles_us)");
        assert_eq!(list(&set_of(&["us"]), 2), "FIRST 1 (isles, isles, isles_us)");
        assert_eq!(list(&set_of(&[]), 2), "");
    }

    #[test]
    fn ranks_are_those_that_postgresql_gives() {
        assert_eq!(
            ranks("FIRST 1 (isles, isles, isles_us)"),
            [("isles".into(), 1), ("isles_us".into(), 3)].into()
        );
        assert_eq!(ranks(""), BTreeMap::new());
        assert_eq!(regions_in("FIRST 1 (isles, isles_us)", &set_of(&["us"])), Some(1));
        assert_eq!(regions_in("FIRST 1 (isles_eu)", &set_of(&["us"])), None);
        assert_eq!(regions_in("", &set_of(&[])), Some(0));
    }

    #[test]
    fn a_bound_makes_postgresql_wait_for_nobody() {
        let commit = CommitOrder { standbys: set_of(&["us"]), bound: Some(Duration::from_millis(500)) };
        assert!(waits_for(&commit).is_empty());
        assert_eq!(waits_for(&CommitOrder { bound: None, ..commit }), set_of(&["us"]));
    }
}
