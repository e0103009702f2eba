//! Commits that wait for other regions, on real PostgreSQL: in force when it is said to be, never let go unconfirmed.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod region;

use std::time::Duration;

use isles_model::DatabaseRole;
use region::{Region, name, regions};

const SHOP: &str = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL)";

/// Long enough for a commit that does not wait, even on a busy machine.
const WHILE: Duration = Duration::from_millis(700);

/// A writer whose commits wait for the replica, and that replica.
async fn protected() -> (Region, Region) {
    let mut all = regions(&["eu", "us"]).await;
    let (mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap());
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    assert!(eu.reports.borrow().standbys.required.is_empty());
    eu.order_write_waiting(1, &["us"]);
    let report = eu.reported(|report| report.standbys.required.contains(&name("us"))).await;
    assert!(report.standbys.since.0 > 0);
    (eu, us)
}

/// Keeps the replica from applying, and so from confirming, while the session returned is open.
async fn silence(replica: &Region) -> tokio_postgres::Client {
    let admin = replica.admin().await;
    admin.batch_execute("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE").await.unwrap();
    admin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_until_the_named_region_has_it() {
    let (mut eu, us) = protected().await;
    eu.run("INSERT INTO item (name) VALUES ('protected')").await;
    assert_eq!(us.value("SELECT count(*) FROM item").await, "1", "it is there when it is acknowledged");
    let end: i64 = eu.value("SELECT pg_current_wal_lsn() - '0/0'").await.parse().unwrap();
    eu.reported(|report| {
        report.standbys.confirmed.get(&name("us")).is_some_and(|lsn| i64::try_from(lsn.0).unwrap() >= end)
    })
    .await;

    let _lock = silence(&us).await;
    let app = eu.app().await.unwrap();
    let insert =
        tokio::spawn(async move { app.batch_execute("INSERT INTO item (name) VALUES ('alone')").await });
    eu.shows("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'app'", "1")
        .await;
    tokio::time::sleep(WHILE).await;
    assert!(!insert.is_finished(), "nobody has confirmed it");

    // The right is lost meanwhile: whoever waits is ended and learns of no success.
    eu.fence(1).await;
    assert!(insert.await.unwrap().is_err(), "an unconfirmed commit was acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_left_behind_let_nobody_hang_when_the_region_writes_again() {
    let (mut eu, mut us) = protected().await;
    eu.fence(1).await;
    assert_eq!(
        eu.value("SHOW synchronous_standby_names").await,
        "FIRST 1 (isles_us)",
        "only an order changes it"
    );
    us.write(2).await;
    eu.follow("us", 2).await;
    assert_eq!(eu.value("SHOW synchronous_standby_names").await, "");
    us.run("INSERT INTO item (name) VALUES ('from us')").await;
    us.fence(2).await;
    // As after a crash: the setting is there, and nobody follows.
    let admin = eu.admin().await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (isles_us)'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    eu.shows("SHOW synchronous_standby_names", "FIRST 1 (isles_us)").await;
    eu.write(3).await;
    eu.run("INSERT INTO item (name) VALUES ('from eu')").await;
    assert_eq!(eu.value("SELECT count(*) FROM item").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_is_taken_off_by_order_and_a_change_made_by_hand_is_noticed() {
    let (mut eu, us) = protected().await;
    let admin = eu.admin().await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = ''").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    eu.shows("SHOW synchronous_standby_names", "FIRST 1 (isles_us)").await;
    eu.reported(|report| report.standbys.required.contains(&name("us"))).await;

    let _lock = silence(&us).await;
    let app = eu.app().await.unwrap();
    let insert =
        tokio::spawn(async move { app.batch_execute("INSERT INTO item (name) VALUES ('one')").await });
    eu.shows("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'app'", "1")
        .await;
    eu.order_write_waiting(1, &[]);
    eu.reported(|report| report.standbys.required.is_empty()).await;
    insert.await.unwrap().unwrap();
    assert!(matches!(eu.reports.borrow().role, DatabaseRole::Writer { .. }));
}
