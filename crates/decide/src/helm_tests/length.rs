//! How long the right lasts: by the key's own TTL, longer in unrest, and by promise while the store is silent.

use isles_model::PromiseRequest;

use super::*;

fn lasting(millis: u64, key: LeaseKey) -> LeaseKey {
    LeaseKey { ttl: ms(millis), ..key }
}

#[test]
fn observers_count_the_ttl_of_the_key() {
    let check = |ttl, millis, claims| {
        let decision = verdict("us", following(50), lasting(ttl, held("eu", 1, 3)), vec![], millis);
        assert_eq!(decision.lease.is_some(), claims, "{ttl} ms after {millis} ms");
    };
    check(3_000, 2_999, false);
    check(3_000, 3_000, true);
    check(1_000, 1_000, true);
}

#[test]
fn a_shorter_ttl_counts_from_the_emission_of_the_put() {
    let mut helm = helm("eu", [Fact::Database(writing(1)), seen(Some(lasting(9_000, held("eu", 1, 3))), 7)]);
    feed(&mut helm, 0, [peer("us", 1, following(1)), peer("ap", 1, following(1))]);
    let claim = helm.tick(at(0)).lease.unwrap();
    assert_eq!(claim.value.ttl, ms(TTL_MS), "a restart brought a shorter one");
    feed(&mut helm, 100, [stored(claim.attempt, 8)]);
    assert_eq!(helm.tick(at(100)).plan.writes, Writes::Here { epoch: Epoch(1), until: at(1_275) });
}

#[test]
fn a_right_in_unrest_lasts_twice_as_long_until_ten_quiet_minutes_have_passed() {
    let restless = LeaseKey { unrest: 2, ..held("eu", 1, 3) };
    let peers = vec![peer("ap", 1, following(1))];
    let mut helm = helm("us", [Fact::Database(following(50)), seen(Some(restless), 7)]);
    feed(&mut helm, 1_500, peers);
    let claim = helm.tick(at(1_500)).lease.unwrap();
    assert_eq!((claim.value.unrest, claim.value.ttl), (2, ms(2 * TTL_MS)));
    feed(&mut helm, 1_500, [stored(claim.attempt, 8), Fact::Database(writing(2))]);
    let mut revision = 8;
    for millis in (1_600..610_000).step_by(500) {
        if let Some(order) = helm.tick(at(millis)).lease {
            let quiet = millis >= 601_500;
            let expected = if quiet { (0, ms(TTL_MS)) } else { (2, ms(2 * TTL_MS)) };
            assert_eq!((order.value.unrest, order.value.ttl), expected, "after {millis} ms");
            if quiet && let Writes::Here { until, .. } = helm.tick(at(millis)).plan.writes {
                assert!(until <= at(millis + 1_275), "a shorter TTL counts from the emission of its put");
            }
            revision += 1;
            feed(&mut helm, millis, [stored(order.attempt, revision), Fact::Database(writing(2))]);
        }
    }
    assert!(revision > 1_000);
}

fn failsafe(region: &str) -> HelmConfig {
    HelmConfig { failsafe: true, ..config(region) }
}

fn failsafe_writer() -> Helm {
    let mut helm = Helm::new(failsafe("eu"), 1, at(0));
    feed(&mut helm, 0, [Fact::Database(empty()), peer("us", 0, empty()), peer("ap", 0, empty())]);
    feed(&mut helm, 0, [seen(None, 0)]);
    let claim = helm.tick(at(0)).lease.unwrap();
    feed(&mut helm, 40, [stored(claim.attempt, 1), Fact::Database(writing(1))]);
    helm
}

fn promised(region: &str, asked_at: Moment) -> Fact {
    Fact::Promised { region: name(region), epoch: Epoch(1), asked_at }
}

#[test]
fn a_holder_without_the_store_goes_on_by_the_promise_of_all_and_not_of_some() {
    let check = |from: &[&str], writes_on| {
        let mut helm = failsafe_writer();
        helm.tick(at(150));
        let ask = helm.tick(at(450)).ask.unwrap();
        assert_eq!((ask.asked_at, ask.ttl, ask.epoch), (at(450), ms(TTL_MS), Epoch(1)));
        feed(&mut helm, 500, from.iter().map(|region| promised(region, ask.asked_at)));
        helm.tick(at(500));
        let decision = helm.tick(at(1_300));
        let until = at(450 + 1_275);
        let here = decision.plan.writes == Writes::Here { epoch: Epoch(1), until };
        assert_eq!(here, writes_on, "{from:?}: {:?}", decision.plan.writes);
        assert_eq!(decision.because == Because::HoldsByPromise, writes_on);
    };
    check(&["us", "ap"], true);
    check(&["us"], false);
    check(&[], false);
}

