//! The gates in front of a real PostgreSQL: who is led where, who waits, and who is cut off.

mod credentials;
mod failover;
mod world;

use std::{collections::BTreeMap, time::Duration};

use isles_model::Metric;
use isles_postgres::gate::GateLimits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_postgres::NoTls;
use world::{Cluster, PATIENCE, Region, Terms, app, attend, code, connect, name, reader, until};

#[tokio::test]
async fn a_session_is_led_to_the_local_writer_and_large_answers_arrive_whole() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    let client = connect(region.write).await;
    client.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let row = client.query_one("SELECT repeat('x', 20000000), count(*) FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0).len(), row.get::<_, i64>(1)), (20_000_000, 1));
    assert_eq!(region.meter.value(Metric::GateConnections, "write"), 1.0);
    drop(client);
    region.open(0.0).await;
}

#[tokio::test]
async fn a_session_in_a_transaction_is_closed_at_the_deadline_and_told_so() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    let (client, connection) = app(region.write).connect(NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    region.write_here(1, 200);
    region.turn_clock_to(150);
    client.simple_query("BEGIN").await.unwrap();
    region.turn_clock_to(200);
    let ended = timeout(PATIENCE, connection).await.unwrap().unwrap();
    assert_eq!(code(&ended.unwrap_err()), "57P01");
    region.closed("right_lapsed", 1.0).await;
}

