//! A database answers but can write nothing, with a real cluster.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod region;

use std::time::Duration;

use isles_model::{DatabaseRole, DatabaseState, Epoch};
use region::{PATIENCE, Region, regions};
use tokio::time::{sleep, timeout};

/// As a full disk does: every write fails, everything else goes on. A disk that is really full is the drill's.
async fn read_only(region: &Region, on: bool) {
    let admin = region.admin().await;
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
    admin.batch_execute(&set).await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_can_write_nothing_is_down_and_lets_nobody_in_until_it_can_again() {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.write(1).await;
    eu.run("CREATE TABLE orders (id bigint PRIMARY KEY)").await;
    let direct = eu.app().await.unwrap();
    read_only(&eu, true).await;
    let down = async {
        // Its right is prolonged, and PostgreSQL is to be told.
        while eu.reports.borrow().state == DatabaseState::Up {
            eu.order_write(1);
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, down).await.unwrap();
    let ended = async {
        while !direct.is_closed() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
    eu.reported(|report| report.role == DatabaseRole::Fenced && report.lineage.wrote).await;
    assert!(eu.app().await.is_err(), "the app's role was let in");
    // A peer that has all of its commits may go on.
    timeout(PATIENCE, eu.commits_end.wait_for(Option::is_some)).await.unwrap().unwrap();
    read_only(&eu, false).await;
    eu.reported(|report| report.role == DatabaseRole::Writer { epoch: Epoch(1) }).await;
    eu.run("INSERT INTO orders VALUES (1)").await;
}
