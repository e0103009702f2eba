//! The table of numbered writes: made through the app's own path on the writer, replicated like any table, counted at
//! the end, and dropped.

use std::{collections::BTreeSet, time::Duration};

use isles_model::RegionName;

use super::{
    error::DrillError,
    ground::{Ground, Place},
    session::{Session, SessionError},
};

/// Its name in the app's database.
pub(super) const NAME: &str = "isles_drill_writes";

/// How long one statement about the table may take.
const STATEMENT_MAX: Duration = Duration::from_secs(20);
/// How long the table may take to reach every replica.
const REPLICATED_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long the rows may take to be the same everywhere.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes the table in the writer's region, or empties the one that an interrupted drill left.
pub(super) async fn make(place: &Place) -> Result<(), DrillError> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {NAME} (number bigint PRIMARY KEY, client integer NOT NULL, \
         region text NOT NULL, at timestamptz NOT NULL DEFAULT now()); DELETE FROM {NAME}"
    );
    as_app(place, "make", &sql).await.map(drop)
}

/// Drops it.
pub(super) async fn discard(place: &Place) -> Result<(), DrillError> {
    as_app(place, "drop", &format!("DROP TABLE IF EXISTS {NAME}")).await.map(drop)
}

/// Writes one row, to be waited for in the other regions.
pub(super) async fn mark(place: &Place, number: u64) -> Result<(), DrillError> {
    as_app(place, "write to", &insert(number, 0, &place.region)).await.map(drop)
}

/// The statement of one numbered write. A region's name has only letters, digits and hyphens.
pub(super) fn insert(number: u64, client: u32, region: &RegionName) -> String {
    format!("INSERT INTO {NAME} (number, client, region) VALUES ({number}, {client}, '{region}')")
}

/// A write that proves the right to write and leaves nothing behind.
pub(super) fn insert_and_roll_back(region: &RegionName) -> String {
    format!("BEGIN; INSERT INTO {NAME} (number, client, region) VALUES (-1, 0, '{region}'); ROLLBACK")
}

/// The numbers that a region's app finds through its write gate: the writer's rows.
pub(super) async fn kept(place: &Place) -> Result<BTreeSet<u64>, DrillError> {
    let rows = as_app(place, "read", &format!("SELECT number FROM {NAME}")).await?;
    Ok(rows.iter().filter_map(|number| number.parse().ok()).collect())
}

/// Waits until every region's reader finds the row with this number.
pub(super) async fn until_replicated(ground: &Ground, number: u64) -> Result<(), DrillError> {
    let sql = format!("SELECT number FROM {NAME} WHERE number = {number}");
    for place in &ground.places {
        let until = tokio::time::Instant::now() + REPLICATED_WAIT_MAX;
        while !as_reader(place, &sql).await.is_ok_and(|rows| rows.len() == 1) {
            if tokio::time::Instant::now() > until {
                return Err(DrillError::NotReplicated {
                    region: place.region.clone(),
                    within: REPLICATED_WAIT_MAX,
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// Waits until every region's reader finds exactly these rows; `false`: they still differ.
pub(super) async fn until_settled(ground: &Ground, kept: &BTreeSet<u64>) -> bool {
    let sql = format!("SELECT number FROM {NAME}");
    let until = tokio::time::Instant::now() + SETTLE_WAIT_MAX;
    for place in &ground.places {
        loop {
            let rows = as_reader(place, &sql).await.unwrap_or_default();
            if rows.iter().filter_map(|number| number.parse().ok()).collect::<BTreeSet<u64>>() == *kept {
                break;
            }
            if tokio::time::Instant::now() > until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    true
}

async fn as_app(place: &Place, doing: &'static str, sql: &str) -> Result<Vec<String>, DrillError> {
    let table = |source| DrillError::Table { doing, region: place.region.clone(), source };
    let session = Session::open(&place.app_through_gate(), STATEMENT_MAX).await.map_err(table)?;
    session.column(sql, STATEMENT_MAX).await.map_err(table)
}

async fn as_reader(place: &Place, sql: &str) -> Result<Vec<String>, SessionError> {
    Session::open(&place.reader_through_gate(), STATEMENT_MAX).await?.column(sql, STATEMENT_MAX).await
}
