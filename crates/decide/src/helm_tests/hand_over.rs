//! When a helm gives the right to write back, and whom it lets users be sent to.

use super::*;

fn switchover(number: u64, to: &str) -> Fact {
    ordered(number, to, TransferKind::Switchover, 1)
}

#[test]
fn a_holder_whose_database_is_down_stops_at_once_and_gives_way_after_the_grace() {
    let mut helm = writer();
    feed(
        &mut helm,
        60,
        [Fact::Database(down()), peer("us", 1, following(100)), peer("ap", 1, following(90))],
    );
    let decision = helm.tick(at(60));
    assert_eq!(decision.plan.writes, Writes::Nowhere { because: Because::DatabaseDown });
    assert_eq!(decision.lease, None);
    let renewal = helm.tick(at(200)).lease.unwrap();
    feed(
        &mut helm,
        1_060,
        [stored(renewal.attempt, 2), peer("us", 1, following(100)), peer("ap", 1, following(90))],
    );
    let decision = helm.tick(at(1_060));
    let order = decision.lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("us")) });
    assert!(matches!(decision.plan.writes, Writes::Nowhere { .. }));
    feed(&mut helm, 1_070, [Fact::Database(writing(1))]);
    let before_the_answer = helm.tick(at(1_070));
    assert!(matches!(before_the_answer.plan.writes, Writes::Nowhere { .. }), "the right was withdrawn");
}

#[test]
fn a_crashed_database_gives_way_at_once_to_a_peer_that_has_every_commit() {
    let mut helm = writer();
    feed(&mut helm, 60, [Fact::Database(down()), peer("us", 1, following(99))]);
    assert_eq!(helm.tick(at(60)).lease, None, "nobody knows yet where its commits end");
    feed(&mut helm, 80, [Fact::CommitsEnd { position: Lsn(100) }]);
    assert_eq!(helm.tick(at(80)).lease, None, "99 is not 100");
    feed(&mut helm, 120, [peer("us", 1, following(100))]);
    let order = helm.tick(at(120)).lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("us")) });
}

#[test]
fn where_its_commits_ended_says_nothing_once_a_database_answers_again() {
    let mut helm = writer();
    feed(&mut helm, 60, [Fact::Database(down()), Fact::CommitsEnd { position: Lsn(100) }]);
    feed(&mut helm, 80, [Fact::Database(writing(1)), Fact::CommitsEnd { position: Lsn(100) }]);
    feed(&mut helm, 100, [Fact::Database(down()), peer("us", 1, following(100))]);
    assert_eq!(helm.tick(at(100)).lease, None);
}

#[test]
fn a_holder_without_a_candidate_keeps_its_right_while_its_database_is_down() {
    let mut helm = writer();
    feed(&mut helm, 60, [Fact::Database(down())]);
    let renewal = helm.tick(at(200)).lease.unwrap();
    feed(&mut helm, 210, [stored(renewal.attempt, 2)]);
    let order = helm.tick(at(1_100)).lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Held);
}

#[test]
fn a_stopping_holder_hands_over_once_a_peer_has_all_of_its_log() {
    let mut helm = writer();
    feed(&mut helm, 60, [peer("us", 1, following(99)), Fact::Stopping]);
    let decision = helm.tick(at(60));
    assert!(decision.plan.draining);
    assert_eq!(decision.plan.writes, Writes::Nowhere { because: Because::HandingOver });
    assert_eq!(decision.plan.database, DatabaseOrder::Fence { because: Because::HandingOver });
    assert_eq!(decision.lease, None);
    let fenced = database(DatabaseRole::Fenced, 1, true, 100);
    feed(&mut helm, 100, [Fact::Database(fenced)]);
    assert_eq!(helm.tick(at(100)).lease, None, "99 is not 100");
    feed(&mut helm, 140, [peer("us", 1, following(100))]);
    let decision = helm.tick(at(140));
    let order = decision.lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("us")) });
    let fence = |because| DatabaseOrder::Fence { because };
    assert_eq!(decision.plan.database, fence(Because::HandingOver));
    assert_eq!(helm.tick(at(150)).plan.database, fence(Because::HandingOver), "it is not stored yet");
    feed(&mut helm, 160, [stored(order.attempt, 2)]);
    assert_eq!(helm.tick(at(160)).plan.database, fence(Because::Draining), "the agent may go");
}

#[test]
fn a_stopping_holder_without_a_candidate_may_go_at_once() {
    let mut helm = writer();
    feed(&mut helm, 60, [Fact::Stopping]);
    let decision = helm.tick(at(60));
    assert_eq!(decision.plan.database, DatabaseOrder::Fence { because: Because::Draining });
    assert_eq!(decision.lease, None);
}

#[test]
fn a_writer_hands_over_to_the_region_asked_for_once_it_has_all_writes() {
    let mut helm = writer();
    let peers = |position| [peer("us", 1, following(100)), peer("ap", 1, following(position))];
    feed(&mut helm, 60, peers(90));
    feed(&mut helm, 60, [switchover(1, "ap")]);
    let decision = helm.tick(at(60));
    assert_eq!(decision.plan.writes, Writes::Nowhere { because: Because::HandingOver });
    assert!(!decision.plan.draining, "it goes on reading");
    feed(&mut helm, 80, [Fact::Database(database(DatabaseRole::Fenced, 1, true, 100))]);
    assert_eq!(helm.tick(at(80)).lease, None);
    feed(&mut helm, 120, peers(100));
    let order = helm.tick(at(120)).lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("ap")) });
}

