//! Keeps what a former writer alone holds, before its database is made anew.
//!
//! The newer writer recorded how much of this region's log it had applied when it was promoted. The slot it read
//! from is still here: what lies behind that position is ours alone. It goes into the ledger. Where no slot
//! reaches back that far, the whole database is set aside under another name instead of being dropped.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use isles_model::{Lsn, Metric};
use tokio_postgres::types::PgLsn;
use tracing::{info, warn};

use crate::{
    bookkeeping::{INCOMPLETE, Node, Promotion},
    error::{DatabaseError, Doing},
    ledger::{self, Ledger, LoneWrite, RowValues, WriteKind},
    link::Link,
    publish, rebuild,
    run::World,
    slots,
    wire::pgoutput::{self, Malformed, Message, Relation, Value},
};

/// Changes read from the slot at a time; a transaction is never split, so one large one may exceed it.
const PAGE_CHANGES: i32 = 5_000;

/// What a former writer's database is good for once its lone writes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It held nothing of its own: its rows are those its successor began with.
    Nothing,
    /// It held more than its successor, and must be copied.
    Writes,
    /// It was set aside.
    Aside,
}

/// Puts the writes that no later writer has into the ledger, or sets the database aside. May be repeated.
pub(crate) async fn keep_lone_writes(
    world: &World,
    own: Link,
    node: &Node,
    history: &[Promotion],
) -> Result<Kept, DatabaseError> {
    let region = &world.config.region;
    let epoch = node.lineage.epoch;
    let path = world.config.ledger_path.clone();
    let mut ledger =
        tokio::task::spawn_blocking(move || Ledger::open(&path)).await.map_err(|_| interrupted())??;
    let successor = history.iter().find(|promotion| promotion.epoch > epoch);
    let shared = successor
        .filter(|next| {
            next.from.as_ref() == Some(region) && next.from_epoch == epoch && next.catalogue != INCOMPLETE
        })
        .map(|next| next.applied);
    // A table that had not been published yet, or was being copied to the successor, has rows that no slot tells of.
    let published = publish::is_current(&own, &world.config.exclude_tables).await?;
    let slot = match shared {
        Some(applied) if published => {
            let reaches_to = applied.max(ledger.recorded(epoch, region).unwrap_or_default());
            let successor = successor.map_or(region, |next| &next.region);
            slot_within(&own, reaches_to, &slots::name_prefix(successor)).await?
        }
        Some(_) | None => None,
    };
    let (Some(applied), Some(slot)) = (shared, slot) else {
        let aside = rebuild::set_aside(world, own, epoch).await?;
        warn!(database = aside, %epoch, "What this region alone wrote cannot be listed; its database is set aside.");
        world.findings.set(
            "aside",
            format!(
                "What this region alone wrote under epoch {epoch} could not be listed: its former database is \
                 kept as {aside}. Drop it when nothing in it is missed."
            ),
        );
        return Ok(Kept::Aside);
    };
    let mut collector = Collector { world, node, applied, relations: BTreeMap::new(), open: Vec::new() };
    let (mut kept, mut reached) = (0, Lsn::default());
    while let Some((last, writes)) = collector.page(&own, &slot).await? {
        // Because a page may hold megabytes and is synced, it is written off the async threads.
        let written = tokio::task::spawn_blocking(move || -> Result<_, DatabaseError> {
            let mut added = 0_u64;
            for write in &writes {
                added += u64::from(ledger.add(write)?);
            }
            ledger.sync()?;
            Ok((ledger, added))
        });
        let (back, added) = written.await.map_err(|_| interrupted())??;
        ledger = back;
        kept += added;
        own.execute("SELECT pg_replication_slot_advance($1::text::name, $2)", &[&slot, &PgLsn::from(last.0)])
            .await
            .doing("moving past what the ledger holds")?;
        if last <= reached {
            return Err(DatabaseError::Refused(format!("slot {slot} does not move past {last}")));
        }
        reached = last;
    }
    report(world, node, kept).await;
    let nothing = ledger.recorded(epoch, region).is_none() && kept == 0;
    Ok(if nothing { Kept::Nothing } else { Kept::Writes })
}

async fn report(world: &World, node: &Node, kept: u64) {
    let epoch = node.lineage.epoch;
    info!(%epoch, kept, "Listed the writes that only this region held.");
    if kept > 0 {
        world.meter.add(Metric::StrandedWrites, &[], kept);
    }
    ledger::tally(&world.config.ledger_path, &world.config.stranded).await;
    let total = world.config.stranded.load(Ordering::Relaxed).max(kept);
    if total > 0 {
        world.findings.set(
            "ledger",
            format!(
                "{total} writes that only this region held are in its ledger: `isles ledger list` shows them."
            ),
        );
    }
}

