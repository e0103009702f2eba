//! Carries the writer's schema to a replica: PostgreSQL's logical replication carries rows only.
//!
//! About once a second a fingerprint of the writer's catalogue is compared with the one last carried. When it
//! differs, both schemas are dumped, and the replica is brought to the writer's in a few rounds; after each the
//! two are compared again. The contents of tables that do not replicate travel with it.

mod diff;
mod drops;
mod dump;
pub(crate) mod laid_out;
mod renames;
mod source;
mod table;
mod text;
pub(crate) mod unreplicated;

use std::time::Duration;

use isles_model::{Lsn, RegionName};
use tokio_postgres::error::SqlState;
use tracing::{debug, info, warn};

use crate::{
    bookkeeping,
    error::{DatabaseError, Doing, cause},
    link::Link,
    run::World,
};
use diff::{Hints, Step};
use dump::{Entry, Source};
use laid_out::Laid;

pub(crate) use source::{columns, fingerprint, record_columns};

/// Comparisons before it is given up and the database is copied afresh.
const ROUNDS_MAX: usize = 8;
/// Dumps of a schema that changes while it is dumped.
const DUMPS_MAX: usize = 5;
/// What a dump's statements rely on. `replica` keeps the app's event triggers still.
const SETTINGS: &str = "SET LOCAL search_path = ''; SET LOCAL check_function_bodies = off;
    SET LOCAL xmloption = content; SET LOCAL row_security = off; SET LOCAL lock_timeout = '3s';
    SET LOCAL default_table_access_method = heap; SET LOCAL session_replication_role = replica";
/// Between two looks at the applied position.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long to wait, each time, for changes made under the old schema.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// What came of carrying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Carried {
    /// Nothing differs.
    Same,
    /// The replica has the writer's schema now.
    Changed,
    /// Some of it waits until older changes are applied.
    Waiting,
    /// A statement was refused; it may pass later, when other changes have come.
    Failed(String),
    /// It cannot be expressed: copy the database afresh.
    Rebuild(String),
}

/// One side to carry to and the other to carry from.
pub(crate) struct Carrier<'a> {
    pub(crate) world: &'a World,
    pub(crate) own: &'a mut Link,
    pub(crate) writer: &'a Link,
    pub(crate) region: &'a RegionName,
    /// No row is on its way under an older schema: nothing is subscribed to yet, or applying is stuck on it.
    pub(crate) settled: bool,
    /// The position at which both sides' tables were last found alike.
    pub(crate) alike_upto: Lsn,
}

