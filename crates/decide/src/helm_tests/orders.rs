//! What the operator's orders do: drains, maintenance, moves of the right.

use isles_model::{Orders, Transfer, TransferKind};

use super::*;

fn orders(revision: u64, orders: Orders) -> Fact {
    Fact::Orders { orders, revision: Revision(revision) }
}

fn drained(region: &str) -> Orders {
    Orders { drained: [name(region)].into(), ..Orders::default() }
}

fn maintenance() -> Orders {
    Orders { maintenance: true, ..Orders::default() }
}

fn transfer(number: u64, to: &str, kind: TransferKind, from: u64) -> Orders {
    let transfer = Transfer { number, to: name(to), kind, from: Epoch(from) };
    Orders { transfer: Some(transfer), ..Orders::default() }
}

/// What a helm decides that knows these orders, when it saw `key` last `millis` ago.
fn ordered(
    region: &str,
    given: Orders,
    own: DatabaseReport,
    key: LeaseKey,
    peers: Vec<Fact>,
    millis: u64,
) -> Decision {
    let mut helm = helm(region, [Fact::Database(own), seen(Some(key), 7), orders(1, given)]);
    feed(&mut helm, 0, peers.clone());
    feed(&mut helm, millis, peers);
    helm.tick(at(millis))
}

#[test]
fn a_drained_writer_hands_over_to_the_peer_that_has_all_and_follows_it() {
    let mut helm = writer();
    feed(&mut helm, 60, [peer("us", 1, following(99)), orders(1, drained("eu"))]);
    let decision = helm.tick(at(60));
    assert_eq!(decision.plan.writes, Writes::Nowhere { because: Because::HandingOver });
    assert!(decision.plan.draining && helm.report(at(60)).draining);
    feed(&mut helm, 100, [Fact::Database(database(DatabaseRole::Fenced, 1, true, 100))]);
    assert_eq!(helm.tick(at(100)).lease, None, "99 is not 100");
    feed(&mut helm, 140, [peer("us", 1, following(100))]);
    let order = helm.tick(at(140)).lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("us")) });
    feed(&mut helm, 200, [stored(order.attempt, 2), seen(Some(held("us", 2, 1)), 3)]);
    let decision = helm.tick(at(200));
    assert_eq!(decision.plan.database, DatabaseOrder::Follow { writer: name("us"), epoch: Epoch(2) });
}

#[test]
fn a_drained_writer_whom_nobody_can_replace_writes_on_and_says_so() {
    let mut helm = writer();
    feed(&mut helm, 60, [orders(1, drained("eu"))]);
    let decision = helm.tick(at(60));
    assert!(matches!(decision.plan.writes, Writes::Here { .. }));
    assert_eq!(decision.because, Because::NobodyElse);
    assert!(!decision.plan.draining);
}

#[test]
fn a_drained_region_takes_no_right_until_it_is_undrained() {
    let decide = |given| ordered("us", given, following(50), held("eu", 1, 3), vec![], 1_600);
    let barred = decide(drained("us"));
    assert_eq!((barred.because, barred.lease), (Because::Drained, None));
    assert!(decide(Orders::default()).lease.is_some());
}

#[test]
fn in_maintenance_nobody_takes_over_and_the_holder_takes_its_own_right_again() {
    let other = ordered("us", maintenance(), following(50), held("eu", 1, 3), vec![], 60_000);
    assert_eq!((other.because, other.lease), (Because::Maintenance, None));
    let own = database(DatabaseRole::Fenced, 3, true, 9);
    let holder = ordered("eu", maintenance(), own, held("eu", 3, 8), vec![], 60_000);
    assert_eq!(holder.lease.unwrap().value, held("eu", 3, 9));
    let heir = ordered("ap", maintenance(), following(50), released("eu", 1, Some("ap")), vec![], 0);
    assert_eq!(heir.lease.unwrap().value, held("ap", 2, 1));
}

#[test]
fn orders_of_an_older_revision_change_nothing() {
    let mut helm = helm("us", [Fact::Database(following(50)), seen(Some(held("eu", 1, 3)), 7)]);
    feed(&mut helm, 0, [orders(5, drained("us")), orders(4, Orders::default())]);
    assert_eq!(helm.tick(at(9_000)).because, Because::Drained);
    feed(&mut helm, 9_000, [orders(6, Orders::default())]);
    assert!(helm.tick(at(9_000)).lease.is_some());
}

#[test]
fn a_switchover_stands_only_under_its_epoch_and_is_given_up_once() {
    let switchover = |number, from| orders(number, transfer(number, "us", TransferKind::Switchover, from));
    let mut helm = writer();
    feed(&mut helm, 60, [peer("us", 1, following(1)), switchover(1, 7)]);
    assert!(matches!(helm.tick(at(60)).plan.writes, Writes::Here { .. }), "of another epoch");
    feed(&mut helm, 100, [switchover(2, 1)]);
    assert_eq!(helm.tick(at(100)).plan.writes, Writes::Nowhere { because: Because::HandingOver });
    let mut revision = 1;
    for millis in (200..6_000).step_by(100) {
        feed(&mut helm, millis, [peer("us", 1, following(1))]);
        if let Some(order) = helm.tick(at(millis)).lease {
            revision += 1;
            feed(&mut helm, millis, [stored(order.attempt, revision)]);
        }
    }
    assert!(matches!(helm.tick(at(5_990)).plan.writes, Writes::Here { .. }), "it goes on writing");
}

#[test]
fn a_forced_failover_waits_for_the_end_of_the_right_and_for_nothing_else() {
    let forced = || Orders { maintenance: true, ..transfer(1, "ap", TransferKind::Failover, 1) };
    let last = || LeaseKey { successor: Successor::Only { region: name("us") }, ..held("eu", 1, 3) };
    let decide = |region, millis| {
        let other = if region == "ap" { "us" } else { "ap" };
        ordered(region, forced(), following(5), last(), vec![peer(other, 1, following(90))], millis)
    };
    assert_eq!(decide("ap", 1_499).lease, None);
    assert_eq!(decide("ap", 1_500).lease.unwrap().value.holder, name("ap"));
    let other = decide("us", 1_600);
    assert_eq!((other.because, other.lease), (Because::OrderedElsewhere, None));
}

#[test]
fn a_healthy_holder_ignores_a_forced_failover() {
    let mut helm = writer();
    feed(
        &mut helm,
        60,
        [peer("us", 1, following(100)), orders(1, transfer(1, "us", TransferKind::Failover, 1))],
    );
    assert!(matches!(helm.tick(at(60)).plan.writes, Writes::Here { .. }));
}
