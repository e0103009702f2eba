//! When a helm claims the right to write, keeps it, or waits.

use super::*;

#[test]
fn a_helm_that_knows_nothing_fences_and_waits() {
    let decision = Helm::new(config("eu"), 1, at(0)).tick(at(0));
    assert_eq!(decision.because, Because::Starting);
    assert_eq!(decision.plan.writes, Writes::Nowhere { because: Because::Starting });
    assert_eq!(decision.plan.database, DatabaseOrder::Fence { because: Because::Starting });
    assert_eq!(decision.lease, None);
    assert_eq!(decision.next, at(500));
}

#[test]
fn only_the_primary_founds_the_first_epoch() {
    let peers = |a, b| [peer(a, 0, empty()), peer(b, 0, empty()), Fact::Database(empty()), seen(None, 0)];
    let primary = helm("eu", peers("us", "ap")).tick(at(0));
    assert_eq!(primary.because, Because::Claiming);
    let order = primary.lease.unwrap();
    assert_eq!((order.expected, order.value), (Revision(0), held("eu", 1, 1)));
    let other = helm("us", peers("eu", "ap")).tick(at(0));
    assert_eq!((other.because, other.lease), (Because::WaitingForPrimary, None));
}

#[test]
fn the_deadline_counts_from_the_emission_of_the_put() {
    let mut helm = writer();
    let decision = helm.tick(at(40));
    assert_eq!(decision.because, Because::HoldsLease);
    assert_eq!(decision.plan.writes, Writes::Here { epoch: Epoch(1), until: at(1_275) });
    assert_eq!(
        decision.plan.database,
        DatabaseOrder::Write { epoch: Epoch(1), until: at(1_275), commit: CommitOrder::default() }
    );
    assert_eq!(decision.next, at(150), "the renewal is due");
}

#[test]
fn a_renewal_that_is_not_answered_lets_the_right_lapse() {
    let mut helm = writer();
    helm.tick(at(40));
    assert!(helm.tick(at(150)).lease.is_some());
    assert_eq!(helm.tick(at(400)).lease, None, "one at a time");
    assert!(matches!(helm.tick(at(1_274)).plan.writes, Writes::Here { .. }));
    let lapsed = helm.tick(at(1_275)).plan.writes;
    assert!(matches!(lapsed, Writes::Nowhere { .. }), "{lapsed:?}");
}

#[test]
fn a_renewal_whose_answer_was_lost_is_proven_by_the_key() {
    let mut helm = writer();
    let order = helm.tick(at(150)).lease.unwrap();
    feed(&mut helm, 900, [seen(Some(order.value), 2)]);
    let decision = helm.tick(at(900));
    assert_eq!(decision.plan.writes, Writes::Here { epoch: Epoch(1), until: at(150 + 1_275) });
}

#[test]
fn a_claim_whose_answer_was_lost_is_put_again() {
    let mut helm =
        helm("eu", [Fact::Database(empty()), peer("us", 0, empty()), peer("ap", 0, empty()), seen(None, 0)]);
    let order = helm.tick(at(0)).lease.unwrap();
    feed(&mut helm, 600, [seen(Some(order.value), 1)]);
    let decision = helm.tick(at(600));
    assert!(matches!(decision.plan.writes, Writes::Nowhere { .. }));
    let again = decision.lease.unwrap();
    assert_eq!((again.expected, again.value), (Revision(1), held("eu", 1, 2)));
}

#[test]
fn a_late_answer_counts_from_its_own_emission() {
    let mut helm = writer();
    let first = helm.tick(at(150)).lease.unwrap();
    feed(&mut helm, 700, [seen(Some(held("eu", 1, 1)), 1)]);
    let second = helm.tick(at(700)).lease.unwrap();
    assert!(second.value.seq > first.value.seq);
    feed(&mut helm, 750, [stored(first.attempt, 2)]);
    assert_eq!(helm.tick(at(750)).plan.writes, Writes::Here { epoch: Epoch(1), until: at(1_425) });
}

