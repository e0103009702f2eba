//! The lease key in a real etcd: only one of two puts wins, every change is seen, a dead member is passed over.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use isles_agent::lease::{Driver, Etcd, Seen};
use isles_model::{
    AttemptId, Epoch, Fact, LeaseKey, LeaseOrder, LeaseOutcome, LeaseState, Revision, config::EtcdConfig,
    metric::Uncounted,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a passing test does not wait for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// One real etcd member, killed and removed at the end of the test.
struct Member {
    process: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Member {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let free = || format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let (url, peer) = (free(), free());
        let process = Command::new("etcd")
            .args(["--data-dir", data.path().to_str().unwrap(), "--name", "one", "--log-level", "error"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed by `make test`");
        let member = Self { process, url, _data: data };
        let store = member.store();
        tokio::time::timeout(PATIENCE, async {
            while store.read().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("etcd answers");
        member
    }

    fn store(&self) -> Etcd {
        store(std::slice::from_ref(&self.url))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn store(endpoints: &[String]) -> Etcd {
    Etcd::new(&EtcdConfig { endpoints: endpoints.to_vec(), prefix: "/isles/test".into(), tls: None }).unwrap()
}

fn key(holder: &str, epoch: u64, seq: u64) -> LeaseKey {
    LeaseKey { epoch: Epoch(epoch), holder: holder.parse().unwrap(), seq, state: LeaseState::Held }
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
    assert_eq!(store.read().await.unwrap(), Seen { key: None, revision: Revision(0) });

    let first = stored(&store.put(Revision(0), &key("eu-west-1", 1, 0)).await.unwrap());
    let second = store.put(Revision(0), &key("us-east-1", 1, 0)).await.unwrap();
    assert_eq!(second, LeaseOutcome::Refused, "the key exists already");
    assert_eq!(store.read().await.unwrap(), Seen { key: Some(key("eu-west-1", 1, 0)), revision: first });

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
    let store = store(&[format!("http://{gone}"), member.url.clone()]);
    assert!(store.read().await.is_err(), "the first call finds out");
    assert!(store.read().await.is_ok(), "the next one asks the other member");
}
