//! What happens when a writer's database dies with SIGKILL, with real clusters.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod region;

use isles_model::{DatabaseRole, DatabaseState};
use region::{PATIENCE, regions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_dies_says_where_its_commits_end() {
    let mut both = regions(&["eu", "us"]).await;
    let mut us = both.pop().unwrap();
    let mut eu = both.pop().unwrap();
    eu.write(1).await;
    eu.run("CREATE TABLE orders (id bigint PRIMARY KEY)").await;
    us.follow("eu", 1).await;
    us.shows("SELECT count(*) FROM orders", "0").await;
    for id in 0..20 {
        eu.run(&format!("INSERT INTO orders VALUES ({id})")).await;
    }
    eu.cluster.kill();
    let ended = tokio::time::timeout(PATIENCE, eu.commits_end.wait_for(Option::is_some)).await;
    let end = ended.unwrap().unwrap().unwrap();
    // Everything had been sent: the replica reaches that end, and has every row when it does.
    us.reported(|report| report.position >= end).await;
    us.shows("SELECT count(*) FROM orders", "20").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_a_former_writer_is_fenced_until_it_is_ordered_to_write() {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.write(1).await;
    eu.run("CREATE TABLE orders (id bigint PRIMARY KEY)").await;
    // The machine goes, agent and database at once, and both come back; the lease store is asked anew.
    eu.kill_agent().await;
    eu.cluster.kill();
    eu.order_fence(1);
    eu.cluster.launch();
    assert!(eu.cluster.is_ready());
    eu.start_agent();
    let report = eu.reported(|report| report.state == DatabaseState::Up).await;
    assert_eq!((report.role, report.lineage.wrote), (DatabaseRole::Fenced, true));
    eu.shows("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'", "f").await;
    assert!(eu.app().await.is_err(), "the app's role was let in");
    eu.write(1).await;
    eu.run("INSERT INTO orders VALUES (1)").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_died_lets_nobody_in_when_it_comes_back_until_it_is_told_to() {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.write(1).await;
    eu.run("CREATE TABLE orders (id bigint PRIMARY KEY)").await;
    eu.cluster.kill();
    eu.reported(|report| report.state == DatabaseState::Down).await;
    // Its right, as PostgreSQL was told, lasts another hour; and no agent is there to shut the door.
    eu.kill_agent().await;
    eu.cluster.launch();
    assert!(eu.cluster.is_ready());
    assert!(eu.app().await.is_err(), "the app's role was let in");
    eu.start_agent();
    eu.write(1).await;
    eu.run("INSERT INTO orders VALUES (1)").await;
}
