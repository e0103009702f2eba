//! A writer and its replicas on real PostgreSQL: copy, follow, promote, fence.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod region;

use std::time::{Duration, Instant};

use isles_model::{DatabaseRole, DatabaseState, Epoch, Lineage};
use region::regions;

const SHOP: &str = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL);
     INSERT INTO item (name) SELECT 'item ' || n FROM generate_series(1, 100) n";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_copies_follows_and_takes_over_with_its_sequences_moved() {
    let mut all = regions(&["eu", "us"]).await;
    let (mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap());
    assert!(eu.app().await.is_err(), "every database starts fenced");
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    us.shows("SELECT count(*) FROM item", "100").await;
    eu.run("INSERT INTO item (name) VALUES ('later')").await;
    us.shows("SELECT count(*) FROM item", "101").await;
    assert!(us.app().await.is_err(), "the app's role may not log in where it may not write");
    us.reader().await.query_one("SELECT count(*) FROM item", &[]).await.unwrap();
    let lag = us.reported(|report| report.lag.is_some_and(|lag| lag.bytes == 0)).await.lag.unwrap();
    assert!(lag.time < Duration::from_secs(2), "{lag:?}");

    eu.fence(1).await;
    assert!(eu.app().await.is_err());
    let begun = Instant::now();
    us.write(2).await;
    println!("order to writer: {:?}", begun.elapsed());
    us.run("INSERT INTO item (name) VALUES ('after')").await;
    assert!(us.app_of(1).await.is_err(), "the credential of an older epoch");
    assert!(us.app_with(us.app_password()).await.is_err(), "the app's own password opens only the gate");
    assert_eq!(us.value("SELECT id > 101 FROM item WHERE name = 'after'").await, "t");
    assert_eq!(us.reports.borrow().lineage, Lineage { epoch: Epoch(2), wrote: true });
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_made_from_one_data_directory_copy_side_by_side() {
    let mut all = regions(&["ap", "eu", "us"]).await;
    let (mut us, mut eu, mut ap) = (all.pop().unwrap(), all.pop().unwrap(), all.pop().unwrap());
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(us.value(identifier).await, ap.value(identifier).await, "else this shows nothing");
    eu.write(1).await;
    eu.run(SHOP).await;
    tokio::join!(us.follow("eu", 1), ap.follow("eu", 1));
    us.shows("SELECT count(*) FROM item", "100").await;
    ap.shows("SELECT count(*) FROM item", "100").await;
    // The slots that copy single tables are named for these numbers: they can never be the same.
    let place = "SELECT oid::bigint % 3 FROM pg_subscription";
    assert_eq!((ap.value(place).await.as_str(), us.value(place).await.as_str()), ("0", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_runs_out_is_fenced_without_being_told() {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.order_write_for(1, Duration::from_secs(5));
    eu.reported(|report| report.role == DatabaseRole::Writer { epoch: Epoch(1) }).await;
    let app = eu.app().await.unwrap();
    app.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    eu.reported(|report| report.role == DatabaseRole::Fenced).await;
    assert!(eu.app().await.is_err());
    assert!(app.batch_execute("INSERT INTO t VALUES (1)").await.is_err(), "the open session was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_region_finds_its_door_shut_before_its_agent_is_back() {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.order_write_for(1, Duration::from_secs(5));
    eu.reported(|report| report.role == DatabaseRole::Writer { epoch: Epoch(1) }).await;
    // The right is renewed: the door's end in PostgreSQL moves on with it.
    eu.order_write_for(1, Duration::from_secs(8));
    eu.shows(
        "SELECT rolvaliduntil > now() + interval '5.5 seconds' FROM pg_roles WHERE rolname = 'app'",
        "t",
    )
    .await;
    assert!(eu.app().await.is_ok());
    eu.kill_agent().await;
    eu.cluster.kill();
    eu.cluster.launch();
    assert!(eu.cluster.is_ready());
    eu.shows("SELECT rolvaliduntil < now() FROM pg_roles WHERE rolname = 'app'", "t").await;
    let refused = eu.app().await.map(drop).unwrap_err();
    assert!(refused.as_db_error().is_some(), "{refused:?}");
    assert_eq!(eu.value("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'").await, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_is_reported_down_and_then_back() {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.write(1).await;
    eu.cluster.kill();
    eu.reported(|report| report.state == DatabaseState::Down).await;
    eu.cluster.launch();
    assert!(eu.cluster.is_ready());
    eu.reported(|report| {
        report.role == DatabaseRole::Writer { epoch: Epoch(1) } && report.state == DatabaseState::Up
    })
    .await;
}
