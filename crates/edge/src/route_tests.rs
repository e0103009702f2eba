//! Cases of the routing decision, three lines each.

use std::time::Duration;

use super::*;

fn name(text: &str) -> RegionName {
    text.parse().unwrap()
}

/// As seen from `a`: `a` near, then `b`, then `c`, all healthy, `b` writes under epoch 4.
fn plan() -> Plan {
    let serve = ["a", "b", "c"].map(|region| Serving {
        region: name(region),
        app: true,
        reads: true,
        rtt: Duration::ZERO,
        because: Because::Healthy,
    });
    Plan {
        epoch: Epoch(4),
        writes: Writes::At { region: name("b"), epoch: Epoch(4) },
        serve: serve.to_vec(),
        instances: vec![0, 1],
        ..Plan::starting()
    }
}

fn here() -> Plan {
    let until = Moment(Duration::from_secs(10));
    Plan { writes: Writes::Here { epoch: Epoch(4), until }, ..plan() }
}

struct Case {
    write: bool,
    stamp: Option<Stamp>,
    plan: Plan,
    routing: WriteRouting,
    now: Moment,
    tried: Tried,
    down: Down,
}

fn case(write: bool, plan: Plan) -> Case {
    Case {
        write,
        stamp: None,
        plan,
        routing: WriteRouting::Forward,
        now: Moment(Duration::from_secs(5)),
        tried: Tried::default(),
        down: Down::default(),
    }
}

fn received(write: bool, epoch: Option<u64>, plan: Plan) -> Case {
    let stamp = Stamp { hops: 1, origin: name("b"), epoch: epoch.map(Epoch) };
    Case { stamp: Some(stamp), ..case(write, plan) }
}

#[expect(clippy::needless_pass_by_value, reason = "a case is written where it is checked")]
fn check(case: Case, expect: Verdict) {
    let question = Question { write: case.write, stamp: case.stamp.as_ref() };
    let view = View {
        here: &name("a"),
        plan: &case.plan,
        write_routing: case.routing,
        now: case.now,
        tried: &case.tried,
        down: &case.down,
        turn: 0,
    };
    assert_eq!(route(question, view), expect);
}

fn local(instance: usize) -> Verdict {
    Verdict::Local { instance }
}

fn read_at(region: &str) -> Verdict {
    Verdict::Forward { region: name(region), epoch: None }
}

fn write_at(region: &str) -> Verdict {
    Verdict::Forward { region: name(region), epoch: Some(Epoch(4)) }
}

fn change(mut plan: Plan, region: usize, app: bool, reads: bool, because: Because) -> Plan {
    plan.serve[region] = Serving { app, reads, because, ..plan.serve[region].clone() };
    plan
}

fn tried(instances: &[usize], regions: &[(&str, Miss)]) -> Tried {
    Tried {
        instances: instances.iter().copied().collect(),
        regions: regions.iter().map(|(region, miss)| (name(region), *miss)).collect(),
    }
}

#[test]
fn a_read_is_answered_by_the_nearest_region_that_may() {
    check(case(false, plan()), local(0));
    check(case(false, change(plan(), 0, true, false, Because::TooStale)), read_at("b"));
    check(case(false, change(plan(), 0, false, true, Because::AppDown)), read_at("b"));
    check(case(false, Plan { draining: true, ..plan() }), read_at("b"));
    check(case(false, Plan { instances: vec![], ..plan() }), read_at("b"));
}

#[test]
fn a_read_goes_elsewhere_when_it_failed_here() {
    check(Case { tried: tried(&[0], &[]), ..case(false, plan()) }, local(1));
    check(Case { tried: tried(&[0, 1], &[]), ..case(false, plan()) }, read_at("b"));
    check(Case { tried: tried(&[0, 1], &[("b", Miss::Silent)]), ..case(false, plan()) }, read_at("c"));
}

#[test]
fn what_was_just_found_down_is_asked_last() {
    let down = Down { instances: [0].into(), regions: [name("b")].into() };
    check(Case { down: down.clone(), ..case(false, plan()) }, local(1));
    let stale = change(plan(), 0, true, false, Because::TooStale);
    check(Case { down: down.clone(), ..case(false, stale.clone()) }, read_at("c"));
    let only_b = change(stale, 2, false, false, Because::PeerSilent);
    check(Case { down, ..case(false, only_b) }, read_at("b"));
}