#[test]
fn a_newer_epoch_ends_the_right_at_once() {
    let mut helm = writer();
    helm.tick(at(40));
    feed(&mut helm, 100, [peer("us", 2, empty())]);
    assert!(matches!(helm.tick(at(100)).plan.writes, Writes::Nowhere { .. }));
    feed(&mut helm, 120, [seen(Some(held("us", 2, 1)), 2)]);
    let decision = helm.tick(at(120));
    assert_eq!(decision.because, Because::LeaseElsewhere);
    assert_eq!(decision.plan.writes, Writes::At { region: name("us"), epoch: Epoch(2) });
    assert_eq!(decision.plan.database, DatabaseOrder::Follow { writer: name("us"), epoch: Epoch(2) });
}

#[test]
fn a_lapsed_right_is_claimed_a_whole_ttl_after_its_last_change() {
    let check = |millis, because, claims| {
        let peers = vec![peer("ap", 1, following(50))];
        let decision = verdict("us", following(50), held("eu", 1, 3), peers, millis);
        assert_eq!((decision.because, decision.lease.is_some()), (because, claims), "after {millis} ms");
    };
    check(100, Because::LeaseElsewhere, false);
    check(1_499, Because::WaitingForLeaseEnd, false);
    check(1_500, Because::Claiming, true);
}

#[test]
fn a_candidate_gives_way_to_better_ones_for_a_while() {
    let check = |own, other, millis, because, claims| {
        let peers = vec![peer("us", 1, following(other))];
        let decision = verdict("ap", following(own), held("eu", 1, 3), peers, millis);
        assert_eq!((decision.because, decision.lease.is_some()), (because, claims), "after {millis} ms");
    };
    check(50, 60, 1_500, Because::PeerIsAhead, false);
    check(50, 50, 1_500, Because::PeerIsPreferred, false);
    check(60, 50, 1_500, Because::Claiming, true);
    check(50, 60, 1_899, Because::PeerIsAhead, false);
    check(50, 60, 1_900, Because::Claiming, true);
}

#[test]
fn a_better_candidate_that_has_become_slow_is_given_the_time_it_needs() {
    let mut slow = peer("us", 1, following(60));
    if let Fact::Peer { rtt, .. } = &mut slow {
        *rtt = ms(380);
    }
    let claims =
        |millis| verdict("ap", following(50), held("eu", 1, 3), vec![slow.clone()], millis).lease.is_some();
    assert!(!claims(1_500 + 400 + 299), "380 ms instead of the planned 80");
    assert!(claims(1_500 + 400 + 300));
}

#[test]
fn an_unfit_copy_never_claims() {
    let check = |own, because| {
        let decision = verdict("us", own, held("eu", 2, 3), vec![], 9_000);
        assert_eq!((decision.because, decision.lease), (because, None));
    };
    check(database(replica_of("eu", 2, Copy::Running), 1, false, 9), Because::CopyIncomplete);
    check(database(DatabaseRole::Fenced, 0, false, 0), Because::CopyIncomplete);
    check(database(DatabaseRole::Fenced, 1, true, 9), Because::CopyDiverged);
    check(down(), Because::DatabaseDown);
}

#[test]
fn a_replica_of_an_older_writer_claims_as_the_last_resort() {
    let peers = vec![peer("ap", 2, database(replica_of("eu", 2, Copy::Complete), 2, false, 1))];
    let behind = verdict("us", following(99), held("eu", 2, 3), peers, 1_500);
    assert_eq!((behind.because, behind.lease), (Because::PeerIsAhead, None));
    let alone = verdict("us", following(99), held("eu", 2, 3), vec![], 1_500);
    assert_eq!(alone.lease.unwrap().value, held("us", 3, 1));
}

#[test]
fn without_a_witness_only_the_named_heir_takes_over() {
    let check = |key, because, claims| {
        let facts =
            [Fact::Database(following(5)), seen(Some(key), 7), peer("eu", 1, down()), peer("ap", 1, down())];
        let mut helm = Helm::new(HelmConfig { may_fail_over: false, ..config("us") }, 1, at(0));
        feed(&mut helm, 0, facts);
        let decision = helm.tick(at(9_000));
        assert_eq!((decision.because, decision.lease.is_some()), (because, claims));
    };
    check(held("eu", 1, 3), Because::NoWitness, false);
    check(released("eu", 1, None), Because::NoWitness, false);
    check(released("eu", 1, Some("us")), Because::Claiming, true);
}

