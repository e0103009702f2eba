//! Makes this region's database a replica of a writer and keeps it one.
//!
//! Attaching compares first: a subscription that already follows the writer's history is kept, across epochs the
//! writer itself has continued. Otherwise lone writes are put into the ledger, the database is made anew, the
//! schema is carried and every table is copied. Then, about once a second: carry the schema, follow the
//! publication, look after slot and worker, mirror the sequences, and record when the copy is complete.

use std::time::Duration;

use isles_model::{Epoch, Lineage, Lsn, Metric, RegionName};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::{
    bookkeeping::{self, Node, Promotion},
    error::{DatabaseError, Doing},
    lineage::{Judgement, continues, judge},
    link::{Link, Purpose},
    publish,
    rebuild::{self, Shape},
    rejoin::{self, Kept},
    run::World,
    schema::{self, Carried, Carrier, unreplicated},
    sequences, slots,
    subscription::{self, Applied, Start},
};

/// Between two rounds of care once the copy is complete.
const CARE_EVERY: Duration = Duration::from_secs(1);
/// The same while it is not.
const COPY_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks whether the writer is promoted.
const PROMOTION_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long that is asked before it is said that the writer is not promoted.
const PROMOTION_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long applying may fail, with the schemas equal, before the copy is made anew.
const STUCK_MAX: Duration = Duration::from_secs(20);

/// Between two comparisons of equal-looking schemas while applying fails: each costs the writer a dump.
const FORCE_EVERY: Duration = Duration::from_secs(5);
/// How often a schema change may be refused before the copy is made anew: later changes may make way for it.
const REFUSALS_MAX: u32 = 5;

/// Why a copy is made anew, as counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afresh {
    First,
    NewWriter,
    Rejoin,
    Schema,
    SlotLost,
    Stuck,
}

impl Afresh {
    fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::NewWriter => "new_writer",
            Self::Rejoin => "rejoin",
            Self::Schema => "schema",
            Self::SlotLost => "slot_lost",
            Self::Stuck => "stuck",
        }
    }
}

/// What a round of care has found.
enum Care {
    /// The schema is the writer's, and all that it publishes is subscribed to.
    Alike,
    /// Something is still to be carried over.
    Unlike,
    /// The copy must be made anew.
    CopyAfresh(Afresh),
}

/// Asks a region that was given the right a moment ago until it is promoted.
async fn wait_until_promoted(peer: &Link, writer: &RegionName, epoch: Epoch) -> Result<(), DatabaseError> {
    let asked = Instant::now();
    while bookkeeping::node(&**peer).await?.lineage != (Lineage { epoch, wrote: true }) {
        if asked.elapsed() > PROMOTION_WAIT_MAX {
            return Err(DatabaseError::Refused(format!("{writer} is not promoted for epoch {epoch} yet")));
        }
        sleep(PROMOTION_LOOK_EVERY).await;
    }
    Ok(())
}

/// A replica at work.
pub(crate) struct Follower<'a> {
    world: &'a World,
    writer: &'a RegionName,
    epoch: Epoch,
    own: Link,
    peer: Link,
    /// What the writer's unreplicated tables had seen when they were last carried.
    unreplicated: Option<Vec<(String, i64)>>,
    /// The worker's error count at the last look, and since when it has grown.
    errors: i64,
    stuck_since: Option<Instant>,
    /// When the schemas were last compared because applying failed.
    forced: Option<Instant>,
    /// How often in a row a schema change was refused.
    refusals: u32,
    /// The position at which the copy was last found to have all of the writer's tables.
    alike_upto: Lsn,
}