impl Carrier<'_> {
    /// Whether every table here has the writer's definition already, so that rows of both mean the same.
    pub(crate) async fn has_same_tables(&mut self) -> Result<bool, DatabaseError> {
        let config = &self.world.config.database;
        let address = self.world.peer_address(self.region)?;
        let theirs = dump::read(config, Source::Peer(self.region.as_str(), address)).await?;
        let ours = dump::read(config, Source::Own).await?;
        Ok(!diff::steps(&theirs, &ours, &Hints::default()).iter().any(Step::touches_tables))
    }

    /// Carries what differs. `force` compares even if the writer's fingerprint is the one last carried.
    pub(crate) async fn carry(&mut self, force: bool) -> Result<Carried, DatabaseError> {
        let known = bookkeeping::node(&**self.own).await?.carried;
        let mut seen = fingerprint(self.writer).await?;
        if seen == known && !force {
            return Ok(Carried::Same);
        }
        let mut dumps = 0;
        let (theirs, columns, end) = loop {
            let theirs = self.read_theirs(&seen).await?;
            let columns = columns(self.writer).await?;
            let again = fingerprint(self.writer).await?;
            if let Some(theirs) = theirs
                && again == seen
            {
                break (theirs, columns, source::log_end(self.writer).await?);
            }
            seen = again;
            dumps += 1;
            if dumps == DUMPS_MAX {
                return Ok(Carried::Waiting);
            }
        };
        let settled = self.settled || self.is_applied(end).await?;
        let mut hints = Hints {
            fillers: columns.iter().filter_map(source::Column::keyed_filler).collect(),
            ..Hints::default()
        };
        let moves = source::moves(&source::known_columns(self.own).await?, &columns);
        if moves != source::Moves::default() {
            if !settled {
                return Ok(Carried::Waiting);
            }
            hints.rewritten = renames::carry(self.own, moves).await?;
        }
        let outcome = self.converge(&theirs, hints, settled).await?;
        if !matches!(outcome, Carried::Rebuild(_)) {
            record_columns(self.own, &columns).await?;
        }
        if outcome == Carried::Changed {
            let exclude = &self.world.config.exclude_tables;
            unreplicated::copy(self.own, self.writer, exclude, &self.world.findings).await?;
            source::record_fingerprint(self.own, &seen).await?;
            info!(peer = %self.region, "Carried the writer's schema over.");
        }
        Ok(outcome)
    }

    /// The writer's schema: as it has laid it out, or else dumped from here, which takes a hundred round trips. `None` if
    /// it has changed again.
    async fn read_theirs(&self, fingerprint: &str) -> Result<Option<Vec<Entry>>, DatabaseError> {
        match laid_out::take(self.writer, fingerprint).await? {
            Laid::Out(text) => return Ok(Some(dump::split(&text))),
            Laid::Moved => return Ok(None),
            Laid::Late => {}
        }
        let address = self.world.peer_address(self.region)?;
        let source = Source::Peer(self.region.as_str(), address);
        dump::read(&self.world.config.database, source).await.map(Some)
    }

    async fn converge(
        &mut self,
        theirs: &[Entry],
        mut hints: Hints,
        settled: bool,
    ) -> Result<Carried, DatabaseError> {
        let (mut last_steps, mut last_refusal) = (Vec::new(), None);
        for _ in 0..ROUNDS_MAX {
            let ours = dump::read(&self.world.config.database, Source::Own).await?;
            let steps = diff::steps(theirs, &ours, &hints);
            if steps.is_empty() {
                return Ok(Carried::Changed);
            }
            if let Some(because) = steps.iter().find_map(Step::impossible) {
                return Ok(Carried::Rebuild(because.to_owned()));
            }
            if steps == last_steps {
                return Ok(match last_refusal {
                    Some(what) => Carried::Failed(what),
                    None if settled => {
                        debug!(?steps, "Two dumps differ in words only.");
                        Carried::Changed
                    }
                    None => Carried::Waiting,
                });
            }
            let may = |step: &&Step| settled || step.may_run_early();
            let mut now: Vec<&Step> = steps.iter().filter(may).collect();
            // What else there is to do may need the tables that are made anew: they come first, alone.
            let copies = |step: &&Step| matches!(step, Step::CopyTable { .. });
            if now.iter().any(copies) {
                now.retain(copies);
                hints.rewritten.clear();
            }
            last_refusal = self.take(&now).await?;
            last_steps = steps;
        }
        Ok(last_refusal.map_or(Carried::Waiting, Carried::Failed))
    }

    /// Takes steps in one transaction, each as far as it goes. Where one about a table is refused, that table is
    /// dropped instead, to be copied afresh. Answers what else was refused.
    async fn take(&mut self, steps: &[&Step]) -> Result<Option<String>, DatabaseError> {
        let (mut refusal, mut copied_again) = (None, false);
        for step in steps {
            if let Step::Alone { what, sql } = step
                && let Err(error) = self.own.batch_execute(sql).await
            {
                refusal = Some(refused(what, error)?);
            }
        }
        let change = self.own.transaction().await.doing("changing the schema")?;
        change.batch_execute(SETTINGS).await.doing("changing the schema")?;
        for step in steps {
            let (sql, what, table) = match step {
                Step::CopyTable { table, because } => {
                    info!(table, because, "A table is copied afresh.");
                    copied_again = true;
                    (format!("DROP TABLE IF EXISTS {table} CASCADE"), because, None)
                }
                Step::Run { sql, what, table, .. } => (sql.clone(), what, table.as_ref()),
                Step::Alone { .. } | Step::Rebuild { .. } => continue,
            };
            let guarded = format!("SAVEPOINT step;\n{sql};\nRELEASE SAVEPOINT step");
            let Err(error) = change.batch_execute(&guarded).await else { continue };
            let what = refused(what, error)?;
            change.batch_execute("ROLLBACK TO SAVEPOINT step").await.doing("changing the schema")?;
            match table {
                None => refusal = refusal.or(Some(what)),
                Some(table) => {
                    let drop_table = format!("DROP TABLE IF EXISTS {table} CASCADE");
                    copied_again = true;
                    change.batch_execute(&drop_table).await.doing("dropping a table to copy it afresh")?;
                }
            }
        }
        if copied_again || steps.iter().any(|step| step.makes_table()) {
            let upto = if copied_again { Lsn(0) } else { self.alike_upto };
            bookkeeping::record_missing(&change, upto).await?;
        }
        change.commit().await.doing("changing the schema")?;
        Ok(refusal)
    }

    /// Waits a little until the replica has applied the writer's log up to `end`.
    async fn is_applied(&self, end: Lsn) -> Result<bool, DatabaseError> {
        let deadline = tokio::time::Instant::now() + SETTLE_MAX;
        loop {
            let row = self
                .own
                .query_opt(
                    "SELECT greatest(w.latest_end_lsn, o.remote_lsn) >= $1
                     FROM pg_subscription s
                     LEFT JOIN pg_stat_subscription w ON w.subid = s.oid AND w.relid IS NULL
                     LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid
                     WHERE s.subname ^@ 'isles_'",
                    &[&tokio_postgres::types::PgLsn::from(end.0)],
                )
                .await
                .doing("reading the applied position")?;
            match row.map(|row| row.get::<_, Option<bool>>(0)) {
                None | Some(Some(true)) => return Ok(true),
                Some(_) if tokio::time::Instant::now() >= deadline => return Ok(false),
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// Tells a passing hindrance (a lock, a lost session), which is an error to try again after, from a refusal.
fn refused(what: &str, source: tokio_postgres::Error) -> Result<String, DatabaseError> {
    let passing = source.code().is_none_or(|code| {
        [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::QUERY_CANCELED]
            .contains(code)
    });
    if passing {
        return Err(DatabaseError::Query { doing: "changing the schema", source });
    }
    warn!(what, error = cause(&source), "A schema change could not be carried over as it is.");
    Ok(format!("{what} could not be carried over"))
}
