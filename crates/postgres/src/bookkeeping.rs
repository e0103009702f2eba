//! Remembers, inside the app's database, whose history its rows are: schema `isles`.
//!
//! Written by the superuser only and never replicated. Readable by the replication role, so that a region that
//! comes back can ask a newer writer from which position on its own writes are its own alone.

use isles_model::{Epoch, Lineage, Lsn, RegionName};
use tokio_postgres::{Client, GenericClient, types::PgLsn};

use crate::error::{DatabaseError, Doing};

/// The schema that holds it.
pub(crate) const SCHEMA: &str = "isles";

const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS isles;
CREATE TABLE IF NOT EXISTS isles.node (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    region text NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    wrote boolean NOT NULL DEFAULT false,
    following text,
    following_epoch bigint,
    applied pg_lsn NOT NULL DEFAULT '0/0',
    carried text NOT NULL DEFAULT '',
    whole_upto pg_lsn
);
ALTER TABLE isles.node ADD COLUMN IF NOT EXISTS whole_upto pg_lsn;
CREATE TABLE IF NOT EXISTS isles.promotion (
    epoch bigint PRIMARY KEY,
    region text NOT NULL,
    from_region text,
    from_epoch bigint NOT NULL,
    applied pg_lsn NOT NULL,
    last_commit pg_lsn NOT NULL,
    catalogue text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS isles.sequence (
    schema_name text NOT NULL,
    name text NOT NULL,
    last_value bigint NOT NULL,
    PRIMARY KEY (schema_name, name)
);
CREATE TABLE IF NOT EXISTS isles.source_column (
    table_oid oid NOT NULL,
    column_number smallint NOT NULL,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    column_name text NOT NULL,
    file_node oid NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (table_oid, column_number)
);
CREATE TABLE IF NOT EXISTS isles.schema_dump (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint text NOT NULL,
    dump text NOT NULL
);
REVOKE ALL ON SCHEMA isles FROM PUBLIC;";

/// The one row of `isles.node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Whose history the rows are.
    pub(crate) lineage: Lineage,
    /// Whom the subscription follows, and under which epoch.
    pub(crate) following: Option<(RegionName, Epoch)>,
    /// How much of the followed writer's log was applied when the subscription ended.
    pub(crate) applied: Lsn,
    /// Fingerprint of the writer's catalogue when its schema was last carried here.
    pub(crate) carried: String,
    /// While tables that the writer made lately are copied: the last position at which nothing was missing; 0 while a
    /// table is copied again that was complete before.
    pub(crate) whole_upto: Option<Lsn>,
}

/// How a region became the writer of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promotion {
    pub(crate) epoch: Epoch,
    pub(crate) region: RegionName,
    /// The writer before, whose log `applied` is a position of; `None` at the very first start.
    pub(crate) from: Option<RegionName>,
    pub(crate) from_epoch: Epoch,
    /// Every transaction of `from` that ended at or before it was applied, and none after it.
    pub(crate) applied: Lsn,
    /// No transaction of `from` that was applied ended after it.
    pub(crate) last_commit: Lsn,
    /// The fingerprint of the catalogue at the promotion, or [`INCOMPLETE`].
    pub(crate) catalogue: String,
}

/// In place of a fingerprint: rows of new tables were missing at the promotion. Nobody goes on from there without a copy,
/// and the writer before keeps its whole database.
pub(crate) const INCOMPLETE: &str = "incomplete";

/// Creates what is missing.
pub(crate) async fn ensure(client: &Client, region: &RegionName) -> Result<(), DatabaseError> {
    client.batch_execute(CREATE).await.doing("creating the schema isles")?;
    client
        .execute(
            "INSERT INTO isles.node (region) VALUES ($1)
             ON CONFLICT (only_row) DO UPDATE SET region = excluded.region
             WHERE node.region <> excluded.region",
            &[&region.as_str()],
        )
        .await
        .doing("naming the region in isles.node")?;
    Ok(())
}

/// Reads the one row.
pub(crate) async fn node(client: &impl GenericClient) -> Result<Node, DatabaseError> {
    let row = client
        .query_one(
            "SELECT epoch, wrote, following, following_epoch, applied, carried, whole_upto FROM isles.node",
            &[],
        )
        .await
        .doing("reading isles.node")?;
    let following: Option<RegionName> = row.get::<_, Option<&str>>(2).and_then(|name| name.parse().ok());
    Ok(Node {
        lineage: Lineage { epoch: epoch_of(row.get(0)), wrote: row.get(1) },
        following: following.zip(row.get::<_, Option<i64>>(3).map(epoch_of)),
        applied: Lsn(row.get::<_, PgLsn>(4).into()),
        carried: row.get(5),
        whole_upto: row.get::<_, Option<PgLsn>>(6).map(|upto| Lsn(upto.into())),
    })
}

/// Records whose history the rows are.
pub(crate) async fn record_lineage(
    client: &impl GenericClient,
    lineage: Lineage,
) -> Result<(), DatabaseError> {
    client
        .execute(
            "UPDATE isles.node SET epoch = $1, wrote = $2 WHERE (epoch, wrote) IS DISTINCT FROM ($1, $2)",
            &[&stored(lineage.epoch), &lineage.wrote],
        )
        .await
        .doing("recording the lineage")?;
    Ok(())
}

