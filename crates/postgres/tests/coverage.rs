//! A table that a standby lacks protects nobody's rows: its acknowledgements wait, on real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod region;

use std::time::{Duration, Instant};

use region::{PATIENCE, Region, name, regions};
use tokio::time::timeout;
use tokio_postgres::Client;

const SHOP: &str = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL)";

/// Long enough for an answer that is not held, even on a busy machine.
const WHILE: Duration = Duration::from_millis(700);

/// A writer whose commits wait for the replica, and that replica.
async fn protected() -> (Region, Region) {
    let mut all = regions(&["eu", "us"]).await;
    let (mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap());
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    eu.order_write_waiting(1, &["us"]);
    eu.reported(|report| report.standbys.required.contains(&name("us"))).await;
    (eu, us)
}

async fn acknowledged(app: &Client, sql: &str) {
    let begun = Instant::now();
    timeout(PATIENCE, app.batch_execute(sql)).await.expect("an acknowledgement").unwrap();
    println!("{:?} for {}", begun.elapsed(), &sql[..sql.len().min(60)]);
}

/// Waits until an answer is held.
async fn held(app: &Client) {
    let deadline = Instant::now() + PATIENCE;
    while timeout(WHILE, app.batch_execute("SELECT 1")).await.is_ok() {
        assert!(Instant::now() < deadline, "nothing is held");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_into_a_table_made_right_before_is_acknowledged_only_when_the_standby_has_it() {
    let (mut eu, us) = protected().await;
    let (gate, _open) = eu.gates(1).await;
    let app = eu.through(gate).await;
    let rows = async |table: &str| us.value(&format!("SELECT count(*) FROM {table}")).await;

    acknowledged(&app, "CREATE TABLE plain (id int PRIMARY KEY)").await;
    let ready = "SELECT srsubstate FROM pg_subscription_rel WHERE srrelid = 'plain'::regclass";
    assert_eq!(us.value(ready).await, "r");
    acknowledged(&app, "INSERT INTO plain VALUES (1)").await;
    assert_eq!(rows("plain").await, "1");

    acknowledged(
        &app,
        "BEGIN; CREATE TABLE block (id int PRIMARY KEY); INSERT INTO block VALUES (1); COMMIT",
    )
    .await;
    assert_eq!(rows("block").await, "1");
    acknowledged(&app, "BEGIN").await;
    acknowledged(&app, "CREATE TABLE steps (id int PRIMARY KEY)").await;
    acknowledged(&app, "INSERT INTO steps VALUES (1)").await;
    acknowledged(&app, "COMMIT").await;
    assert_eq!(rows("steps").await, "1");
    acknowledged(&app, "CREATE TABLE filled AS SELECT * FROM generate_series(1, 5) n").await;
    assert_eq!(rows("filled").await, "5");
    acknowledged(
        &app,
        "DROP TABLE plain; CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (2)",
    )
    .await;
    assert_eq!(us.value("SELECT string_agg(id::text, ',') FROM plain").await, "2");
    acknowledged(&app, "CREATE TEMPORARY TABLE own (id int)").await;

    eu.order_write_bounded(1, &["us"], Some(Duration::from_secs(5)));
    eu.reported(|report| report.standbys.required.contains(&name("us"))).await;
    acknowledged(&app, "CREATE TABLE bounded (id int PRIMARY KEY); INSERT INTO bounded VALUES (1)").await;
    assert_eq!(rows("bounded").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_table_that_no_region_is_named_for_and_who_waits_is_let_go_when_none_is() {
    let (eu, mut us) = protected().await;
    let (gate, _open) = eu.gates(1).await;
    let (app, other) = (eu.through(gate).await, eu.through(gate).await);
    // Rows are applied and confirmed, and no schema is carried.
    us.kill_agent().await;
    acknowledged(&app, "INSERT INTO item (name) VALUES ('before')").await;
    let made = tokio::spawn(async move {
        app.batch_execute("CREATE TABLE held (id int PRIMARY KEY)").await.unwrap();
        app
    });
    held(&other).await;
    assert!(!made.is_finished(), "the standby lacks the table");

    eu.order_write_waiting(1, &[]);
    let app = timeout(PATIENCE, made).await.unwrap().unwrap();
    acknowledged(&app, "INSERT INTO held VALUES (1); CREATE TABLE free (id int PRIMARY KEY)").await;
    acknowledged(&other, "SELECT 1").await;

    // A region that is named lacks it still; and a table that no gate saw being made is found.
    eu.order_write_waiting(1, &["us"]);
    held(&other).await;
    us.start_agent();
    us.order_follow("eu", 1);
    acknowledged(&app, "INSERT INTO held VALUES (2)").await;
    assert_eq!(us.value("SELECT count(*) FROM held").await, "2");
    acknowledged(
        &app,
        "CREATE FUNCTION hide() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE hidden (id int); RETURN 1; END $$",
    )
    .await;
    us.kill_agent().await;
    acknowledged(&app, "SELECT hide()").await;
    held(&other).await;
    us.start_agent();
    acknowledged(&app, "INSERT INTO hidden VALUES (1)").await;
    assert_eq!(us.value("SELECT count(*) FROM hidden").await, "1");
}