#[test]
fn a_promise_lasts_no_longer_than_was_asked_for_though_the_key_does() {
    let mut helm = failsafe_writer();
    helm.tick(at(150));
    let ask = helm.tick(at(450)).ask.unwrap();
    assert_eq!(ask.ttl, ms(TTL_MS));
    // A put whose answer was lost has been stored: the key lasts twice as long now.
    feed(&mut helm, 500, [seen(Some(lasting(2 * TTL_MS, held("eu", 1, 2))), 2)]);
    feed(&mut helm, 500, ["us", "ap"].map(|region| promised(region, ask.asked_at)));
    helm.tick(at(500));
    let writes = helm.tick(at(1_400)).plan.writes;
    assert!(matches!(writes, Writes::Here { until, .. } if until == at(450 + 1_275)), "{writes:?}");
    let writes = helm.tick(at(1_725)).plan.writes;
    assert!(matches!(writes, Writes::Nowhere { .. }), "{writes:?}");
}

fn request(epoch: u64, millis: u64) -> PromiseRequest {
    PromiseRequest { holder: name("eu"), epoch: Epoch(epoch), ttl: ms(TTL_MS), asked_at: at(millis) }
}

fn asked(helm: &mut Helm, millis: u64, request: &PromiseRequest) -> bool {
    feed(helm, millis, [Fact::PromiseAsked(request.clone())]);
    assert_eq!(helm.promised(request), helm.answer(request) == PromiseAnswer::Promised);
    helm.promised(request)
}

fn refusal(helm: &Helm, request: &PromiseRequest) -> Option<NoPromise> {
    match helm.answer(request) {
        PromiseAnswer::Promised => None,
        PromiseAnswer::Refused { because } => Some(because),
    }
}

#[test]
fn whoever_promised_claims_only_after_the_promise() {
    let mut helm = Helm::new(failsafe("us"), 1, at(0));
    feed(&mut helm, 0, [Fact::Database(following(50)), seen(Some(held("eu", 1, 3)), 7)]);
    assert!(asked(&mut helm, 1_000, &request(1, 0)));
    let peers = || [peer("ap", 1, following(1))];
    feed(&mut helm, 2_400, peers());
    let decision = helm.tick(at(2_400));
    assert_eq!((decision.because, decision.lease), (Because::Promised, None));
    assert_eq!(decision.plan.writes, Writes::At { region: name("eu"), epoch: Epoch(1) });
    feed(&mut helm, 2_500, peers());
    let claim = helm.tick(at(2_500)).lease;
    assert!(claim.is_some());
    assert!(!asked(&mut helm, 2_510, &request(1, 1)), "its claim is under way");
    assert_eq!(refusal(&helm, &request(1, 1)), Some(NoPromise::Claims));
}

#[test]
fn nobody_promises_to_a_holder_that_it_knows_to_be_superseded() {
    let mut helm = Helm::new(failsafe("us"), 1, at(0));
    feed(&mut helm, 0, [Fact::Database(following(50)), seen(Some(held("ap", 2, 3)), 7)]);
    assert!(!asked(&mut helm, 10, &request(1, 0)));
    assert!(!asked(&mut helm, 10, &request(2, 0)), "ap holds it");
    assert_eq!(refusal(&helm, &request(2, 0)), Some(NoPromise::NotTheHolder));
    let own = PromiseRequest { holder: name("us"), ..request(2, 0) };
    assert!(!asked(&mut helm, 10, &own));
    assert_eq!(refusal(&helm, &own), Some(NoPromise::NotAPeer));
    let long = PromiseRequest { holder: name("ap"), ttl: ms(120_001), ..request(2, 0) };
    assert!(!asked(&mut helm, 10, &long));
    assert_eq!(refusal(&helm, &long), Some(NoPromise::TooLong));
    let mut without = Helm::new(config("us"), 1, at(0));
    assert!(!asked(&mut without, 10, &request(1, 0)), "its spec has no failsafe");
    assert_eq!(refusal(&without, &request(1, 0)), Some(NoPromise::NotAllowed));
    let mut writer = failsafe_writer();
    writer.tick(at(150));
    let other = PromiseRequest { holder: name("us"), ..request(2, 0) };
    assert!(!asked(&mut writer, 160, &other));
    assert_eq!(refusal(&writer, &other), Some(NoPromise::HoldsItself));
}

#[test]
fn a_promise_outlives_a_restart() {
    let mut helm = Helm::new(failsafe("us"), 2, at(20_000));
    let facts = [Fact::Database(following(50)), seen(Some(held("eu", 1, 3)), 7), peer("ap", 1, following(1))];
    feed(&mut helm, 20_000, facts);
    feed(&mut helm, 21_499, [peer("ap", 1, following(1))]);
    assert_eq!(helm.tick(at(21_499)).lease, None);
    feed(&mut helm, 21_500, [peer("ap", 1, following(1))]);
    assert!(helm.tick(at(21_500)).lease.is_some());
}
