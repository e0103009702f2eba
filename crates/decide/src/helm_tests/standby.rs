//! Whom the key names as its successor, and what commits wait for meanwhile.

use isles_model::Lsn;

use super::*;

fn only(region: &str) -> Successor {
    Successor::Only { region: name(region) }
}

fn waits_for(regions: &[&str]) -> CommitOrder {
    CommitOrder { standbys: regions.iter().map(|region| name(region)).collect(), bound: None }
}

/// The own database: what it waits for since a position, and who has how much.
fn writer_with(required: &[&str], since: u64, confirmed: &[(&str, u64)]) -> Fact {
    let standbys = Standbys {
        required: required.iter().map(|region| name(region)).collect(),
        since: Lsn(since),
        confirmed: confirmed.iter().map(|(region, position)| (name(region), Lsn(*position))).collect(),
    };
    Fact::Database(DatabaseReport { standbys, ..writing(1) })
}

fn remote_writer(commit: Commit) -> Helm {
    let mut helm = Helm::new(HelmConfig { commit, ..config("eu") }, 1, at(0));
    feed(&mut helm, 0, [Fact::Database(empty()), peer("us", 0, empty()), peer("ap", 0, empty())]);
    feed(&mut helm, 0, [seen(None, 0)]);
    let claim = helm.tick(at(0)).lease.unwrap();
    assert_eq!(claim.value.successor, Successor::Nobody, "nobody follows it yet");
    feed(&mut helm, 40, [stored(claim.attempt, 1), writer_with(&[], 0, &[])]);
    helm
}

fn commit(decision: &Decision) -> CommitOrder {
    match &decision.plan.database {
        DatabaseOrder::Write { commit, .. } => commit.clone(),
        other => panic!("{other:?}"),
    }
}

/// A writer whose standby is `us`, with the revision of its key.
fn protected() -> Helm {
    let mut helm = remote_writer(Commit::Remote);
    let confirmed = [("us", 100), ("ap", 90)];
    feed(&mut helm, 50, [peer("us", 1, following(100)), writer_with(&[], 0, &confirmed)]);
    assert_eq!(commit(&helm.tick(at(50))), waits_for(&["us"]));
    feed(&mut helm, 60, [writer_with(&["us"], 100, &confirmed)]);
    let order = helm.tick(at(60)).lease.unwrap();
    feed(&mut helm, 70, [stored(order.attempt, 2)]);
    helm
}

#[test]
fn the_first_standby_is_named_only_when_commits_wait_for_it_and_it_has_all_before() {
    let mut helm = remote_writer(Commit::Remote);
    let decision = helm.tick(at(50));
    assert_eq!((decision.because, commit(&decision)), (Because::Unprotected, waits_for(&[])));
    feed(&mut helm, 60, [peer("us", 1, following(90)), writer_with(&[], 0, &[("us", 90)])]);
    let decision = helm.tick(at(60));
    assert_eq!((commit(&decision), decision.lease), (waits_for(&["us"]), None), "not in force yet");
    feed(&mut helm, 70, [writer_with(&["us"], 95, &[("us", 94)])]);
    assert_eq!(helm.tick(at(70)).lease, None, "94 is not 95");
    feed(&mut helm, 80, [writer_with(&["us"], 95, &[("us", 95)])]);
    assert_eq!(helm.tick(at(80)).lease.unwrap().value.successor, only("us"));
}

#[test]
fn a_lost_standby_is_struck_from_the_key_before_commits_stop_waiting_for_it() {
    let mut helm = protected();
    feed(&mut helm, 80, [Fact::PeerSilent { region: name("us") }, Fact::PeerSilent { region: name("us") }]);
    let decision = helm.tick(at(80));
    let order = decision.lease.clone().unwrap();
    assert_eq!(order.value.successor, Successor::Nobody);
    assert_eq!(commit(&decision), waits_for(&["us"]), "it may still take over");
    feed(&mut helm, 90, [stored(order.attempt, 3)]);
    let decision = helm.tick(at(90));
    assert_eq!((decision.because, commit(&decision)), (Because::Unprotected, waits_for(&[])));
}

#[test]
fn a_standby_of_a_refused_put_is_waited_for_until_the_key_shows_another_or_none() {
    let mut helm = remote_writer(Commit::Remote);
    let confirmed = [("us", 100)];
    feed(&mut helm, 50, [peer("us", 1, following(100)), writer_with(&[], 0, &confirmed)]);
    helm.tick(at(50));
    feed(&mut helm, 55, [writer_with(&["us"], 100, &confirmed)]);
    let order = helm.tick(at(55)).lease.unwrap();
    assert_eq!(order.value.successor, only("us"));
    // Because it was delivered twice, the answer to the second one comes, or one like it was stored before.
    feed(&mut helm, 60, [Fact::LeaseAnswered { attempt: order.attempt, outcome: LeaseOutcome::Refused }]);
    feed(&mut helm, 60, [Fact::PeerSilent { region: name("us") }, Fact::PeerSilent { region: name("us") }]);
    assert_eq!(commit(&helm.tick(at(60))), waits_for(&["us"]), "it may be named");
    let other = LeaseKey { successor: Successor::Nobody, ..held("eu", 1, 3) };
    feed(&mut helm, 70, [seen(Some(other), 3)]);
    assert_eq!(commit(&helm.tick(at(70))), waits_for(&[]), "it is not");
}

