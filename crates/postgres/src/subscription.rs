//! The replica's end of PostgreSQL's own logical replication: makes the region's subscription, and takes it down
//! without asking a writer that may be dead.
//!
//! It is named for its region, and the connection names no application: so the writer sees the one worker that applies
//! commits under the region's name, and the workers that copy single tables under other names. Only the former's word
//! may count for a commit that waits (see [`crate::standbys`]).

use std::{net::SocketAddr, time::Duration};

use isles_model::{Lsn, RegionName, topology::Commit};
use tokio_postgres::{Client, types::PgLsn};

use crate::{
    bookkeeping,
    error::{DatabaseError, Doing, within},
    link::{ident, literal, subscription_conninfo},
    run::World,
    slots,
};

/// How long making a subscription may take: some round trips, and the writer's open transactions, which the slot
/// waits for.
const CREATE_MAX: Duration = Duration::from_secs(60);
/// How long an apply worker may take to end.
const END_MAX: Duration = Duration::from_secs(5);

/// Whether the rows that are there already are to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A new slot; every table is copied first.
    Copy,
    /// An existing slot that begins exactly where the rows here end.
    Attach,
}

/// Makes the subscription. The statement holds a password, and the session logs none (see [`crate::link`]).
pub(crate) async fn create(
    client: &Client,
    world: &World,
    address: SocketAddr,
    slot: &str,
    start: Start,
) -> Result<(), DatabaseError> {
    let conninfo = conninfo(world, address);
    let copy = start == Start::Copy;
    if copy {
        keep_apart(client, world).await?;
    }
    let statement = format!(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION isles
         WITH (slot_name = {}, create_slot = {copy}, copy_data = {copy}, binary = false, streaming = false,
               synchronous_commit = {})",
        ident(&name(&world.config.region)),
        literal(&conninfo),
        literal(slot),
        flushes(world.config.commit),
    );
    let made = async { client.batch_execute(&statement).await.doing("creating the subscription") };
    within(CREATE_MAX, "creating the subscription", made).await
}

/// Sees to it that the subscription to be made has a number that no other region's has.
///
/// The workers that copy single tables make slots at the writer, named for the numbers of subscription and table and for
/// the cluster's system identifier (PostgreSQL, chapter 31.2.1). Clusters that were made from one copy of a data
/// directory have the same identifier and, made alike, the same numbers: they would take one another's slots away, and
/// neither copy would ever be complete. So each region takes numbers of a remainder of its own.
async fn keep_apart(client: &Client, world: &World) -> Result<(), DatabaseError> {
    let config = &world.config;
    let place = config.peers.keys().filter(|peer| **peer < config.region).count();
    let body = format!(
        "DECLARE number oid; BEGIN LOOP
           CREATE SUBSCRIPTION \"isles place\" CONNECTION '' PUBLICATION isles WITH (connect = false, slot_name = NONE);
           SELECT s.oid INTO number FROM pg_subscription s WHERE s.subname = 'isles place';
           DROP SUBSCRIPTION \"isles place\";
           EXIT WHEN (number::bigint + 1) % {regions} = {place};
         END LOOP; END",
        regions = config.peers.len() + 1,
    );
    let statement =
        format!("SET client_min_messages = error; DO {}; RESET client_min_messages", literal(&body));
    client.batch_execute(&statement).await.doing("choosing the subscription's number")
}

/// Points the subscription at the writer's present address and password, where they are others than it was made with.
/// The statement holds a password, and the session logs none (see [`crate::link`]).
pub(crate) async fn point_at(
    client: &Client,
    world: &World,
    address: SocketAddr,
) -> Result<(), DatabaseError> {
    let conninfo = conninfo(world, address);
    let (name, flushes) = (name(&world.config.region), flushes(world.config.commit));
    let same: bool = client
        .query_one(
            "SELECT bool_and(subconninfo = $1 AND subsynccommit = $2) FROM pg_subscription WHERE subname = $3",
            &[&conninfo, &flushes, &name],
        )
        .await
        .doing("reading the subscription's address")?
        .get(0);
    if same {
        return Ok(());
    }
    let statement = format!(
        "ALTER SUBSCRIPTION {name} CONNECTION {}; ALTER SUBSCRIPTION {name} SET (synchronous_commit = {flushes})",
        literal(&conninfo),
        name = ident(&name),
    );
    client.batch_execute(&statement).await.doing("changing the subscription's address")
}

