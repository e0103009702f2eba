//! Carries the writer's schema to a replica: PostgreSQL's logical replication carries rows only.
//!
//! About once a second a fingerprint of the writer's catalogue is compared with the one last carried. When it
//! differs, both schemas are dumped, and the replica is brought to the writer's in a few rounds; after each the
//! two are compared again. The contents of tables that do not replicate travel with it.

pub(crate) mod diff;
pub(crate) mod dump;
pub(crate) mod source;
pub(crate) mod unreplicated;

use std::time::Duration;

use isles_model::{Lsn, RegionName};
use tokio_postgres::error::SqlState;
use tracing::{info, warn};

use crate::{
    bookkeeping,
    error::{DatabaseError, Doing, cause},
    link::Link,
    run::World,
};
use diff::{Phase, Step};
use dump::{Entry, Source};

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
}

impl Carrier<'_> {
    /// Carries what differs. `force` compares even if the writer's fingerprint is the one last carried.
    pub(crate) async fn carry(&mut self, force: bool) -> Result<Carried, DatabaseError> {
        let known = bookkeeping::node(&**self.own).await?.carried;
        let mut fingerprint = source::fingerprint(self.writer).await?;
        if fingerprint == known && !force {
            return Ok(Carried::Same);
        }
        let mut dumps = 0;
        let (theirs, columns, end) = loop {
            let address = self.world.peer_address(self.region)?;
            let theirs =
                dump::read(&self.world.config.database, Source::Peer(self.region.as_str(), address)).await?;
            let columns = source::columns(self.writer).await?;
            let again = source::fingerprint(self.writer).await?;
            if again == fingerprint {
                break (theirs, columns, source::log_end(self.writer).await?);
            }
            fingerprint = again;
            dumps += 1;
            if dumps == DUMPS_MAX {
                return Ok(Carried::Waiting);
            }
        };
        let settled = self.settled || self.is_applied(end).await?;
        let outcome = self.converge(&theirs, settled).await?;
        if outcome == Carried::Changed {
            unreplicated::copy(
                self.own,
                self.writer,
                &self.world.config.exclude_tables,
                &self.world.findings,
            )
            .await?;
            let change = self.own.transaction().await.doing("recording the carried schema")?;
            source::record(&change, &columns, &fingerprint).await?;
            change.commit().await.doing("recording the carried schema")?;
            info!(peer = %self.region, "Carried the writer's schema over.");
        }
        Ok(outcome)
    }

    async fn converge(&mut self, theirs: &[Entry], settled: bool) -> Result<Carried, DatabaseError> {
        for _ in 0..ROUNDS_MAX {
            let ours = dump::read(&self.world.config.database, Source::Own).await?;
            let steps = diff::steps(theirs, &ours);
            if steps.is_empty() {
                return Ok(Carried::Changed);
            }
            let may = |step: &&Step| settled || matches!(step, Step::Run { phase: Phase::Grow, .. });
            let now: Vec<&Step> = steps.iter().filter(may).collect();
            if now.is_empty() {
                return Ok(Carried::Waiting);
            }
            if let Some(because) = self.take(&now).await? {
                return Ok(Carried::Rebuild(because));
            }
        }
        Ok(Carried::Rebuild("its schema did not come to equal the writer's".to_owned()))
    }

    /// Takes steps in one transaction. A step that fails is left for the next comparison, with the table it is
    /// about copied afresh; where there is no such table, the answer is why the database must be.
    async fn take(&mut self, steps: &[&Step]) -> Result<Option<String>, DatabaseError> {
        let change = self.own.transaction().await.doing("changing the schema")?;
        change.batch_execute(SETTINGS).await.doing("changing the schema")?;
        for step in steps {
            let (sql, what, table) = match step {
                Step::Rebuild { because } => return Ok(Some(because.clone())),
                Step::CopyTable { table, because } => {
                    info!(table, because, "A table is copied afresh.");
                    (format!("DROP TABLE {table} CASCADE"), because.clone(), None)
                }
                Step::Run { sql, what, table, .. } => (sql.clone(), what.clone(), table.as_ref()),
            };
            let Err(error) = change.batch_execute(&sql).await else { continue };
            let passing = error.code().is_none_or(|code| {
                [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::QUERY_CANCELED]
                    .contains(code)
            });
            if passing {
                return Err(DatabaseError::Query { doing: "changing the schema", source: error });
            }
            warn!(what, error = cause(&error), "A schema change could not be carried over as it is.");
            drop(change);
            let Some(table) = table else { return Ok(Some(format!("{what} could not be carried over"))) };
            let drop_table = format!("DROP TABLE IF EXISTS {table} CASCADE");
            self.own.batch("dropping a table to copy it afresh", &drop_table).await?;
            return Ok(None);
        }
        change.commit().await.doing("changing the schema")?;
        Ok(None)
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
                     WHERE s.subname = 'isles'",
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