#[test]
fn a_read_waits_while_no_region_may_answer() {
    check(case(false, Plan::starting()), Verdict::Hold { because: Because::Starting });
}

#[test]
fn a_write_goes_to_the_writer() {
    check(case(true, plan()), write_at("b"));
    check(case(true, here()), local(0));
}

#[test]
fn a_write_is_misdirected_where_the_spec_says_reject() {
    let reject = Case { routing: WriteRouting::Reject, ..case(true, plan()) };
    check(reject, Verdict::Misdirected { writer: name("b") });
    check(Case { routing: WriteRouting::Reject, ..case(true, here()) }, local(0));
}

#[test]
fn a_write_waits_while_nobody_may_write() {
    let nowhere = Plan { writes: Writes::Nowhere { because: Because::Promoting }, ..plan() };
    check(case(true, nowhere), Verdict::Hold { because: Because::Promoting });
    let late = Case { now: Moment(Duration::from_secs(10)), ..case(true, here()) };
    check(late, Verdict::Hold { because: Because::LeaseLapsed });
}

#[test]
fn a_write_waits_while_the_writers_region_is_silent() {
    let silent = Verdict::Hold { because: Because::PeerSilent };
    check(Case { tried: tried(&[], &[("b", Miss::Silent)]), ..case(true, plan()) }, silent.clone());
    let down = Down { regions: [name("b")].into(), ..Down::default() };
    check(Case { down, ..case(true, plan()) }, silent.clone());
    check(case(true, change(plan(), 1, false, false, Because::PeerSilent)), silent);
}

#[test]
fn any_app_reaches_the_writers_database_when_its_own_is_down() {
    let no_app = Miss::NotServed(NotServed::NoApp);
    check(Case { tried: tried(&[], &[("b", no_app)]), ..case(true, plan()) }, local(0));
    check(case(true, change(plan(), 1, false, true, Because::AppDown)), local(0));
    let both = Plan { instances: vec![], ..change(plan(), 1, false, true, Because::AppDown) };
    check(case(true, both), write_at("c"));
    check(case(true, Plan { instances: vec![], ..here() }), write_at("b"));
    check(case(true, Plan { draining: true, ..here() }), write_at("b"));
}

#[test]
fn a_write_sent_on_is_taken_only_under_the_current_epoch() {
    check(received(true, Some(4), here()), local(0));
    check(received(true, Some(4), plan()), local(0));
    for other in [Some(3), Some(5), None] {
        check(received(true, other, here()), Verdict::NotServed(NotServed::Epoch));
    }
    let late = Case { now: Moment(Duration::from_secs(10)), ..received(true, Some(4), here()) };
    check(late, Verdict::NotServed(NotServed::NotHere));
    let none = Plan { instances: vec![], ..here() };
    check(received(true, Some(4), none), Verdict::NotServed(NotServed::NoApp));
}

#[test]
fn a_request_sent_on_is_never_sent_further() {
    let none = Plan { instances: vec![], ..plan() };
    check(received(false, None, none), Verdict::NotServed(NotServed::NoApp));
    let stale = change(plan(), 0, true, false, Because::TooStale);
    check(received(false, None, stale), Verdict::NotServed(NotServed::NotHere));
    let mut twice = received(false, None, plan());
    twice.stamp = twice.stamp.map(|stamp| Stamp { hops: 2, ..stamp });
    check(twice, Verdict::Loop);
}

/// `c` takes all traffic while the writer `b` has no app; `a` stands by.
#[test]
fn in_active_passive_everything_goes_to_the_one_region_that_takes_traffic() {
    let standby = |plan, region| change(plan, region, false, false, Because::Standby);
    let active_c = standby(standby(plan(), 0), 1);
    check(case(false, active_c.clone()), read_at("c"));
    check(case(true, active_c), write_at("c"));
    let active_b = standby(standby(plan(), 0), 2);
    check(case(false, active_b.clone()), read_at("b"));
    check(case(true, active_b), write_at("b"));
    let active_a = standby(standby(plan(), 1), 2);
    check(case(false, active_a.clone()), local(0));
    check(case(true, active_a), local(0));
}
