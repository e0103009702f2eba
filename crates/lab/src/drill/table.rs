//! The table of numbered writes: made through the app's own path on the writer, replicated like any table, counted at
//! the end, and dropped.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use isles_model::RegionName;
use tokio::time::Instant;

use super::{
    error::DrillError,
    ground::{Ground, Place},
    session::{Session, SessionError},
};

/// How the name of every such table begins.
const PREFIX: &str = "isles_drill_writes_";

/// How long one statement about the table may take.
const STATEMENT_MAX: Duration = Duration::from_secs(20);
/// How long the table may take to reach every replica.
const REPLICATED_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long the rows may take to be the same everywhere.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One drill's table. Its name is its own, so that rows of an earlier drill that a replica has not dropped yet are not
/// taken for this one's.
#[derive(Debug, Clone)]
pub(super) struct Table {
    name: Arc<str>,
}

impl Table {
    /// A name that no earlier drill has used.
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self { name: format!("{PREFIX}{now:x}").into() }
    }

    /// Its name in the app's database.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes it in the writer's region.
    pub(super) async fn make(&self, place: &Place) -> Result<(), DrillError> {
        let sql = format!(
            "CREATE TABLE {} (number bigint PRIMARY KEY, client integer NOT NULL, region text NOT NULL, \
             at timestamptz NOT NULL DEFAULT now())",
            self.name
        );
        as_app(place, "make", &sql).await.map(drop)
    }

    /// Writes one row, to be waited for in the other regions.
    pub(super) async fn mark(&self, place: &Place, number: u64) -> Result<(), DrillError> {
        as_app(place, "write to", &self.insert(number, 0, &place.region)).await.map(drop)
    }

    /// The statement of one numbered write. A region's name has only letters, digits and hyphens.
    pub(super) fn insert(&self, number: u64, client: u32, region: &RegionName) -> String {
        format!("INSERT INTO {} (number, client, region) VALUES ({number}, {client}, '{region}')", self.name)
    }

    /// A write that proves the right to write and leaves nothing behind.
    pub(super) fn insert_and_roll_back(&self, region: &RegionName) -> String {
        let Self { name } = self;
        format!("BEGIN; INSERT INTO {name} (number, client, region) VALUES (-1, 0, '{region}'); ROLLBACK")
    }

    /// The statement of a read.
    pub(super) fn read(&self) -> String {
        format!("SELECT max(number) FROM {}", self.name)
    }

    /// The numbers that a region's app finds through its write gate: the writer's rows.
    pub(super) async fn kept(&self, place: &Place) -> Result<BTreeSet<u64>, DrillError> {
        let sql = format!("SELECT number FROM {}", self.name);
        let until = Instant::now() + STATEMENT_MAX;
        // Because a door may be shut for a moment, with nothing wrong.
        let rows = loop {
            match as_app(place, "read", &sql).await {
                Err(_) if Instant::now() < until => tokio::time::sleep(LOOK_EVERY).await,
                done => break done?,
            }
        };
        Ok(rows.iter().filter_map(|number| number.parse().ok()).collect())
    }

    /// Waits until every region's reader finds the row with this number.
    pub(super) async fn until_replicated(&self, ground: &Ground, number: u64) -> Result<(), DrillError> {
        let sql = format!("SELECT number FROM {} WHERE number = {number}", self.name);
        for place in &ground.places {
            let until = Instant::now() + REPLICATED_WAIT_MAX;
            while !as_reader(place, &sql).await.is_ok_and(|rows| rows.len() == 1) {
                if Instant::now() > until {
                    let region = place.region.clone();
                    return Err(DrillError::NotReplicated { region, within: REPLICATED_WAIT_MAX });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Waits until every region's reader finds exactly these rows; `false`: they still differ.
    pub(super) async fn until_settled(&self, ground: &Ground, kept: &BTreeSet<u64>) -> bool {
        let sql = format!("SELECT number FROM {}", self.name);
        let until = Instant::now() + SETTLE_WAIT_MAX;
        for place in &ground.places {
            loop {
                let rows = as_reader(place, &sql).await.unwrap_or_default();
                if rows.iter().filter_map(|number| number.parse().ok()).collect::<BTreeSet<u64>>() == *kept {
                    break;
                }
                if Instant::now() > until {
                    return false;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        true
    }
}

/// Drops the tables of all drills, interrupted ones included.
pub(super) async fn discard_all(place: &Place) -> Result<(), DrillError> {
    let sql = format!(
        "DO $$ DECLARE one record; BEGIN
           FOR one IN SELECT schemaname, tablename FROM pg_tables
                      WHERE starts_with(tablename, '{PREFIX}') AND tableowner = current_user LOOP
             EXECUTE format('DROP TABLE %I.%I', one.schemaname, one.tablename);
           END LOOP;
         END $$"
    );
    as_app(place, "drop", &sql).await.map(drop)
}

async fn as_app(place: &Place, doing: &'static str, sql: &str) -> Result<Vec<String>, DrillError> {
    let table = |source| DrillError::Table { doing, region: place.region.clone(), source };
    let session = Session::open(&place.app_through_gate(), STATEMENT_MAX).await.map_err(table)?;
    session.column(sql, STATEMENT_MAX).await.map_err(table)
}

async fn as_reader(place: &Place, sql: &str) -> Result<Vec<String>, SessionError> {
    Session::open(&place.reader_through_gate(), STATEMENT_MAX).await?.column(sql, STATEMENT_MAX).await
}