#[test]
fn from_one_standby_to_the_next_commits_wait_for_both() {
    let mut helm = protected();
    feed(&mut helm, 80, [Fact::PeerSilent { region: name("us") }, Fact::PeerSilent { region: name("us") }]);
    feed(&mut helm, 80, [peer("ap", 1, following(90))]);
    let decision = helm.tick(at(80));
    assert_eq!((commit(&decision), decision.lease), (waits_for(&["us", "ap"]), None));
    feed(&mut helm, 90, [writer_with(&["us", "ap"], 100, &[("us", 100), ("ap", 100)])]);
    let decision = helm.tick(at(90));
    let order = decision.lease.clone().unwrap();
    assert_eq!((order.value.successor, commit(&decision)), (only("ap"), waits_for(&["us", "ap"])));
    feed(&mut helm, 95, [stored(order.attempt, 3)]);
    assert_eq!(commit(&helm.tick(at(95))), waits_for(&["ap"]));
}

#[test]
fn a_standby_that_confirms_nothing_new_for_a_second_is_given_up() {
    let mut helm = protected();
    let stuck = || [writer_with(&["us"], 100, &[("us", 60)]), peer("us", 1, following(60))];
    feed(&mut helm, 100, stuck());
    helm.tick(at(100));
    feed(&mut helm, 1_000, stuck());
    let renewal = helm.tick(at(1_000)).lease.unwrap();
    assert_eq!(renewal.value.successor, only("us"));
    feed(&mut helm, 1_101, [stored(renewal.attempt, 4)]);
    feed(&mut helm, 1_101, stuck());
    assert_eq!(helm.tick(at(1_101)).lease.unwrap().value.successor, Successor::Nobody);
}

#[test]
fn a_standby_stays_named_while_new_tables_are_copied_to_it_and_none_is_named_meanwhile() {
    let extending = |region| peer(region, 1, database(replica_of("eu", 1, Copy::Extending), 1, false, 80));
    let confirmed = [("us", 100), ("ap", 100)];
    let mut helm = protected();
    feed(
        &mut helm,
        400,
        [extending("us"), peer("ap", 1, following(100)), writer_with(&["us"], 100, &confirmed)],
    );
    let decision = helm.tick(at(400));
    assert_eq!(commit(&decision), waits_for(&["us"]));
    assert_eq!(decision.lease.unwrap().value.successor, only("us"));

    let mut helm = remote_writer(Commit::Remote);
    feed(&mut helm, 50, [extending("us"), extending("ap"), writer_with(&[], 0, &confirmed)]);
    assert_eq!(commit(&helm.tick(at(50))), waits_for(&[]), "older rows of a table may be missing there");
}

#[test]
fn a_standby_takes_over_though_a_new_table_is_still_copied() {
    let key = LeaseKey { successor: only("us"), ..held("eu", 1, 3) };
    let mut helm = Helm::new(HelmConfig { commit: Commit::Remote, ..config("us") }, 1, at(0));
    let own = database(replica_of("eu", 1, Copy::Extending), 1, false, 80);
    feed(&mut helm, 0, [Fact::Database(own), seen(Some(key), 7)]);
    assert_eq!(helm.tick(at(1_500)).because, Because::Claiming);
}

#[test]
fn only_whom_the_key_names_may_take_over() {
    let check = |successor, because, claims| {
        let key = LeaseKey { successor, ..held("eu", 1, 3) };
        let peers = vec![peer("ap", 1, following(99))];
        let mut helm = Helm::new(HelmConfig { commit: Commit::Remote, ..config("us") }, 1, at(0));
        feed(&mut helm, 0, [Fact::Database(following(50)), seen(Some(key), 7)]);
        feed(&mut helm, 0, peers.clone());
        feed(&mut helm, 1_500, peers);
        let decision = helm.tick(at(1_500));
        assert_eq!((decision.because, decision.lease.is_some()), (because, claims));
    };
    check(only("us"), Because::Claiming, true);
    check(only("ap"), Because::NotTheStandby, false);
    check(Successor::Nobody, Because::NotTheStandby, false);
}

#[test]
fn with_a_lost_key_only_the_last_writer_is_known_to_have_every_write() {
    let check = |own, because| {
        let mut helm = Helm::new(HelmConfig { commit: Commit::Remote, ..config("us") }, 1, at(0));
        feed(&mut helm, 0, [Fact::Database(own), seen(None, 0), peer("ap", 1, following(1))]);
        assert_eq!(helm.tick(at(9_000)).because, because);
    };
    check(following(50), Because::NotTheStandby);
    check(database(DatabaseRole::Fenced, 1, true, 50), Because::Claiming);
}

#[test]
fn a_crashed_database_gives_way_to_its_standby_at_once_and_to_no_other() {
    let mut helm = protected();
    feed(&mut helm, 80, [Fact::Database(down()), peer("us", 1, following(50)), peer("ap", 1, following(99))]);
    let order = helm.tick(at(80)).lease.unwrap();
    assert_eq!(order.value.state, LeaseState::Released { heir: Some(name("us")) });
    let mut helm = remote_writer(Commit::Remote);
    feed(&mut helm, 60, [Fact::Database(down()), peer("us", 1, following(100))]);
    let waits = helm.tick(at(60)).lease;
    assert!(waits.is_none_or(|order| order.value.state == LeaseState::Held), "nobody has its writes");
}

#[test]
fn a_bound_goes_with_the_order() {
    let bound = ms(500);
    let mut helm = remote_writer(Commit::Bounded(bound));
    feed(&mut helm, 60, [peer("us", 1, following(90)), writer_with(&[], 0, &[("us", 90)])]);
    assert_eq!(commit(&helm.tick(at(60))), CommitOrder { bound: Some(bound), ..waits_for(&["us"]) });
}