impl<'a> Follower<'a> {
    /// Attaches to the writer of an epoch. Refuses while that writer has not been promoted.
    pub(crate) async fn attach(
        world: &'a World,
        writer: &'a RegionName,
        epoch: Epoch,
    ) -> Result<Self, DatabaseError> {
        let own = rebuild::ensure(world).await?;
        let peer = world.peer_link(writer, Purpose::Reconcile).await?;
        wait_until_promoted(&peer, writer, epoch).await?;
        publish::listen(&peer).await?;
        let history = bookkeeping::promotions_after(&*peer, Epoch::NONE).await?;
        let mut follower = Self {
            world,
            writer,
            epoch,
            own,
            peer,
            unreplicated: None,
            errors: 0,
            stuck_since: None,
            forced: None,
            refusals: 0,
            alike_upto: Lsn(0),
        };
        let node = bookkeeping::node(&*follower.own).await?;
        let subscribed = subscription::exists(&follower.own).await?;
        match judge(&node, subscribed, writer, epoch, &history) {
            Judgement::Keep => {
                subscription::point_at(&follower.own, world, world.peer_address(writer)?).await?;
                follower.continue_history(&node).await?;
            }
            Judgement::Copy => {
                if !follower.attach_as_is(&node, subscribed, &history).await? {
                    follower.copy_afresh(Afresh::NewWriter, &history).await?;
                }
            }
            Judgement::Rejoin => {
                let own = Link::own(&world.config.database, Purpose::Reconcile).await?;
                let kept = rejoin::keep_lone_writes(world, own, &node, &history).await?;
                if kept != Kept::Nothing || !follower.attach_as_is(&node, subscribed, &history).await? {
                    follower.copy_afresh(Afresh::Rejoin, &history).await?;
                }
            }
            Judgement::First => {
                follower.refuse_strange_rows().await?;
                follower.copy_afresh(Afresh::First, &history).await?;
            }
            Judgement::Ahead => {
                return Err(DatabaseError::Refused(format!(
                    "told to follow epoch {epoch}, but the database has seen epoch {}",
                    node.lineage.epoch
                )));
            }
        }
        Ok(follower)
    }

    /// Takes care of the copy until something fails.
    pub(crate) async fn care(&mut self) -> Result<(), DatabaseError> {
        loop {
            let begun = Instant::now();
            let applied = subscription::applied(&self.own).await?;
            let found = self.look_after().await?;
            if begun.elapsed() > CARE_EVERY {
                let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                debug!(elapsed_ms, "A round of care took long.");
            }
            match found {
                Care::CopyAfresh(because) => {
                    let history = bookkeeping::promotions_after(&*self.peer, Epoch::NONE).await?;
                    self.copy_afresh(because, &history).await?;
                }
                Care::Alike if self.record_whole().await? => {
                    self.alike_upto = applied;
                    tokio::select! {
                        () = self.peer.rung() => {}
                        () = sleep(CARE_EVERY) => {}
                    }
                }
                Care::Alike | Care::Unlike => sleep(COPY_LOOK_EVERY).await,
            }
        }
    }

    /// The writer went on under a newer epoch: so do we.
    async fn continue_history(&mut self, node: &Node) -> Result<(), DatabaseError> {
        if node.following.as_ref().map(|(_, epoch)| *epoch) == Some(self.epoch) {
            return Ok(());
        }
        let change = self.own.transaction().await.doing("following a newer epoch")?;
        change
            .execute("UPDATE isles.node SET following_epoch = $1", &[&bookkeeping::stored(self.epoch)])
            .await
            .doing("following a newer epoch")?;
        if node.lineage.epoch > Epoch::NONE {
            bookkeeping::record_lineage(&change, Lineage { epoch: self.epoch, wrote: false }).await?;
        }
        change.commit().await.doing("following a newer epoch")?;
        self.world.changed.notify_waiters();
        Ok(())
    }

    /// Goes on from the slot that the writer reserved at its promotion, without a copy: possible when this region
    /// held just the transactions that the writer began with, and the schema has not changed since.
    async fn attach_as_is(
        &mut self,
        node: &Node,
        subscribed: bool,
        history: &[Promotion],
    ) -> Result<bool, DatabaseError> {
        let slot = slots::name(&self.world.config.region, self.epoch);
        let Some(begun) = history.iter().find(|promotion| promotion.epoch == self.epoch) else {
            return Ok(false);
        };
        let shares_history = match &node.following {
            Some((whom, since)) => {
                begun.from.as_ref() == Some(whom) && continues(history, whom, *since, begun.from_epoch)
            }
            None => begun.from.as_ref() == Some(&self.world.config.region),
        };
        if !shares_history
            || node.whole_upto.is_some()
            || node.lineage.epoch != begun.from_epoch
            || !slots::is_reserved(&self.peer, &slot).await?
        {
            return Ok(false);
        }
        if subscribed {
            let theirs = Applied { upto: begun.applied, last_commit: begun.last_commit };
            let whole = subscription::is_whole(&self.own).await?;
            if !whole || !subscription::stop(&self.own).await?.equals(theirs) {
                return Ok(false);
            }
        } else if node.following.is_some() {
            return Ok(false);
        }
        let (world, region) = (self.world, self.writer);
        // Read before the fingerprint that vouches for them is: a rename from here on is then seen as one.
        let columns = schema::columns(&self.peer).await?;
        let mut carrier = Carrier {
            world,
            own: &mut self.own,
            writer: &self.peer,
            region,
            settled: true,
            alike_upto: Lsn(0),
        };
        if !carrier.has_same_tables().await? || schema::fingerprint(&self.peer).await? != begun.catalogue {
            return Ok(false);
        }
        rebuild::drop_slots(world, &self.own).await?;
        let change = self.own.transaction().await.doing("following a new writer")?;
        if subscribed {
            change.batch_execute(subscription::REMOVE).await.doing("removing the subscription")?;
        }
        bookkeeping::adopt_promotions(&change, history).await?;
        bookkeeping::record_attached(&change, self.writer, self.epoch).await?;
        change.commit().await.doing("following a new writer")?;
        schema::record_columns(&mut self.own, &columns).await?;
        let address = world.peer_address(self.writer)?;
        subscription::create(&self.own, world, address, &slot, Start::Attach).await?;
        info!(peer = %self.writer, epoch = %self.epoch, "Follows a new writer without a copy.");
        world.changed.notify_waiters();
        Ok(true)
    }