/// Records that the copy has all tables of a writer's epoch.
pub(crate) async fn record_whole(client: &impl GenericClient, epoch: Epoch) -> Result<(), DatabaseError> {
    client
        .execute("UPDATE isles.node SET epoch = $1, wrote = false, whole_upto = NULL", &[&stored(epoch)])
        .await
        .doing("recording that the copy is complete")?;
    Ok(())
}

/// Records that something is missing from the copy as of this position; a lower one that is recorded already stands.
pub(crate) async fn record_missing(client: &impl GenericClient, upto: Lsn) -> Result<(), DatabaseError> {
    client
        .execute("UPDATE isles.node SET whole_upto = least(whole_upto, $1)", &[&PgLsn::from(upto.0)])
        .await
        .doing("recording that the copy lacks a table")?;
    Ok(())
}

/// Records whom the rows are copied from; written before the first row is.
pub(crate) async fn record_following(
    client: &impl GenericClient,
    writer: &RegionName,
    epoch: Epoch,
) -> Result<(), DatabaseError> {
    client
        .execute(
            "UPDATE isles.node SET following = $1, following_epoch = $2, applied = '0/0'",
            &[&writer.as_str(), &stored(epoch)],
        )
        .await
        .doing("recording whom to follow")?;
    Ok(())
}

/// Records that the rows continue as a copy of another writer's, without having been copied.
pub(crate) async fn record_attached(
    client: &impl GenericClient,
    writer: &RegionName,
    epoch: Epoch,
) -> Result<(), DatabaseError> {
    client
        .execute(
            "UPDATE isles.node SET epoch = $2, wrote = false, following = $1, following_epoch = $2,
                    applied = '0/0', carried = ''",
            &[&writer.as_str(), &stored(epoch)],
        )
        .await
        .doing("recording whom to follow")?;
    client
        .execute("WITH gone AS (DELETE FROM isles.source_column) DELETE FROM isles.sequence", &[])
        .await
        .doing("forgetting the last writer's columns")?;
    Ok(())
}

/// Records a promotion and the new lineage.
pub(crate) async fn record_promotion(
    client: &impl GenericClient,
    promotion: &Promotion,
) -> Result<(), DatabaseError> {
    insert_promotion(client, promotion).await?;
    client
        .execute(
            "UPDATE isles.node SET epoch = $1, wrote = true, following = NULL, following_epoch = NULL,
                    applied = $2, whole_upto = NULL",
            &[&stored(promotion.epoch), &PgLsn::from(promotion.applied.0)],
        )
        .await
        .doing("recording the epoch")?;
    Ok(())
}

/// The promotions after an epoch, oldest first: of this database's own history or, over a link, of a peer's.
pub(crate) async fn promotions_after(
    client: &impl GenericClient,
    epoch: Epoch,
) -> Result<Vec<Promotion>, DatabaseError> {
    let rows = client
        .query(
            "SELECT epoch, region, from_region, from_epoch, applied, last_commit, catalogue FROM isles.promotion
             WHERE epoch > $1 ORDER BY epoch",
            &[&stored(epoch)],
        )
        .await
        .doing("reading isles.promotion")?;
    rows.iter()
        .map(|row| {
            let name = |text: &str| {
                text.parse::<RegionName>().map_err(|invalid| DatabaseError::Refused(invalid.to_string()))
            };
            Ok(Promotion {
                epoch: epoch_of(row.get(0)),
                region: name(row.get(1))?,
                from: row.get::<_, Option<&str>>(2).map(name).transpose()?,
                from_epoch: epoch_of(row.get(3)),
                applied: Lsn(row.get::<_, PgLsn>(4).into()),
                last_commit: Lsn(row.get::<_, PgLsn>(5).into()),
                catalogue: row.get(6),
            })
        })
        .collect()
}

/// Copies the promotions that a writer knows of, so that this region can answer for them once it is the writer.
pub(crate) async fn adopt_promotions(
    own: &impl GenericClient,
    known: &[Promotion],
) -> Result<(), DatabaseError> {
    for promotion in known {
        insert_promotion(own, promotion).await?;
    }
    Ok(())
}

async fn insert_promotion(client: &impl GenericClient, promotion: &Promotion) -> Result<(), DatabaseError> {
    client
        .execute(
            "INSERT INTO isles.promotion (epoch, region, from_region, from_epoch, applied, last_commit, catalogue)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (epoch) DO NOTHING",
            &[
                &stored(promotion.epoch),
                &promotion.region.as_str(),
                &promotion.from.as_ref().map(RegionName::as_str),
                &stored(promotion.from_epoch),
                &PgLsn::from(promotion.applied.0),
                &PgLsn::from(promotion.last_commit.0),
                &promotion.catalogue,
            ],
        )
        .await
        .doing("recording a promotion")?;
    Ok(())
}

/// An epoch as PostgreSQL stores it; an epoch past 2^63 cannot come about.
pub(crate) fn stored(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

/// The epoch in a stored number; what is below zero was not written by us and counts as none.
pub(crate) fn epoch_of(stored: i64) -> Epoch {
    Epoch(u64::try_from(stored).unwrap_or(0))
}
