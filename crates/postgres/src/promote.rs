//! Makes this region's database the writer of an epoch, without contacting the last one.
//!
//! The order matters: stop applying, note how far the last writer's log was applied, move the sequences, publish,
//! record the epoch. Only then may the fence open. Meanwhile a slot is reserved for each region that may follow without a
//! copy. Every step may be repeated: an agent that dies half-way starts again and ends in the same state.

use std::time::Instant;

use isles_model::{Epoch, Lsn};
use tokio_postgres::types::PgLsn;
use tracing::{debug, info};

use crate::{
    bookkeeping::{self, INCOMPLETE, Promotion},
    error::{DatabaseError, Doing},
    link::Link,
    publish,
    run::World,
    schema, sequences, slots,
    subscription::{self, Applied},
};

/// Promotes, or finds that it is done already.
pub(crate) async fn promote(world: &World, link: &mut Link, epoch: Epoch) -> Result<(), DatabaseError> {
    let begun = Instant::now();
    let node = bookkeeping::node(&**link).await?;
    if node.lineage.epoch > epoch {
        return Err(DatabaseError::Refused(format!(
            "told to write under epoch {epoch}, but the database has seen epoch {}",
            node.lineage.epoch
        )));
    }
    if node.lineage.epoch == epoch && node.lineage.wrote {
        return Ok(());
    }
    // Because the log is written in order, the last commit alone has to wait for the disk.
    link.batch("preparing the promotion", "SET synchronous_commit = off").await?;
    let subscribed = subscription::exists(link).await?;
    let copied_again = node.whole_upto == Some(Lsn(0));
    if node.following.is_some() && (node.lineage.epoch == Epoch::NONE || copied_again) {
        return Err(DatabaseError::Refused("told to write, but the copy is not complete".to_owned()));
    }
    let (from, applied) = match &node.following {
        Some((writer, _)) if subscribed => (Some(writer.clone()), subscription::stop(link).await?),
        Some((writer, _)) => {
            (Some(writer.clone()), Applied { upto: node.applied, last_commit: node.applied })
        }
        None if node.lineage.wrote => {
            let end = own_end(link).await?;
            (Some(world.config.region.clone()), Applied { upto: end, last_commit: end })
        }
        None => (None, Applied::default()),
    };
    let stopped_ms = milliseconds(begun);
    let follows_another = node.following.is_some();
    // No row of the app's comes before the fence opens, so it is all the same to the slots what is changed beside them.
    let reserve = async {
        if follows_another {
            slots::reserve(world, epoch).await;
        }
        milliseconds(begun)
    };
    let prepare = async {
        if follows_another {
            sequences::advance(&**link, &world.findings).await?;
        }
        let moved_ms = milliseconds(begun);
        publish::keep(link, &world.config.exclude_tables, &world.findings).await?;
        let published_ms = milliseconds(begun);
        let catalogue = schema::fingerprint(link).await?;
        debug!(%epoch, stopped_ms, moved_ms, published_ms, prepared_ms = milliseconds(begun), "The next writer is prepared.");
        Ok::<_, DatabaseError>(catalogue)
    };
    let (reserved_ms, catalogue) = tokio::join!(reserve, prepare);
    let promotion = Promotion {
        epoch,
        region: world.config.region.clone(),
        from,
        from_epoch: node.lineage.epoch,
        applied: applied.upto,
        last_commit: applied.last_commit,
        catalogue: if node.whole_upto.is_none() { catalogue? } else { INCOMPLETE.to_owned() },
    };
    let change = link.transaction().await.doing("recording the promotion")?;
    change.batch_execute("SET LOCAL synchronous_commit = local").await.doing("recording the promotion")?;
    if subscribed {
        change.batch_execute(subscription::REMOVE).await.doing("removing the subscription")?;
    }
    bookkeeping::record_promotion(&change, &promotion).await?;
    change.commit().await.doing("recording the promotion")?;
    link.batch("ending the promotion", "SET synchronous_commit = local").await?;
    info!(%epoch, lsn = %applied.upto, reserved_ms, elapsed_ms = milliseconds(begun), "The database is promoted.");
    Ok(())
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn own_end(link: &Link) -> Result<Lsn, DatabaseError> {
    let row = link.query_one("SELECT pg_current_wal_lsn()", &[]).await.doing("reading the own log's end")?;
    Ok(Lsn(row.get::<_, PgLsn>(0).into()))
}