    async fn copy_afresh(&mut self, because: Afresh, history: &[Promotion]) -> Result<(), DatabaseError> {
        let begun = Instant::now();
        let slot = slots::name(&self.world.config.region, self.epoch);
        let address = self.world.peer_address(self.writer)?;
        self.own = rebuild::anew(self.world, &Shape::of(&self.peer).await?).await?;
        bookkeeping::record_following(&*self.own, self.writer, self.epoch).await?;
        bookkeeping::adopt_promotions(&*self.own, history).await?;
        self.world.changed.notify_waiters();
        match self.carry(true, true).await? {
            Carried::Same | Carried::Changed => {}
            Carried::Waiting => {
                return Err(DatabaseError::Refused("the writer's schema keeps changing".to_owned()));
            }
            Carried::Failed(because) | Carried::Rebuild(because) => {
                return Err(DatabaseError::Refused(because));
            }
        }
        self.unreplicated = None;
        slots::drop_slot(&self.peer, &slot).await?;
        subscription::create(&self.own, self.world, address, &slot, Start::Copy).await?;
        self.errors = 0;
        self.stuck_since = None;
        self.world.meter.add(Metric::ReplicaCopies, &[because.word()], 1);
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(peer = %self.writer, epoch = %self.epoch, because = because.word(), elapsed_ms, "Follows a writer with a fresh copy.");
        self.world.changed.notify_waiters();
        Ok(())
    }

    async fn carry(&mut self, force: bool, settled: bool) -> Result<Carried, DatabaseError> {
        let (world, region) = (self.world, self.writer);
        let alike_upto = self.alike_upto;
        Carrier { world, own: &mut self.own, writer: &self.peer, region, settled, alike_upto }
            .carry(force)
            .await
    }

    /// Records the lineage once all tables are there; asked only while schema and publication are found to be
    /// carried over. Says whether they are.
    async fn record_whole(&mut self) -> Result<bool, DatabaseError> {
        if !subscription::is_whole(&self.own).await? {
            return Ok(false);
        }
        let node = bookkeeping::node(&*self.own).await?;
        let lineage = Lineage { epoch: self.epoch, wrote: false };
        if node.lineage != lineage || node.whole_upto.is_some() {
            bookkeeping::record_whole(&*self.own, self.epoch).await?;
            info!(peer = %self.writer, epoch = %self.epoch, "The copy is complete.");
            self.world.changed.notify_waiters();
        }
        Ok(true)
    }

