//! Creates the tables and the sample data, once, however many instances in however many regions start at once.

use tokio_postgres::{Client, Transaction};

use crate::{
    Failure,
    database::{Change, Query},
};

/// In order; a version is never changed once it has been released.
const MIGRATIONS: [Migration; 2] = [
    Migration { version: 1, name: "tables", sql: include_str!("../migrations/0001_tables.sql") },
    Migration {
        version: 2,
        name: "sample_products",
        sql: include_str!("../migrations/0002_sample_products.sql"),
    },
];

/// The advisory lock that one migrating instance holds (any constant; this spells "shop").
const MIGRATION_LOCK: i64 = 0x73_68_6f_70;

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

/// Brings the writer's schema up to date. The lock ends with the transaction, so a connection cut in the middle
/// leaves neither half a schema nor a lock.
pub struct Migrate;

impl Change for Migrate {
    /// How many migrations were applied.
    type Outcome = usize;

    async fn make(&self, tx: &Transaction<'_>) -> Result<usize, Failure> {
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
        let known = "SELECT to_regclass('schema_migrations') IS NOT NULL";
        if !tx.query_one(known, &[]).await?.get::<_, bool>(0) {
            tx.batch_execute(
                "CREATE TABLE schema_migrations (
                     version    integer PRIMARY KEY,
                     name       text NOT NULL,
                     applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
        }
        let mut applied = 0;
        for migration in &MIGRATIONS {
            let done = "SELECT 1 FROM schema_migrations WHERE version = $1";
            if tx.query_opt(done, &[&migration.version]).await?.is_none() {
                tx.batch_execute(migration.sql).await?;
                let note = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)";
                tx.execute(note, &[&migration.version, &migration.name]).await?;
                applied += 1;
            }
        }
        Ok(applied)
    }

    fn repeatable(&self) -> bool {
        true
    }
}

/// Whether a copy already holds every migration.
pub struct UpToDate;

impl Query for UpToDate {
    type Answer = bool;

    async fn ask(&self, client: &Client) -> Result<bool, Failure> {
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
        let row = client.query_one("SELECT max(version) FROM schema_migrations", &[]).await?;
        Ok(row.get::<_, Option<i32>>(0) >= newest)
    }
}
