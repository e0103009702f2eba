//! The agent has died or hangs, PostgreSQL lives: nobody who went round the gate can write once the right has run out.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

mod region;

use std::{sync::Arc, time::Duration};

use isles_model::{Moment, ids::Clock};
use isles_postgres::sentry::{self, Ward};
use region::{PATIENCE, Region, regions};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncWriteExt, BufReader, DuplexStream},
    task::JoinHandle,
    time::timeout,
};

fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap()))
}

/// A sentry at work, and the agent's end of its pipe.
async fn sentry(region: &Region) -> (DuplexStream, JoinHandle<std::io::Result<()>>) {
    let (mut pipe, theirs) = tokio::io::duplex(4_096);
    let clock: Clock = Arc::new(now);
    let guarding = tokio::spawn(async move { sentry::guard(BufReader::new(theirs), clock).await });
    let ward = serde_json::to_string(&Ward::of(&region.cluster.config())).unwrap();
    pipe.write_all(format!("{ward}\n").as_bytes()).await.unwrap();
    (pipe, guarding)
}

async fn say_until(pipe: &mut DuplexStream, until: Moment) {
    pipe.write_all(format!("until {}\n", until.0.as_nanos()).as_bytes()).await.unwrap();
}

/// A writer of epoch 1 with a table, and a session that went round the gate.
async fn writer() -> (Region, tokio_postgres::Client) {
    let mut eu = regions(&["eu"]).await.pop().unwrap();
    eu.write(1).await;
    eu.run("CREATE TABLE item (id int PRIMARY KEY)").await;
    let direct = eu.app().await.unwrap();
    (eu, direct)
}

async fn ended(direct: &tokio_postgres::Client) {
    let closed = async {
        while !direct.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, closed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_leaves_no_direct_session_that_can_write_past_its_right() {
    let (mut eu, direct) = writer().await;
    let (mut pipe, guarding) = sentry(&eu).await;
    let until = now().plus(Duration::from_millis(1_500));
    say_until(&mut pipe, until).await;
    eu.kill_agent().await;
    drop(pipe);
    direct.batch_execute("INSERT INTO item VALUES (1)").await.unwrap();
    ended(&direct).await;
    assert!(now() >= until, "it had the right until then");
    assert!(direct.batch_execute("INSERT INTO item VALUES (2)").await.is_err());
    timeout(PATIENCE, guarding).await.unwrap().unwrap().unwrap();
    assert!(eu.app().await.is_err(), "and nobody comes in any more");
    assert_eq!(eu.value("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'").await, "f");
    assert_eq!(eu.value("SELECT count(*) FROM item").await, "1", "the database itself goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_asked_is_stopped() {
    let (mut eu, direct) = writer().await;
    let (mut pipe, guarding) = sentry(&eu).await;
    let visits = "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'";
    let before: i64 = eu.value(visits).await.parse().unwrap();
    say_until(&mut pipe, now().plus(PATIENCE)).await;
    // It has asked where the server's files are when it has come and gone; the fence and the probe stay.
    let more = format!("SELECT sessions > {before} FROM pg_stat_database WHERE datname = 'postgres'");
    eu.shows(&more, "t").await;
    eu.shows("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'isles sentry'", "0").await;
    eu.kill_agent().await;
    let until = now().plus(Duration::from_millis(500));
    say_until(&mut pipe, until).await;
    let config = eu.cluster.config();
    std::fs::remove_file(config.socket_dir.join(format!(".s.PGSQL.{}", config.port))).unwrap();
    drop(pipe);
    ended(&direct).await;
    timeout(PATIENCE, guarding).await.unwrap().unwrap().unwrap();
    assert!(now() >= until);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_goodbye_or_prolongs_its_right_is_left_alone() {
    let (eu, direct) = writer().await;
    let (mut pipe, guarding) = sentry(&eu).await;
    say_until(&mut pipe, now().plus(Duration::from_millis(400))).await;
    let last = now().plus(Duration::from_millis(1_500));
    while now() < last {
        say_until(&mut pipe, now().plus(Duration::from_millis(400))).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    direct.batch_execute("INSERT INTO item VALUES (1)").await.unwrap();
    pipe.write_all(b"bye\n").await.unwrap();
    timeout(PATIENCE, guarding).await.unwrap().unwrap().unwrap();
    direct.batch_execute("INSERT INTO item VALUES (2)").await.unwrap();

    // One that hangs is stood in for too, and may come back.
    let (mut pipe, guarding) = sentry(&eu).await;
    say_until(&mut pipe, now().plus(Duration::from_millis(300))).await;
    ended(&direct).await;
    pipe.write_all(b"none\n").await.unwrap();
    drop(pipe);
    timeout(PATIENCE, guarding).await.unwrap().unwrap().unwrap();
}