    /// One round of care.
    async fn look_after(&mut self) -> Result<Care, DatabaseError> {
        if !self.has_slot().await? {
            self.world.findings.set(
                "slot",
                format!("The slot on {} was lost: this region's copy is made anew.", self.writer),
            );
            return Ok(Care::CopyAfresh(Afresh::SlotLost));
        }
        let failing = self.is_failing().await?;
        let force = failing && self.forced.is_none_or(|last| last.elapsed() >= FORCE_EVERY);
        if force {
            self.forced = Some(Instant::now());
        }
        let carried = self.carry(force, failing).await?;
        // While tables are copied, foreign keys between them cannot hold yet.
        let counts = matches!(carried, Carried::Failed(_)) && subscription::is_whole(&self.own).await?;
        self.refusals = if counts { self.refusals + 1 } else { 0 };
        let mut alike = true;
        match carried {
            Carried::Same => {}
            Carried::Changed => {
                self.unreplicated = None;
                self.world.findings.clear("schema");
            }
            Carried::Waiting => alike = false,
            Carried::Failed(because) if self.refusals < REFUSALS_MAX => {
                alike = false;
                self.world.findings.set("schema", format!("The writer's schema differs: {because} yet."));
            }
            Carried::Failed(because) | Carried::Rebuild(because) => {
                warn!(because, "The schema cannot be carried over: the copy is made anew.");
                self.world.findings.set("schema", format!("The copy was made anew: {because}."));
                return Ok(Care::CopyAfresh(Afresh::Schema));
            }
        }
        match subscription::refresh(&self.own, &self.peer, self.alike_upto).await {
            Ok(true) => {
                alike = false;
                subscription::wake(&self.own).await?;
            }
            Ok(false) => {}
            // A published table may wait for its schema.
            Err(error) if !alike => debug!(error = %error, "The publication cannot be followed yet."),
            Err(error) => return Err(error),
        }
        if failing && self.stuck_since.is_some_and(|since| since.elapsed() >= STUCK_MAX) {
            return Ok(Care::CopyAfresh(Afresh::Stuck));
        }
        self.carry_unreplicated().await?;
        sequences::mirror(&self.own, &self.peer).await?;
        let published = publish::is_current(&self.peer, &self.world.config.exclude_tables).await?;
        Ok(if alike && published { Care::Alike } else { Care::Unlike })
    }

    async fn carry_unreplicated(&mut self) -> Result<(), DatabaseError> {
        let exclude = &self.world.config.exclude_tables;
        let now = unreplicated::changes(&self.peer, exclude).await?;
        if self.unreplicated.as_ref() != Some(&now) {
            unreplicated::copy(&mut self.own, &self.peer, exclude, &self.world.findings).await?;
            self.unreplicated = Some(now);
        }
        Ok(())
    }

    async fn has_slot(&self) -> Result<bool, DatabaseError> {
        let slot: Option<String> = self
            .own
            .query_opt("SELECT subslotname::text FROM pg_subscription WHERE subname ^@ 'isles_'", &[])
            .await
            .doing("reading the subscription")?
            .and_then(|row| row.get(0));
        let Some(slot) = slot else { return Ok(false) };
        let row = self
            .peer
            .query_opt(
                "SELECT wal_status IS DISTINCT FROM 'lost' FROM pg_replication_slots WHERE slot_name = $1::text::name",
                &[&slot],
            )
            .await
            .doing("looking for the slot on the writer")?;
        Ok(row.is_some_and(|row| row.get(0)))
    }

    /// Whether the apply worker has failed since the last look, or has been disabled.
    async fn is_failing(&mut self) -> Result<bool, DatabaseError> {
        let row = self
            .own
            .query_one(
                "SELECT coalesce(t.apply_error_count + t.sync_error_count, 0), s.subenabled
                 FROM pg_subscription s LEFT JOIN pg_stat_subscription_stats t ON t.subid = s.oid
                 WHERE s.subname ^@ 'isles_'",
                &[],
            )
            .await
            .doing("looking after the apply worker")?;
        if !row.get::<_, bool>(1) {
            subscription::enable(&self.own).await?;
        }
        let errors: i64 = row.get(0);
        let failing = errors > self.errors;
        self.errors = errors;
        if failing {
            self.stuck_since.get_or_insert_with(Instant::now);
            self.world.findings.set(
                "apply",
                "Changes from the writer cannot be applied just now; PostgreSQL's log in this region says why.",
            );
        } else {
            self.stuck_since = None;
            self.world.findings.clear("apply");
        }
        Ok(failing)
    }

    /// A database that Isles never copied and that holds tables is somebody's: it is not dropped.
    async fn refuse_strange_rows(&self) -> Result<(), DatabaseError> {
        let tables: i64 = self
            .own
            .query_one(
                "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('isles', 'information_schema')
                   AND NOT n.nspname ^@ 'pg_'",
                &[],
            )
            .await
            .doing("looking for tables")?
            .get(0);
        if tables == 0 {
            return Ok(());
        }
        Err(DatabaseError::Refused(format!(
            "the database holds {tables} tables that were not copied from a writer: empty it, or drop it, and this \
             region will follow"
        )))
    }
}