fn conninfo(world: &World, address: SocketAddr) -> String {
    subscription_conninfo(&world.config.database, address)
}

/// The subscription of a region; the writer sees it as `application_name` of the worker that applies commits.
pub(crate) fn name(region: &RegionName) -> String {
    format!("isles_{}", slots::label(region))
}

/// Whether the rows of the app's database are on disk before the writer hears so. Where a commit waits for that, at
/// once; elsewhere the log writer does it a moment later, which is cheaper. Never `on`: a replica's own worker must
/// not wait for replicas of its own.
fn flushes(commit: Commit) -> &'static str {
    match commit {
        Commit::Async => "off",
        Commit::Bounded(_) | Commit::Remote => "local",
    }
}

/// Says, in a statement on `pg_subscription s`, that it is ours: there is one in a database at most.
pub(crate) const OURS: &str = "s.subname ^@ 'isles_' AND s.subdbid =
     (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Whether there is a subscription.
pub(crate) async fn exists(client: &Client) -> Result<bool, DatabaseError> {
    let row = client
        .query_one(&format!("SELECT EXISTS (SELECT FROM pg_subscription s WHERE {OURS})"), &[])
        .await
        .doing("looking for the subscription")?;
    Ok(row.get(0))
}

/// How much of a writer's log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// Every transaction that ended at or before it.
    pub(crate) upto: Lsn,
    /// None that ended after it.
    pub(crate) last_commit: Lsn,
}

impl Applied {
    /// Whether two copies of one writer's log hold the same transactions.
    pub(crate) fn equals(self, other: Self) -> bool {
        self.last_commit <= other.upto && other.last_commit <= self.upto
    }
}

