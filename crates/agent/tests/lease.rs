//! The lease key in a real etcd: only one of two puts wins, every change is seen, a dead member is passed over.

#![allow(clippy::unwrap_used)] // Because a test that cannot go on has to fail.

mod etcd;

use std::{net::TcpListener, path::Path, sync::Arc};

use etcd::{Member, PATIENCE, store};
use isles_agent::lease::{Driver, Seen};
use isles_model::{
    AttemptId, Change, Epoch, Fact, LeaseKey, LeaseOrder, LeaseOutcome, LeaseState, OrderRequest, Revision,
    Successor, TransferKind, config::TlsFiles, metric::Uncounted,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn key(holder: &str, epoch: u64, seq: u64) -> LeaseKey {
    LeaseKey {
        epoch: Epoch(epoch),
        holder: holder.parse().unwrap(),
        seq,
        state: LeaseState::Held,
        ttl: std::time::Duration::from_millis(1500),
        successor: Successor::Any,
        unrest: 0,
    }
}

fn stored(outcome: &LeaseOutcome) -> Revision {
    match outcome {
        LeaseOutcome::Stored(revision) => *revision,
        LeaseOutcome::Refused | LeaseOutcome::Unknown => panic!("expected a stored put, got {outcome:?}"),
    }
}

#[tokio::test]
async fn a_put_wins_only_at_the_revision_it_names() {
    let member = Member::start().await;
    let store = member.store();
    assert_eq!(store.read().await.unwrap().lease, Seen { key: None, revision: Revision(0) });

    let first = stored(&store.put(Revision(0), &key("eu-west-1", 1, 0)).await.unwrap());
    let second = store.put(Revision(0), &key("us-east-1", 1, 0)).await.unwrap();
    assert_eq!(second, LeaseOutcome::Refused, "the key exists already");
    assert_eq!(
        store.read().await.unwrap().lease,
        Seen { key: Some(key("eu-west-1", 1, 0)), revision: first }
    );

    let renewed = stored(&store.put(first, &key("eu-west-1", 1, 1)).await.unwrap());
    assert!(renewed > first);
    let stale = store.put(first, &key("us-east-1", 2, 0)).await.unwrap();
    assert_eq!(stale, LeaseOutcome::Refused, "the revision has moved on");
}

#[tokio::test]
async fn of_many_claims_at_one_revision_exactly_one_wins() {
    let member = Member::start().await;
    let regions = ["eu-west-1", "us-east-1", "ap-southeast-1"];
    let mut claims = tokio::task::JoinSet::new();
    for turn in 0..12 {
        let store = member.store();
        claims.spawn(async move { store.put(Revision(0), &key(regions[turn % 3], 1, 0)).await.unwrap() });
    }
    let outcomes = claims.join_all().await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, LeaseOutcome::Stored(_))).count();
    assert_eq!(won, 1, "{outcomes:?}");
}

#[tokio::test]
async fn the_driver_reports_outcomes_and_the_changes_of_others() {
    let member = Member::start().await;
    let (facts, mut seen) = mpsc::channel(64);
    let (orders, orders_seen) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let driver = Driver {
        store: Arc::new(member.store()),
        put_deadline: PATIENCE,
        facts,
        meter: Arc::new(Uncounted),
        clock: isles_agent::clock::clock(),
    };
    let driving = tokio::spawn(driver.run(orders_seen, stop.clone()));

    let order = LeaseOrder { attempt: AttemptId(7), expected: Revision(0), value: key("eu-west-1", 1, 0) };
    orders.send(order).await.unwrap();
    let mut revision = None;
    tokio::time::timeout(PATIENCE, async {
        while revision.is_none() {
            if let Some(Fact::LeaseAnswered { attempt: AttemptId(7), outcome }) = seen.recv().await {
                revision = Some(stored(&outcome));
            }
        }
    })
    .await
    .unwrap();

    let renewal = key("eu-west-1", 1, 1);
    let renewed = stored(&member.store().put(revision.unwrap(), &renewal).await.unwrap());
    let expected = Fact::LeaseSeen { key: Some(renewal), revision: renewed };
    tokio::time::timeout(PATIENCE, async { while seen.recv().await.unwrap() != expected {} }).await.unwrap();
    stop.cancel();
    driving.await.unwrap();
}

#[tokio::test]
async fn a_member_that_is_gone_is_passed_over() {
    let member = Member::start().await;
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = store(&[format!("http://{gone}"), member.url.clone()], None);
    assert!(store.read().await.is_err(), "the first call finds out");
    assert!(store.read().await.is_ok(), "the next one asks the other member");
}

