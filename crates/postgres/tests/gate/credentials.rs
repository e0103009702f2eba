//! Who proves what to whom: the app to the gate, the gate to the database.

use std::process::Command;

use isles_model::{Epoch, EpochSecret};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::world::{Cluster, PASSWORD, PATIENCE, Region, SECRET, Terms, app, code, connect, name, tools};

#[tokio::test]
async fn a_wrong_password_and_an_unknown_role_are_refused_in_postgresqls_own_words() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    for user in ["app", "nobody", "postgres"] {
        let wrong = app(region.write).user(user).password("a guess").connect(NoTls).await;
        let Err(refused) = wrong else { panic!("{user} is let in") };
        assert_eq!(code(&refused), "28P01");
        let said = refused.as_db_error().unwrap();
        assert_eq!(said.message(), format!("password authentication failed for user \"{user}\""));
    }
    region.closed("not_authenticated", 3.0).await;
    connect(region.write).await.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn the_database_takes_the_present_epochs_credential_and_no_other() {
    let cluster = Cluster::start().await;
    cluster.expect(2).await;
    let secret = EpochSecret::new(SECRET);
    for wrong in [PASSWORD, &secret.app_password(Epoch(1)), &secret.app_password(Epoch(3))] {
        let Err(refused) = cluster.past_the_gates(wrong).await else { panic!("let in") };
        assert_eq!(code(&refused), "28P01");
    }
    cluster.past_the_gates(&secret.app_password(Epoch(2))).await.unwrap();
}

#[tokio::test]
async fn a_gate_that_knows_only_an_older_epoch_does_not_get_in_though_the_peer_lets_it_pass() {
    let cluster = Cluster::start().await;
    let writer = Region::start(cluster.socket(), Terms::default()).await;
    let hold = std::time::Duration::from_millis(200);
    let peers = [(name("writer"), writer.peer)].into();
    let behind = Region::start("/nowhere".into(), Terms { peers, hold, ..Terms::default() }).await;
    cluster.expect(2).await;
    writer.write_here(2, 100);
    behind.write_at("writer", 1);
    let Err(refused) = app(behind.write).connect(NoTls).await else { panic!("let in") };
    assert_eq!(code(&refused), "57P03");
    behind.write_at("writer", 2);
    connect(behind.write).await.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
}

/// `psql` is libpq, as most drivers are: another SCRAM than the one in this repository.
#[tokio::test]
async fn psql_gets_in_with_the_right_password_only() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    region.write_here(1, 100);
    let psql = async |password: &'static str, options: &str| {
        let target = format!(
            "host={} port={} user=app dbname=postgres {options}",
            region.write.ip(),
            region.write.port()
        );
        let run = move || {
            let mut psql = Command::new(tools().join("psql"));
            psql.env("PGPASSWORD", password).args(["-XAtc", "SELECT 6 * 7", &target]).output().unwrap()
        };
        let done = tokio::task::spawn_blocking(run).await.unwrap();
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (said, complaint) = psql(PASSWORD, "").await;
    assert_eq!((said.as_str(), complaint.as_str()), ("42\n", ""));
    let (said, _) = psql(PASSWORD, "sslmode=prefer gssencmode=prefer channel_binding=prefer").await;
    assert_eq!(said, "42\n");
    let (said, complaint) = psql("a guess", "").await;
    assert_eq!(said, "");
    assert!(complaint.contains("password authentication failed for user \"app\""), "{complaint}");
    let (said, complaint) = psql(PASSWORD, "channel_binding=require").await;
    assert_eq!(said, "");
    assert!(complaint.contains("channel binding"), "{complaint}");
    let (said, complaint) = psql(PASSWORD, "sslmode=require").await;
    assert_eq!(said, "");
    assert!(complaint.contains("SSL"), "{complaint}");
}

#[tokio::test]
async fn a_login_that_the_databases_own_clock_refuses_is_tried_again_and_the_app_notices_nothing() {
    let cluster = Cluster::start().await;
    let region = Region::start(cluster.socket(), Terms::default()).await;
    // As after a jump of the database's clock past the end that its fence was told.
    let admin = cluster.admin().await;
    admin.batch_execute("ALTER ROLE app VALID UNTIL '2001-01-01'").await.unwrap();
    region.write_here(1, 100);
    let waiting = tokio::spawn({
        let config = app(region.write);
        async move { config.connect(NoTls).await.map(|_| ()) }
    });
    region.open(1.0).await;
    assert!(!waiting.is_finished());
    admin.batch_execute("ALTER ROLE app VALID UNTIL 'infinity'").await.unwrap();
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
}
