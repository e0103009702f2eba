//! Makes this region's database the writer of an epoch, without contacting the last one.
//!
//! The order matters: stop applying, note how far the last writer's log was applied, move the sequences, publish,
//! reserve a slot for each region that may follow without a copy, record the epoch. Only then may the fence open. Every step may be repeated: an agent that dies half-way starts
//! again and ends in the same state.

use std::time::Instant;

use isles_model::{Epoch, Lsn};
use tokio_postgres::types::PgLsn;
use tracing::info;

use crate::{
    bookkeeping::{self, Promotion},
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
    let subscribed = subscription::exists(link).await?;
    if node.following.is_some() && node.lineage.epoch == Epoch::NONE {
        return Err(DatabaseError::Refused("told to write, but the first copy is not complete".to_owned()));
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
    let follows_another = node.following.is_some();
    if follows_another {
        sequences::advance(&**link, &world.findings).await?;
    }
    publish::keep(link, &world.config.exclude_tables, &world.findings).await?;
    if follows_another {
        slots::reserve(world, epoch).await;
    }
    let promotion = Promotion {
        epoch,
        region: world.config.region.clone(),
        from,
        from_epoch: node.lineage.epoch,
        applied: applied.upto,
        last_commit: applied.last_commit,
        catalogue: schema::fingerprint(link).await?,
    };
    let change = link.transaction().await.doing("recording the promotion")?;
    if subscribed {
        change.batch_execute(subscription::REMOVE).await.doing("removing the subscription")?;
    }
    bookkeeping::record_promotion(&change, &promotion).await?;
    change.commit().await.doing("recording the promotion")?;
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(%epoch, lsn = %applied.upto, elapsed_ms, "The database is promoted.");
    Ok(())
}

async fn own_end(link: &Link) -> Result<Lsn, DatabaseError> {
    let row = link.query_one("SELECT pg_current_wal_lsn()", &[]).await.doing("reading the own log's end")?;
    Ok(Lsn(row.get::<_, PgLsn>(0).into()))
}
