//! Lays the writer's own schema dump out in `isles.schema_dump`, so that a replica far away reads it in one question.
//!
//! Because `pg_dump` asks a hundred questions one after the other: over a link of 170 ms that is 17 s.

use std::time::Duration;

use isles_model::config::DatabaseConfig;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{
    dump::{self, Source},
    source,
};
use crate::error::{DatabaseError, Doing};

/// How long a replica waits for the writer to lay out what it has just changed.
const LAID_OUT_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// The writer's side: dumps the schema if its fingerprint is not the one laid out. One that changes while it is
/// dumped is left for the next call.
pub(crate) async fn lay_out(own: &Client, config: &DatabaseConfig) -> Result<(), DatabaseError> {
    let fingerprint = source::fingerprint(own).await?;
    let known = own
        .query_opt("SELECT FROM isles.schema_dump WHERE fingerprint = $1", &[&fingerprint])
        .await
        .doing("reading the laid out schema")?;
    if known.is_some() {
        return Ok(());
    }
    let text = dump::text(config, Source::Own).await?;
    if source::fingerprint(own).await? != fingerprint {
        return Ok(());
    }
    own.execute(
        "INSERT INTO isles.schema_dump (fingerprint, dump) VALUES ($1, $2)
         ON CONFLICT (only_row) DO UPDATE SET fingerprint = excluded.fingerprint, dump = excluded.dump",
        &[&fingerprint, &text],
    )
    .await
    .doing("laying the schema out")?;
    Ok(())
}

/// What a replica finds.
pub(crate) enum Laid {
    /// The dump that goes with the fingerprint.
    Out(String),
    /// The schema has another fingerprint by now.
    Moved,
    /// The writer does not lay it out in time.
    Late,
}

/// The replica's side: waits for the dump that goes with a fingerprint.
pub(crate) async fn take(writer: &Client, fingerprint: &str) -> Result<Laid, DatabaseError> {
    let deadline = Instant::now() + LAID_OUT_WITHIN;
    loop {
        let row = writer
            .query_opt("SELECT dump FROM isles.schema_dump WHERE fingerprint = $1", &[&fingerprint])
            .await
            .doing("reading the writer's laid out schema")?;
        match row {
            Some(row) => return Ok(Laid::Out(row.get(0))),
            None if source::fingerprint(writer).await? != fingerprint => return Ok(Laid::Moved),
            None if Instant::now() >= deadline => return Ok(Laid::Late),
            None => sleep(LOOK_EVERY).await,
        }
    }
}