/// An authority and two certificates it signed, as PEM files.
fn certificates(directory: &Path) -> (TlsFiles, [String; 6]) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let signed = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let pem = params.signed_by(&key, &issuer).unwrap().pem();
        (write(&format!("{name}.pem"), pem), write(&format!("{name}.key"), key.serialize_pem()))
    };
    let ca = write("ca.pem", authority_pem);
    let (server, server_key) = signed("server");
    let (client, client_key) = signed("client");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let flags = ["--trusted-ca-file", "--cert-file", "--key-file"].map(str::to_owned);
    let [trust, cert, key] = flags;
    let server_flags = [trust, text(&ca), cert, text(&server), key, text(&server_key)];
    (TlsFiles { ca, cert: Some(client), key: Some(client_key) }, server_flags)
}

#[tokio::test]
async fn a_store_behind_tls_takes_puts_from_a_client_with_a_certificate_only() {
    let directory = tempfile::tempdir().unwrap();
    let (tls, flags) = certificates(directory.path());
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("--client-cert-auth");
    let member = Member::start_with("https", &flags, Some(tls.clone())).await;
    stored(&member.store().put(Revision(0), &key("eu-west-1", 1, 0)).await.unwrap());

    let nameless = store(std::slice::from_ref(&member.url), Some(TlsFiles { cert: None, key: None, ..tls }));
    assert!(nameless.read().await.is_err(), "a client without a certificate is turned away");
}

fn request(change: Change) -> OrderRequest {
    OrderRequest { change, who: "ada".into(), why: "tuesday's drill".into() }
}

#[tokio::test]
async fn an_order_is_applied_once_and_written_down_with_its_author() {
    let member = Member::start().await;
    let store = member.store();
    let by = "eu-west-1".parse().unwrap();
    stored(&store.put(Revision(0), &key("eu-west-1", 4, 0)).await.unwrap());
    let transfer =
        request(Change::Transfer { to: "us-east-1".parse().unwrap(), kind: TransferKind::Switchover });

    let first = store.order(&transfer, &by).await.unwrap();
    assert_eq!(first.entry, Some(1));
    assert_eq!(first.orders.transfer.as_ref().unwrap().from, Epoch(4));
    let again = store.order(&transfer, &by).await.unwrap();
    assert_eq!(again, isles_model::OrdersAnswer { orders: first.orders.clone(), entry: None });
    let on = store.order(&request(Change::Maintenance { on: true }), &by).await.unwrap();
    assert_eq!(on.entry, Some(2));

    let seen = store.read().await.unwrap();
    assert_eq!(seen.orders.unwrap().orders, on.orders);
    assert_eq!(seen.lease.key, Some(key("eu-west-1", 4, 0)), "orders leave the right alone");
    let audit = store.audit(10).await.unwrap();
    assert_eq!(audit.iter().map(|entry| entry.number).collect::<Vec<_>>(), [2, 1], "the newest first");
    assert_eq!((audit[1].who.as_str(), audit[1].epoch), ("ada", Epoch(4)));
    assert_eq!(audit[1].change, transfer.change);
}

#[tokio::test]
async fn of_orders_given_at_once_none_is_lost_and_each_is_written_down() {
    let member = Member::start().await;
    let regions = ["eu-west-1", "us-east-1", "ap-southeast-1"];
    let mut given = tokio::task::JoinSet::new();
    for region in regions {
        let store = member.store();
        given.spawn(async move {
            let region = region.parse().unwrap();
            store.order(&request(Change::Drain { region }), &"eu-west-1".parse().unwrap()).await.unwrap()
        });
    }
    given.join_all().await;
    let store = member.store();
    assert_eq!(store.read().await.unwrap().orders.unwrap().orders.drained.len(), 3);
    let numbers: Vec<u64> = store.audit(10).await.unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [3, 2, 1]);
}

#[tokio::test]
async fn the_driver_reports_orders_beside_the_key() {
    let member = Member::start().await;
    let (facts, mut seen) = mpsc::channel(64);
    let (_orders, orders_seen) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let driver = Driver {
        store: Arc::new(member.store()),
        put_deadline: PATIENCE,
        facts,
        meter: Arc::new(Uncounted),
        clock: isles_agent::clock::clock(),
    };
    let driving = tokio::spawn(driver.run(orders_seen, stop.clone()));
    let drain = request(Change::Drain { region: "us-east-1".parse().unwrap() });
    let after = member.store().order(&drain, &"eu-west-1".parse().unwrap()).await.unwrap().orders;
    let told = async {
        while let Some(fact) = seen.recv().await {
            if matches!(&fact, Fact::Orders { orders, .. } if *orders == after) {
                return;
            }
        }
        panic!("the driver ended");
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    stop.cancel();
    drop(driving);
}
