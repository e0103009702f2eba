//! A former writer comes back: what it alone held is listed, and it follows without harming the new writer.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod region;

use isles_model::{Copy, DatabaseRole, Epoch};
use isles_postgres::ledger::{self, LoneWrite, WriteKind};
use region::{Region, regions};

const SHOP: &str = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL);
     INSERT INTO item (name) SELECT 'item ' || n FROM generate_series(1, 10) n";

/// Two regions, the second following, and then cut off from the first's changes.
async fn parted() -> (Region, Region) {
    let mut all = regions(&["eu", "us"]).await;
    let (mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap());
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    us.shows("SELECT count(*) FROM item", "10").await;
    us.order_fence(1);
    let admin = us.admin().await;
    // Because the follower's care would enable it again, wait until the fence order has ended that care.
    admin.batch_execute("ALTER SUBSCRIPTION isles_us DISABLE").await.unwrap();
    us.shows("SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL", "0").await;
    (eu, us)
}

fn writes(region: &Region) -> Vec<LoneWrite> {
    ledger::read(&region.ledger()).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_writer_lists_its_lone_writes_and_follows() {
    let (mut eu, mut us) = parted().await;
    eu.run("INSERT INTO item (name) VALUES ('lone')").await;
    eu.run("UPDATE item SET name = 'changed alone' WHERE id = 3; DELETE FROM item WHERE id = 4").await;
    eu.fence(1).await;
    us.write(2).await;
    us.run("INSERT INTO item (name) VALUES ('after')").await;
    eu.follow("us", 2).await;

    let kinds: Vec<_> = writes(&eu).iter().map(|write| (write.epoch, write.kind)).collect();
    let expect = [WriteKind::Insert, WriteKind::Update, WriteKind::Delete].map(|kind| (Epoch(1), kind));
    assert_eq!(kinds, expect);
    let lone = &writes(&eu)[0];
    assert_eq!(lone.table, "public.item");
    assert_eq!(lone.new.as_ref().unwrap()["name"].as_deref(), Some("lone"));
    let all = "SELECT string_agg(id || name, ',' ORDER BY id) FROM item";
    eu.shows(all, &us.value(all).await).await;
    us.run("INSERT INTO item (name) VALUES ('once more')").await;
    eu.shows(all, &us.value(all).await).await;
    assert_eq!(us.value("SELECT count(*) FROM item WHERE name LIKE '%lone'").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_inside_a_former_writer_goes_on_writing_is_stranded_and_listed() {
    let (mut eu, mut us) = parted().await;
    eu.fence(1).await;
    us.write(2).await;
    us.run("INSERT INTO item (name) VALUES ('after')").await;
    // A scheduler of the database's own goes round the gate and needs no role that could be fenced.
    let job = eu.admin().await;
    for n in 0..5 {
        job.batch_execute(&format!("INSERT INTO item (name) VALUES ('job {n}')")).await.unwrap();
    }
    eu.follow("us", 2).await;

    let listed: Vec<_> = writes(&eu).iter().filter_map(|write| write.new.as_ref()?["name"].clone()).collect();
    assert_eq!(listed, ["job 0", "job 1", "job 2", "job 3", "job 4"]);
    let all = "SELECT string_agg(id || name, ',' ORDER BY id) FROM item";
    eu.shows(all, &us.value(all).await).await;
    assert_eq!(us.value("SELECT count(*) FROM item WHERE name LIKE 'job%'").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_writer_with_nothing_of_its_own_leaves_the_ledger_empty() {
    let mut all = regions(&["eu", "us", "ap"]).await;
    let (mut ap, mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap(), all.pop().unwrap());
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    ap.follow("eu", 1).await;
    us.shows("SELECT count(*) FROM item", "10").await;
    ap.shows("SELECT count(*) FROM item", "10").await;
    let database = "SELECT oid FROM pg_database WHERE datname = 'shop'";
    let before = [eu.value(database).await, us.value(database).await, ap.value(database).await];
    eu.fence(1).await;
    us.write(2).await;
    eu.follow("us", 2).await;
    ap.follow("us", 2).await;
    assert!(writes(&eu).is_empty());
    us.run("INSERT INTO item (name) VALUES ('after')").await;
    eu.shows("SELECT count(*) FROM item", "11").await;
    ap.shows("SELECT count(*) FROM item", "11").await;

    // Back again, twice the other way round.
    us.fence(2).await;
    ap.shows("SELECT count(*) FROM item", "11").await;
    ap.write(3).await;
    eu.follow("ap", 3).await;
    us.follow("ap", 3).await;
    ap.run("INSERT INTO item (name) VALUES ('third')").await;
    us.shows("SELECT count(*) FROM item", "12").await;
    eu.shows("SELECT count(*) FROM item", "12").await;
    assert!(writes(&us).is_empty());
    let after = [eu.value(database).await, us.value(database).await, ap.value(database).await];
    assert_eq!(before, after, "no region copied again: all held the same when the writer changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn lone_writes_without_a_slot_are_kept_by_setting_the_database_aside() {
    let (mut eu, mut us) = parted().await;
    eu.run("INSERT INTO item (name) VALUES ('lone')").await;
    eu.fence(1).await;
    us.write(2).await;
    let slots =
        "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE NOT active";
    assert_eq!(eu.value(slots).await, "1");
    eu.follow("us", 2).await;
    assert!(writes(&eu).is_empty());
    assert_eq!(eu.value("SELECT count(*) FROM pg_database WHERE datname = 'shop_alone_e1'").await, "1");
    assert!(eu.findings.list().iter().any(|finding| finding.contains("shop_alone_e1")), "{:?}", eu.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_still_on_its_way_bars_no_takeover_and_its_rows_are_kept() {
    let mut all = regions(&["eu", "us"]).await;
    let (mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap());
    let is = |report: &isles_model::DatabaseReport, wanted: Copy| matches!(report.role, DatabaseRole::Replica { copy, .. } if copy == wanted);
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    us.shows("SELECT count(*) FROM item", "10").await;

    // With no workers to copy tables, a new one stays on its way.
    let admin = us.admin().await;
    let workers = async |count: u8| {
        let set = format!("ALTER SYSTEM SET max_sync_workers_per_subscription = {count}");
        admin.batch_execute(&set).await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    workers(0).await;
    eu.run("CREATE TABLE later (id int PRIMARY KEY)").await;
    eu.run("INSERT INTO later SELECT generate_series(1, 5)").await;
    let extending = us.reported(|report| is(report, Copy::Extending)).await;
    eu.run("INSERT INTO item (name) VALUES ('meanwhile')").await;
    us.shows("SELECT count(*) FROM item", "11").await;
    let later = us.reported(|_| true).await;
    assert_eq!(later.position, extending.position, "it counts as far as it was whole");
    workers(2).await;
    us.reported(|report| is(report, Copy::Complete) && report.position > extending.position).await;
    us.shows("SELECT count(*) FROM later", "5").await;

    workers(0).await;
    eu.run("CREATE TABLE last (id int PRIMARY KEY)").await;
    eu.run("INSERT INTO last SELECT generate_series(1, 7)").await;
    us.reported(|report| is(report, Copy::Extending)).await;
    eu.fence(1).await;
    us.write(2).await;
    us.run("INSERT INTO last VALUES (100)").await;
    eu.follow("us", 2).await;
    eu.shows("SELECT count(*) FROM last", "1").await;
    assert_eq!(eu.value("SELECT count(*) FROM pg_database WHERE datname = 'shop_alone_e1'").await, "1");
    assert!(eu.findings.list().iter().any(|finding| finding.contains("shop_alone_e1")), "{:?}", eu.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_takes_its_own_right_again_keeps_its_replicas() {
    let mut all = regions(&["eu", "us"]).await;
    let (mut us, mut eu) = (all.pop().unwrap(), all.pop().unwrap());
    eu.write(1).await;
    eu.run(SHOP).await;
    us.follow("eu", 1).await;
    let made = "SELECT oid FROM pg_subscription";
    let before = us.value(made).await;
    eu.fence(1).await;
    eu.write(2).await;
    us.follow("eu", 2).await;
    assert_eq!(us.value(made).await, before, "nothing was copied again");
    eu.run("INSERT INTO item (name) VALUES ('after')").await;
    us.shows("SELECT count(*) FROM item", "11").await;
}
