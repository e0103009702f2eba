//! What becomes of open sessions when the way to write turns: idle ones go on, the others are told why they end.

#![allow(clippy::unwrap_used, reason = "a world that cannot be set up fails the test")]

use std::time::Duration;

use isles_postgres::gate::Acknowledge;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use crate::world::{Cluster, PATIENCE, Region, Terms, app, attend, code, name, reader, until};

/// Two regions with a database each; the app is in the first, which writes under epoch 1. Each database says its
/// region's name.
struct Pair {
    clusters: [Cluster; 2],
    here: Region,
    there: Region,
}

impl Pair {
    async fn start(hold: Duration) -> Self {
        let clusters = [Cluster::start().await, Cluster::start().await];
        for (cluster, region) in clusters.iter().zip(["here", "there"]) {
            let admin = cluster.admin().await;
            let named = format!(
                "CREATE TABLE region AS SELECT '{region}' AS name; GRANT SELECT ON region TO app, reader"
            );
            admin.batch_execute(&named).await.unwrap();
        }
        clusters[1].expect(2).await;
        let there = Region::start(clusters[1].socket(), Terms::default()).await;
        let peers = [(name("there"), there.peer)].into();
        let here = Region::start(clusters[0].socket(), Terms { peers, hold, ..Terms::default() }).await;
        here.write_here(1, 100);
        there.write_at("here", 1);
        Self { clusters, here, there }
    }

    /// The right to write goes from the first region to the second.
    async fn fail_over(&self) {
        self.here.write_nowhere(1);
        self.clusters[0].end_sessions().await;
        self.there.write_here(2, 100);
        self.here.write_at("there", 2);
    }

    async fn session(&self) -> (Client, JoinHandle<Result<(), Error>>) {
        let (client, connection) = app(self.here.write).connect(NoTls).await.unwrap();
        (client, tokio::spawn(connection))
    }
}

async fn value(client: &Client, sql: &str) -> String {
    let said = timeout(PATIENCE, client.simple_query(sql)).await.unwrap().unwrap();
    let row = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    row.unwrap()
}

const REGION: &str = "SELECT name FROM region";