fn interrupted() -> DatabaseError {
    DatabaseError::Refused("writing the ledger was interrupted".to_owned())
}

/// A follower's slot that still holds everything behind a position, released from its reader.
///
/// The successor's own slot always does: it may stand past the recorded position, but only where the successor
/// itself has confirmed that there was nothing more, or where an earlier attempt has filled the ledger.
async fn slot_within(own: &Link, applied: Lsn, successor: &str) -> Result<Option<String>, DatabaseError> {
    let row = own
        .query_opt(
            "SELECT slot_name::text, pg_terminate_backend(active_pid) FROM pg_replication_slots
             WHERE database = current_database() AND plugin = 'pgoutput' AND slot_name ^@ 'isles_'
               AND wal_status <> 'lost' AND (confirmed_flush_lsn <= $1 OR slot_name ^@ $2)
             ORDER BY slot_name ^@ $2 DESC, confirmed_flush_lsn DESC LIMIT 1",
            &[&PgLsn::from(applied.0), &successor],
        )
        .await
        .doing("looking for the slot that the next writer read from")?;
    Ok(row.map(|row| row.get(0)))
}

struct Collector<'a> {
    world: &'a World,
    node: &'a Node,
    /// What the next writer had applied.
    applied: Lsn,
    relations: BTreeMap<u32, Relation>,
    /// The changes of the transaction that is being read.
    open: Vec<(String, WriteKind, Option<RowValues>, Option<RowValues>)>,
}

impl Collector<'_> {
    /// Reads some whole transactions; `None` at the end. Answers where the last one ended and the lone writes.
    async fn page(&mut self, own: &Link, slot: &str) -> Result<Option<(Lsn, Vec<LoneWrite>)>, DatabaseError> {
        let rows = own
            .query(
                "SELECT data FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $2,
                   'proto_version', '1', 'publication_names', 'isles')",
                &[&slot, &PAGE_CHANGES],
            )
            .await
            .doing("reading what this region alone wrote")?;
        let (mut last, mut writes) = (None, Vec::new());
        for row in &rows {
            if let Some(end) = self.take(pgoutput::parse(row.get(0))?, &mut writes)? {
                last = Some(end);
            }
        }
        Ok(last.map(|last| (last, writes)))
    }

    fn take(&mut self, message: Message<'_>, writes: &mut Vec<LoneWrite>) -> Result<Option<Lsn>, Malformed> {
        match message {
            Message::Begin => self.open.clear(),
            Message::Relation(relation) => {
                self.relations.insert(relation.id, relation);
            }
            Message::Insert { relation, new } => {
                let table = self.relation(relation)?;
                let change = (shown(table), WriteKind::Insert, None, Some(named(table, &new)));
                self.open.push(change);
            }
            Message::Update { relation, old, new } => {
                let table = self.relation(relation)?;
                let old = old.map(|old| named(table, &old));
                let change = (shown(table), WriteKind::Update, old, Some(named(table, &new)));
                self.open.push(change);
            }
            Message::Delete { relation, old } => {
                let table = self.relation(relation)?;
                let change = (shown(table), WriteKind::Delete, Some(named(table, &old)), None);
                self.open.push(change);
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    let change = (shown(self.relation(relation)?), WriteKind::Truncate, None, None);
                    self.open.push(change);
                }
            }
            Message::Commit { end, at_us } => {
                self.close(end, at_us, writes);
                return Ok(Some(end));
            }
            Message::Other => {}
        }
        Ok(None)
    }

    fn close(&mut self, end: Lsn, at_us: i64, writes: &mut Vec<LoneWrite>) {
        let changes = std::mem::take(&mut self.open);
        if end <= self.applied {
            return;
        }
        let committed_at = ledger::rfc3339(at_us);
        writes.extend(changes.into_iter().zip(0..).map(|((table, kind, old, new), index)| LoneWrite {
            epoch: self.node.lineage.epoch,
            region: self.world.config.region.clone(),
            commit_lsn: end,
            committed_at: committed_at.clone(),
            index,
            table,
            kind,
            old,
            new,
        }));
    }

    fn relation(&self, id: u32) -> Result<&Relation, Malformed> {
        self.relations.get(&id).ok_or(Malformed("a row of a table that was not described"))
    }
}

fn shown(relation: &Relation) -> String {
    format!("{}.{}", relation.schema, relation.name)
}

/// Values by name; in an old key only the key's columns are sent, the others read as NULL and are left out.
fn named(relation: &Relation, values: &[Value<'_>]) -> RowValues {
    let columns = relation.columns.iter().zip(values);
    columns
        .filter_map(|(column, value)| match value {
            Value::Unchanged => None,
            Value::Null => Some((column.name.clone(), None)),
            Value::Text(text) => {
                Some((column.name.clone(), Some(String::from_utf8_lossy(text).into_owned())))
            }
        })
        .collect()
}