#[test]
fn a_last_holder_that_was_never_promoted_is_as_fit_as_before() {
    let own = database(DatabaseRole::Fenced, 1, true, 9);
    let decision = verdict("eu", own.clone(), released("eu", 2, None), vec![], 2_000);
    assert_eq!(decision.lease.unwrap().value, held("eu", 3, 1));
    let decision = verdict("eu", own, released("us", 2, None), vec![], 2_000);
    assert_eq!((decision.because, decision.lease), (Because::CopyDiverged, None));
}

#[test]
fn a_complete_copy_is_not_given_up_for_a_writer_whose_right_has_lapsed() {
    let check = |own, millis, order| {
        let decision = verdict("us", own, held("ap", 2, 3), vec![], millis);
        assert_eq!(decision.plan.database, order, "after {millis} ms");
    };
    let follow = || DatabaseOrder::Follow { writer: name("ap"), epoch: Epoch(2) };
    let fence = |because| DatabaseOrder::Fence { because };
    let of_ap = || database(replica_of("ap", 2, Copy::Complete), 2, false, 9);
    check(following(9), 1_499, follow());
    check(following(9), 1_500, fence(Because::Claiming));
    check(of_ap(), 1_500, follow());
    check(empty(), 1_500, follow());
}

#[test]
fn a_holder_that_claimed_while_its_copy_was_replaced_gives_the_right_back_to_the_last_writer() {
    let lost = || database(replica_of("eu", 1, Copy::Running), 0, false, 3);
    let mut helm =
        helm("us", [Fact::Database(lost()), seen(Some(held("us", 2, 1)), 7), peer("eu", 2, writing(1))]);
    let order = helm.tick(at(0)).lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("eu")) });
    let last = verdict("eu", writing(1), released("us", 2, Some("eu")), vec![peer("us", 2, lost())], 0);
    assert_eq!(last.lease.unwrap().value, held("eu", 3, 1));
}

#[test]
fn an_heir_that_lost_its_copy_is_replaced_by_another() {
    let lost = || database(replica_of("eu", 1, Copy::Running), 0, false, 3);
    let peers = vec![peer("ap", 2, lost()), peer("eu", 2, writing(1))];
    let decision = verdict("us", lost(), released("us", 2, Some("ap")), peers, 0);
    assert_eq!(decision.because, Because::CopyIncomplete);
    assert_eq!(decision.lease.unwrap().value.state, LeaseState::Released { heir: Some(name("eu")) });
}

#[test]
fn a_released_right_goes_to_its_heir_first() {
    let peers = |other| vec![peer(other, 1, following(50)), peer("eu", 1, down())];
    let heir = verdict("ap", following(50), released("eu", 1, Some("ap")), peers("us"), 0);
    assert_eq!(heir.lease.unwrap().value, held("ap", 2, 1));
    let other = verdict("us", following(50), released("eu", 1, Some("ap")), peers("ap"), 0);
    assert_eq!((other.because, other.lease), (Because::PeerIsPreferred, None));
}

#[test]
fn a_restarted_agent_reclaims_its_own_epoch_at_once() {
    let check = |own, because, claims: Option<LeaseKey>| {
        let decision =
            verdict("eu", own, held("eu", 3, 8), vec![peer("us", 3, following(5)), peer("ap", 3, down())], 0);
        assert_eq!((decision.because, decision.lease.map(|order| order.value)), (because, claims));
    };
    check(database(DatabaseRole::Fenced, 3, true, 9), Because::Claiming, Some(held("eu", 3, 9)));
    check(database(DatabaseRole::Fenced, 2, false, 9), Because::Claiming, Some(held("eu", 3, 9)));
    check(database(DatabaseRole::Fenced, 3, false, 9), Because::CopyDiverged, None);
    check(empty(), Because::CopyIncomplete, None);
    check(down(), Because::DatabaseDown, None);
}