#[tokio::test]
async fn an_idle_session_goes_on_at_the_new_writer_with_its_statements_and_settings() {
    let pair = Pair::start(PATIENCE).await;
    let (client, _connection) = pair.session().await;
    client.batch_execute("SET statement_timeout = '77s'; SET TIME ZONE 'Asia/Tokyo'").await.unwrap();
    client.execute("SET work_mem = '5MB'", &[]).await.unwrap();
    client.batch_execute("BEGIN; SET LOCAL work_mem = '6MB'; COMMIT").await.unwrap();
    let region = client.prepare(REGION).await.unwrap();
    let echo = client.prepare("SELECT $1::text || name FROM region").await.unwrap();
    drop(client.prepare("SELECT 3").await.unwrap());
    assert_eq!(client.query_one(&region, &[]).await.unwrap().get::<_, &str>(0), "here");
    // By now the dropped statement is closed.
    assert_eq!(value(&client, REGION).await, "here");

    pair.fail_over().await;
    let said = timeout(PATIENCE, client.query_one(&region, &[])).await.unwrap().unwrap();
    assert_eq!(said.get::<_, &str>(0), "there");
    assert_eq!(client.query_one(&echo, &[&"over "]).await.unwrap().get::<_, &str>(0), "over there");
    assert_eq!(value(&client, "SHOW statement_timeout").await, "77s");
    assert_eq!(value(&client, "SHOW timezone").await, "Asia/Tokyo");
    assert_eq!(value(&client, "SHOW work_mem").await, "5MB");
    assert_eq!(value(&client, "SELECT count(*) FROM pg_prepared_statements").await, "2");
    client.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();

    let token = client.cancel_token();
    let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(3600)").await });
    let admin = pair.clusters[1].admin().await;
    until("the statement runs", async || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'";
        (admin.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    token.cancel_query(NoTls).await.unwrap();
    let ended = timeout(PATIENCE, sleeping).await.unwrap().unwrap();
    assert_eq!(code(&ended.unwrap_err()), "57014", "the key given at first still cancels");
}

#[tokio::test]
async fn a_message_of_an_idle_session_waits_for_a_writer_and_not_for_ever() {
    let pair = Pair::start(Duration::from_millis(300)).await;
    let (patient, _connection) = pair.session().await;
    let (impatient, _connection) = pair.session().await;
    pair.here.write_nowhere(1);
    let refused = timeout(PATIENCE, impatient.simple_query("SELECT 1")).await.unwrap().unwrap_err();
    assert_eq!(code(&refused), "57P03");
    assert!(refused.as_db_error().unwrap().message().starts_with("no region may write"));
    pair.here.closed("held_too_long", 1.0).await;
    // The other one asked for nothing meanwhile, and waited for nothing.
    pair.fail_over().await;
    assert_eq!(value(&patient, REGION).await, "there");
}

#[tokio::test]
async fn a_session_with_something_under_way_or_bound_to_its_backend_is_told_why_it_ends() {
    let pair = Pair::start(PATIENCE).await;
    let unknown = "the right to write moved; the outcome of an unanswered statement is unknown";
    let bound =
        |what| format!("the right to write moved; the session could not move with it because of {what}");
    let cases = [
        ("BEGIN", unknown.to_owned()),
        ("LISTEN jobs", bound("LISTEN")),
        ("CREATE TEMP TABLE kept AS SELECT 1", bound("a temporary table")),
        ("SELECT pg_advisory_lock(7)", bound("an advisory lock")),
        ("SELECT set_config('a.b', 'c', false)", bound("set_config")),
        ("BEGIN; SET work_mem = '5MB'; COMMIT", bound("a setting made inside a transaction")),
        ("PREPARE three AS SELECT 3", bound("PREPARE")),
    ];
    let mut sessions = Vec::new();
    for (sql, told) in cases {
        let (client, connection) = pair.session().await;
        client.simple_query(sql).await.unwrap();
        sessions.push((sql, told, client, connection));
    }
    let (client, connection) = pair.session().await;
    let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(3600)").await.map(drop) });
    let admin = pair.clusters[0].admin().await;
    until("the statement runs", async || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'";
        (admin.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    let (freed, _connection) = pair.session().await;
    freed.batch_execute("SELECT pg_advisory_lock(8); LISTEN jobs").await.unwrap();
    freed.batch_execute("DISCARD ALL").await.unwrap();

    pair.fail_over().await;
    for (sql, told, _client, connection) in sessions {
        let ended = timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap_err();
        assert_eq!(code(&ended), "57P01", "{sql}");
        assert_eq!(ended.as_db_error().unwrap().message(), told, "{sql}");
    }
    assert_eq!(code(&timeout(PATIENCE, sleeping).await.unwrap().unwrap().unwrap_err()), "57P01");
    drop(connection);
    assert_eq!(value(&freed, REGION).await, "there", "nothing is left that would bind it");
}

#[tokio::test]
async fn idle_sessions_outlive_their_database_and_never_hear_that_it_ended() {
    let mut pair = Pair::start(PATIENCE).await;
    let (writes, _connection) = pair.session().await;
    let reads = attend(reader(pair.here.read).connect(NoTls).await.unwrap());
    let statement = reads.prepare(REGION).await.unwrap();
    value(&writes, "SELECT 1").await;
    pair.clusters[0].stop();
    pair.clusters[0].run().await;
    assert_eq!(value(&writes, REGION).await, "here");
    let said = timeout(PATIENCE, reads.query_one(&statement, &[])).await.unwrap().unwrap();
    assert_eq!(said.get::<_, &str>(0), "here");
}

#[tokio::test]
async fn an_acknowledgement_is_held_while_it_may_not_pass_and_delivered_when_it_may() {
    let pair = Pair::start(PATIENCE).await;
    let (client, _connection) = pair.session().await;
    client.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
    pair.here.acknowledge.send_replace(Acknowledge::Held);
    let insert = tokio::spawn(async move { client.simple_query("INSERT INTO t VALUES (2)").await.map(drop) });
    let admin = pair.clusters[0].admin().await;
    until("the row is committed", async || {
        let count = admin.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0);
        (count == 2).then_some(())
    })
    .await;
    assert!(!insert.is_finished());
    pair.here.acknowledge.send_replace(Acknowledge::Open);
    timeout(PATIENCE, insert).await.unwrap().unwrap().unwrap();
}