/// Stops applying and says how much of the writer's log is applied now. The subscription stays, disabled.
pub(crate) async fn stop(client: &Client) -> Result<Applied, DatabaseError> {
    // Because an idle worker looks at its settings only about once a second, it is ended rather than asked; what
    // it reported back before counts, as it had applied all up to there.
    let reported: Option<PgLsn> = client
        .query_opt(
            "SELECT latest_end_lsn FROM pg_stat_subscription WHERE subname ^@ 'isles_' AND relid IS NULL",
            &[],
        )
        .await
        .doing("reading the subscription's progress")?
        .and_then(|row| row.get(0));
    disable(client).await?;
    let ended = async {
        loop {
            let left: i64 = client
                .query_one(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_subscription
                     WHERE subname ^@ 'isles_' AND pid IS NOT NULL",
                    &[],
                )
                .await
                .doing("ending the apply worker")?
                .get(0);
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(END_MAX, "ending the apply worker", ended).await?;
    let row = client
        .query_one(
            "SELECT greatest(o.remote_lsn, n.applied, c.copied, $1::pg_lsn),
                    greatest(o.remote_lsn, n.applied, c.copied)
             FROM pg_subscription s CROSS JOIN isles.node n
             LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid
             CROSS JOIN LATERAL (SELECT max(srsublsn) AS copied FROM pg_subscription_rel WHERE srsubid = s.oid) c
             WHERE s.subname ^@ 'isles_'",
            &[&reported],
        )
        .await
        .doing("reading the applied position")?;
    let lsn = |at: usize| Lsn(row.get::<_, PgLsn>(at).into());
    Ok(Applied { upto: lsn(0), last_commit: lsn(1) })
}

/// The statements that remove a stopped subscription and leave the writer's slot alone; fit for a transaction.
pub(crate) const REMOVE: &str = "DO $$
DECLARE ours text;
BEGIN
  FOR ours IN SELECT subname FROM pg_subscription WHERE subname ^@ 'isles_'
              AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) LOOP
    EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', ours);
    EXECUTE format('DROP SUBSCRIPTION %I', ours);
  END LOOP;
END $$";

/// Stops applying without waiting for the worker to end.
pub(crate) async fn disable(client: &Client) -> Result<(), DatabaseError> {
    alter(client, "DISABLE", "disabling the subscription").await
}

/// Goes on applying.
pub(crate) async fn enable(client: &Client) -> Result<(), DatabaseError> {
    alter(client, "ENABLE", "enabling the subscription").await
}

async fn alter(client: &Client, how: &str, doing: &'static str) -> Result<(), DatabaseError> {
    let row = client
        .query_opt(&format!("SELECT s.subname::text FROM pg_subscription s WHERE {OURS}"), &[])
        .await
        .doing(doing)?;
    let Some(row) = row else { return Ok(()) };
    let statement = format!("ALTER SUBSCRIPTION {} {how}", ident(row.get(0)));
    client.batch_execute(&statement).await.doing(doing)
}

/// Lets the worker that applies look at once at which tables there are to copy; before PostgreSQL 16 an idle one does so
/// once a second. It wakes, like every process of the server, when the configuration is read again.
pub(crate) async fn wake(client: &Client) -> Result<(), DatabaseError> {
    client.batch_execute("SELECT pg_reload_conf()").await.doing("waking the apply worker")
}

/// Whether every table of the subscription is copied and streams; `false` while it has none to speak of yet.
pub(crate) async fn is_whole(client: &Client) -> Result<bool, DatabaseError> {
    let row = client
        .query_one(
            "SELECT coalesce(bool_and(srsubstate = 'r'), true) FROM pg_subscription_rel r
             JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname ^@ 'isles_'",
            &[],
        )
        .await
        .doing("asking whether the copy is complete")?;
    Ok(row.get(0))
}

/// The writer's position up to which its log is applied, as far as is known without stopping the worker.
pub(crate) async fn applied(client: &Client) -> Result<Lsn, DatabaseError> {
    let row = client
        .query_one(
            &format!(
                "SELECT coalesce(greatest(n.applied, o.remote_lsn, w.latest_end_lsn), '0/0')
                 FROM isles.node n
                 LEFT JOIN pg_subscription s ON {OURS}
                 LEFT JOIN pg_stat_subscription w ON w.subid = s.oid AND w.relid IS NULL
                 LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid"
            ),
            &[],
        )
        .await
        .doing("reading the applied position")?;
    Ok(Lsn(row.get::<_, PgLsn>(0).into()))
}

/// Follows what the writer publishes: new tables are copied, gone ones are let go. Says whether anything changed. Up to
/// `alike_upto` no table was missing.
pub(crate) async fn refresh(own: &Client, writer: &Client, alike_upto: Lsn) -> Result<bool, DatabaseError> {
    let theirs: Vec<(String, String)> = pairs(
        &writer
            .query(
                "SELECT schemaname::text, tablename::text FROM pg_publication_tables
                 WHERE pubname = 'isles' ORDER BY 1, 2",
                &[],
            )
            .await
            .doing("reading what the writer publishes")?,
    );
    let ours = pairs(
        &own.query(
            "SELECT n.nspname::text, c.relname::text FROM pg_subscription_rel r
             JOIN pg_subscription s ON s.oid = r.srsubid AND s.subname ^@ 'isles_'
             JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             ORDER BY 1, 2",
            &[],
        )
        .await
        .doing("reading what is subscribed to")?,
    );
    // Both lists are ordered by their servers' collations: compare them as sets.
    let set = |list: &[(String, String)]| list.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    if set(&theirs) == set(&ours) {
        return Ok(false);
    }
    if !set(&theirs).is_subset(&set(&ours)) {
        bookkeeping::record_missing(own, alike_upto).await?;
    }
    let refreshed = async { alter(own, "REFRESH PUBLICATION", "following a changed publication").await };
    within(CREATE_MAX, "following a changed publication", refreshed).await?;
    Ok(true)
}

fn pairs(rows: &[tokio_postgres::Row]) -> Vec<(String, String)> {
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal_when_no_commit_lies_between_them() {
        let applied = |upto, last_commit| Applied { upto: Lsn(upto), last_commit: Lsn(last_commit) };
        assert!(applied(20, 10).equals(applied(12, 10)));
        assert!(!applied(20, 10).equals(applied(9, 8)));
        assert!(!applied(9, 8).equals(applied(20, 10)));
        assert!(applied(12, 11).equals(applied(20, 10)));
    }
}