#[test]
fn a_writer_asked_to_hand_over_goes_on_if_the_other_cannot_take_it() {
    let mut helm = writer();
    feed(&mut helm, 50, [peer("ap", 1, database(replica_of("eu", 1, Copy::Running), 0, false, 1))]);
    feed(&mut helm, 60, [switchover(1, "ap"), switchover(2, "us")]);
    assert!(matches!(helm.tick(at(60)).plan.writes, Writes::Here { .. }), "us has no copy");
    feed(&mut helm, 70, [switchover(3, "ap")]);
    assert!(matches!(helm.tick(at(70)).plan.writes, Writes::Here { .. }), "the copy of ap is not complete");
    feed(&mut helm, 80, [peer("ap", 1, following(1))]);
    assert!(matches!(helm.tick(at(80)).plan.writes, Writes::Nowhere { because: Because::HandingOver }));
    feed(&mut helm, 90, [Fact::PeerSilent { region: name("ap") }, Fact::PeerSilent { region: name("ap") }]);
    assert!(matches!(helm.tick(at(90)).plan.writes, Writes::Here { .. }), "ap is gone");
}

#[test]
fn users_go_to_the_nearest_healthy_region_and_to_no_silent_one() {
    let mut helm = writer();
    let lag = Some(Lag { bytes: 9, time: ms(30) });
    feed(&mut helm, 60, [peer("us", 1, DatabaseReport { lag, ..following(90) })]);
    feed(
        &mut helm,
        60,
        [Fact::App(AppReport { healthy: vec![false, true] }), Fact::PeerSilent { region: name("ap") }],
    );
    feed(&mut helm, 60, [Fact::PeerSilent { region: name("ap") }]);
    let plan = helm.tick(at(60)).plan;
    let shown: Vec<_> = plan.serve.iter().map(|s| (s.region.as_str(), s.app, s.reads, s.because)).collect();
    assert_eq!(
        shown,
        [
            ("eu", true, true, Because::Healthy),
            ("us", true, true, Because::Healthy),
            ("ap", false, false, Because::PeerSilent),
        ]
    );
    assert_eq!(plan.instances, [1]);
}

#[test]
fn in_active_passive_only_the_writers_region_serves() {
    let mut helm = Helm::new(HelmConfig { pattern: Pattern::ActivePassive, ..config("us") }, 1, at(0));
    feed(
        &mut helm,
        0,
        [seen(Some(held("eu", 1, 1)), 1), peer("eu", 1, writing(1)), Fact::Database(following(1))],
    );
    feed(&mut helm, 0, [Fact::App(AppReport { healthy: vec![true] })]);
    let serving = helm.tick(at(0)).plan.serve;
    let shown: Vec<_> = serving.iter().map(|s| (s.region.as_str(), s.app, s.reads, s.because)).collect();
    assert_eq!(
        shown,
        [
            ("us", false, false, Because::Standby),
            ("eu", true, true, Because::Healthy),
            ("ap", false, false, Because::PeerSilent),
        ]
    );
}

#[test]
fn a_stale_answer_of_the_store_changes_nothing() {
    let mut helm = writer();
    helm.tick(at(40));
    feed(&mut helm, 50, [seen(None, 0)]);
    feed(&mut helm, 60, [seen(Some(held("eu", 1, 1)), 1)]);
    assert_eq!(helm.tick(at(60)).plan.writes, Writes::Here { epoch: Epoch(1), until: at(1_275) });
    assert_eq!(helm.lease().unwrap().0.epoch, Epoch(1));
}

#[test]
fn a_store_restored_from_a_backup_is_believed_after_a_while() {
    let mut helm = helm("us", [Fact::Database(following(5)), seen(Some(held("eu", 1, 9)), 90)]);
    let older = || [seen(Some(held("eu", 1, 3)), 30)];
    for millis in [100, 2_000, 4_000, 5_099] {
        feed(&mut helm, millis, older());
    }
    assert_eq!(helm.lease().unwrap(), (&held("eu", 1, 9), at(0)));
    feed(&mut helm, 5_100, older());
    assert_eq!(helm.lease().unwrap(), (&held("eu", 1, 3), at(5_100)));
    feed(&mut helm, 6_600, [peer("ap", 1, down())]);
    assert_eq!(helm.tick(at(6_600)).lease.unwrap().expected, Revision(30));
}

#[test]
fn late_answers_before_and_after_a_long_stall_are_no_restored_store() {
    let mut helm = helm("us", [Fact::Database(following(5)), seen(Some(held("eu", 1, 9)), 90)]);
    for millis in [100, 5_700, 5_701] {
        feed(&mut helm, millis, [seen(Some(held("eu", 1, 3)), 30)]);
    }
    assert_eq!(helm.lease().unwrap(), (&held("eu", 1, 9), at(0)));
}

#[test]
fn a_holder_whose_promotion_hangs_gives_way() {
    let mut helm = helm("us", [Fact::Database(following(5)), seen(Some(released("eu", 1, Some("us"))), 7)]);
    let mut order = helm.tick(at(0)).lease.unwrap();
    assert_eq!(order.value, held("us", 2, 1));
    let mut revision = 7;
    for millis in (100..15_000).step_by(100) {
        revision += 1;
        feed(&mut helm, millis, [stored(order.attempt, revision), peer("ap", 2, following(5))]);
        let decision = helm.tick(at(millis + 50));
        assert_eq!(decision.plan.writes, Writes::Nowhere { because: Because::Promoting });
        order = decision.lease.unwrap_or(order);
        assert_eq!(order.value.state, LeaseState::Held);
    }
    feed(&mut helm, 15_000, [stored(order.attempt, revision + 1), peer("ap", 2, following(5))]);
    let decision = helm.tick(at(15_000));
    assert_eq!(decision.because, Because::Promoting);
    assert_eq!(decision.lease.unwrap().value.state, LeaseState::Released { heir: Some(name("ap")) });
}