#[tokio::test]
async fn a_commit_under_way_at_the_deadline_is_never_acknowledged() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    let client = connect(region.write).await;
    let admin = cluster.admin().await;
    admin.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let insert = tokio::spawn(async move {
        client.execute("INSERT INTO t SELECT 1 FROM (SELECT pg_advisory_xact_lock(7)) AS held", &[]).await
    });
    until("the statement waits for the lock", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        (admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    region.turn_clock_to(100);
    admin.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    let outcome = timeout(PATIENCE, insert).await.unwrap().unwrap();
    assert!(outcome.is_err(), "acknowledged after the deadline: {outcome:?}");
}

#[tokio::test]
async fn a_commit_whose_wait_for_another_region_is_cancelled_is_not_acknowledged() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    let client = connect(region.write).await;
    let admin = cluster.admin().await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let cancel = client.cancel_token();
    let insert = tokio::spawn(async move {
        // The setting comes into force a moment later: until then commits do not wait.
        loop {
            if let Err(error) = client.execute("INSERT INTO t VALUES (1)", &[]).await {
                return error;
            }
        }
    });
    until("a commit waits", async || {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'SyncRep'";
        (admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    // PostgreSQL itself answers this with success.
    cancel.cancel_query(NoTls).await.unwrap();
    let outcome = timeout(PATIENCE, insert).await.unwrap().unwrap();
    assert_eq!(code(&outcome), "40003");
    region.closed("unconfirmed", 1.0).await;
}

#[tokio::test]
async fn a_session_waits_for_a_writer_and_gives_up_with_a_reason() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_nowhere(1);
    let waiting = tokio::spawn({
        let config = app(region.write);
        async move { config.connect(NoTls).await.map(|_| ()) }
    });
    region.open(1.0).await;
    assert!(!waiting.is_finished());
    cluster.expect(2).await;
    region.write_here(2, 100);
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();

    let terms = Terms { hold: Duration::from_millis(50), ..Terms::default() };
    let impatient = Region::start(cluster.socket(), terms).await;
    impatient.write_nowhere(1);
    let Err(refused) = app(impatient.write).connect(NoTls).await else { panic!("let in") };
    assert_eq!(code(&refused), "57P03");
    let told = refused.as_db_error().unwrap().message().to_owned();
    assert_eq!(told, "no region may write (waiting for the last lease to end); held for 0.05 s");
}

/// Two regions on one database: enough for the gates, which never look into it.
async fn writer_and_replica(cluster: &Cluster) -> (Region, Region) {
    let writer = Region::start(cluster.socket(), Terms::default()).await;
    let peers = BTreeMap::from([(name("writer"), writer.peer)]);
    let replica = Region::start("/nowhere".into(), Terms { peers, ..Terms::default() }).await;
    (writer, replica)
}

#[tokio::test]
async fn a_replica_leads_writes_to_the_writer_and_ends_them_when_the_writer_moves() {
    let cluster = Cluster::start().await;
    let (writer, replica) = writer_and_replica(&cluster).await;
    writer.write_here(1, 100);
    replica.write_at("writer", 1);
    let (client, connection) = app(replica.write).connect(NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(writer.meter.value(Metric::GateConnections, "peer"), 1.0);
    replica.write_nowhere(1);
    client.simple_query("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
    replica.write_at("elsewhere", 2);
    let ended = timeout(PATIENCE, connection).await.unwrap().unwrap();
    assert_eq!(code(&ended.unwrap_err()), "57P01");
    replica.closed("writer_moved", 1.0).await;
}

#[tokio::test]
async fn a_peer_that_may_not_write_yet_is_asked_again_and_the_app_notices_nothing() {
    let cluster = Cluster::start().await;
    let (writer, replica) = writer_and_replica(&cluster).await;
    writer.write_nowhere(1);
    replica.write_at("writer", 2);
    let waiting = tokio::spawn({
        let config = app(replica.write);
        async move { config.connect(NoTls).await.map(|_| ()) }
    });
    writer.closed("not_the_writer", 2.0).await;
    cluster.expect(2).await;
    writer.write_here(2, 100);
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_cancel_request_finds_its_statement_through_two_gates() {
    let cluster = Cluster::start().await;
    let (writer, replica) = writer_and_replica(&cluster).await;
    writer.write_here(1, 100);
    replica.write_at("writer", 1);
    for gate in [writer.write, replica.write] {
        let client = connect(gate).await;
        let token = client.cancel_token();
        let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(3600)").await });
        let admin = cluster.admin().await;
        until("the statement runs", async || {
            let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'";
            (admin.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
        })
        .await;
        token.cancel_query(NoTls).await.unwrap();
        let ended = timeout(PATIENCE, sleeping).await.unwrap().unwrap();
        assert_eq!(code(&ended.unwrap_err()), "57014");
    }
}

#[tokio::test]
async fn the_read_gate_needs_no_right_and_says_when_the_database_is_down() {
    let mut cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_nowhere(1);
    let client = attend(reader(region.read).connect(NoTls).await.unwrap());
    client.simple_query("SELECT 1").await.unwrap();
    cluster.stop();
    let Err(refused) = reader(region.read).connect(NoTls).await else { panic!("let in") };
    assert_eq!(code(&refused), "57P03");
    cluster.run().await;
    let client = attend(reader(region.read).connect(NoTls).await.unwrap());
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_role_that_is_not_the_apps_does_not_come_through() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    for (gate, user, expect) in [
        (region.write, "postgres", "28P01"),
        (region.read, "postgres", "28P01"),
        (region.read, "app", "28000"),
        (region.peer, "postgres", "28000"),
    ] {
        let Err(refused) = app(gate).user(user).connect(NoTls).await else { panic!("let in") };
        assert_eq!(code(&refused), expect, "{user}");
    }
}

#[tokio::test]
async fn a_full_gate_says_so_and_takes_sessions_again_when_one_ends() {
    let cluster = Cluster::start().await;
    let limits = GateLimits { sessions: 1, ..GateLimits::default() };
    let region = Region::start(cluster.socket(), Terms { limits, ..Terms::default() }).await;
    region.write_here(1, 100);
    let client = connect(region.write).await;
    let Err(refused) = app(region.write).connect(NoTls).await else { panic!("let in") };
    assert_eq!(code(&refused), "53300");
    drop(client);
    until("a place is free", async || app(region.write).connect(NoTls).await.ok().map(|_| ())).await;
}

#[tokio::test]
async fn a_bounded_number_of_sessions_waits_for_a_writer() {
    let limits = GateLimits { held: 0, ..GateLimits::default() };
    let region = Region::start("/nowhere".into(), Terms { limits, ..Terms::default() }).await;
    let Err(refused) = app(region.write).connect(NoTls).await else { panic!("let in") };
    assert_eq!(code(&refused), "53300");
}

#[tokio::test]
async fn garbage_and_silence_are_hung_up_on() {
    let limits = GateLimits { opening: Duration::from_millis(100), ..GateLimits::default() };
    let region = Region::start("/nowhere".into(), Terms { limits, ..Terms::default() }).await;
    let openings: [&[u8]; 6] = [
        b"",
        b"\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        b"\x16\x03\x01\x02\0",
    ];
    for gate in [region.write, region.read, region.peer] {
        for opening in openings {
            let mut stranger = TcpStream::connect(gate).await.unwrap();
            stranger.write_all(opening).await.unwrap();
            // The end may come as a reset: it comes.
            let _ = timeout(PATIENCE, stranger.read_to_end(&mut Vec::new())).await.expect("hung up");
        }
    }
    region.closed("bad_opening", 18.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_gives_its_place_back() {
    let region = Region::start("/nowhere".into(), Terms::default()).await;
    let connecting = tokio::spawn({
        let config = app(region.write);
        async move { config.connect(NoTls).await.map(|_| ()) }
    });
    region.open(1.0).await;
    connecting.abort();
    region.open(0.0).await;
}
