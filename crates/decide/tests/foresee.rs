//! What an operator is told before an order is given, and what is refused.

#![allow(clippy::unwrap_used)] // Because a test that cannot go on has to fail.

use std::{collections::BTreeMap, time::Duration};

use isles_decide::foresee::{Known, Loss, Refusal, foresee};
use isles_model::{
    AppReport, Change, Copy, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Lag, LeaseKey, LeaseState,
    Lineage, Lsn, Moment, Orders, Plan, RegionName, RegionReport, Snapshot, Standbys, Successor, Topology,
    TransferKind, Writes, snapshot::PeerSnapshot, spec,
};

const SPEC: &str = "name: tiny
regions: [eu-west-1, us-east-1, ap-southeast-1]
services: { web: { command: run } }
database: { engine: postgres }
";

fn name(short: &str) -> RegionName {
    let long = match short {
        "eu" => "eu-west-1",
        "us" => "us-east-1",
        "ap" => "ap-southeast-1",
        other => other,
    };
    long.parse().unwrap()
}

fn topology() -> Topology {
    spec::load("isles.yaml", SPEC).unwrap().topology
}

fn snapshot(region: &str, role: DatabaseRole, wrote: bool, position: u64) -> Snapshot {
    let writes = match role {
        DatabaseRole::Writer { epoch } => Writes::Here { epoch, until: Moment(Duration::from_secs(9)) },
        DatabaseRole::Replica { .. } | DatabaseRole::Fenced => {
            Writes::At { region: name("eu"), epoch: Epoch(3) }
        }
    };
    let lag = (!wrote).then_some(Lag { bytes: 40, time: Duration::from_millis(20) });
    let key = LeaseKey {
        epoch: Epoch(3),
        holder: name("eu"),
        seq: 7,
        state: LeaseState::Held,
        ttl: Duration::from_millis(1_500),
        successor: Successor::Any,
        unrest: 0,
    };
    Snapshot {
        report: RegionReport {
            region: name(region),
            incarnation: 1,
            epoch: Epoch(3),
            database: DatabaseReport {
                state: DatabaseState::Up,
                role,
                lineage: Lineage { epoch: Epoch(3), wrote },
                position: Lsn(position),
                lag,
                standbys: Standbys::default(),
            },
            app: AppReport::default(),
            draining: false,
        },
        plan: Plan { epoch: Epoch(3), writes, ..Plan::starting() },
        lease: Some((key, Duration::from_millis(100))),
        orders: Orders::default(),
        peers: BTreeMap::new(),
        findings: Vec::new(),
        stranded_writes: 0,
        uptime: Duration::from_secs(60),
    }
}

fn replica(copy: Copy) -> DatabaseRole {
    DatabaseRole::Replica { writer: name("eu"), epoch: Epoch(3), copy }
}

/// Three regions, all well, `eu` writes; `us` is 40 bytes behind.
fn well() -> BTreeMap<RegionName, Snapshot> {
    let eu = snapshot("eu", DatabaseRole::Writer { epoch: Epoch(3) }, true, 1_000);
    let mut us = snapshot("us", replica(Copy::Complete), false, 900);
    let heard = PeerSnapshot {
        report: Some(eu.report.clone()),
        age: Duration::ZERO,
        rtt: Some(Duration::from_millis(80)),
    };
    us.peers.insert(name("eu"), heard);
    let ap = snapshot("ap", replica(Copy::Running), false, 0);
    [eu, us, ap].map(|shown| (shown.report.region.clone(), shown)).into()
}

fn transfer(to: &str, kind: TransferKind) -> Change {
    Change::Transfer { to: name(to), kind }
}

fn refused(shown: &BTreeMap<RegionName, Snapshot>, orders: Option<&Orders>, change: &Change) -> Refusal {
    foresee(Known { topology: &topology(), shown, orders }, change).unwrap_err()
}

#[test]
fn a_switchover_loses_nothing_and_says_how_long_writes_wait() {
    let (topology, shown, orders) = (topology(), well(), Orders::default());
    let known = Known { topology: &topology, shown: &shown, orders: Some(&orders) };
    let seen = foresee(known, &transfer("us", TransferKind::Switchover)).unwrap();
    assert_eq!((seen.writer, seen.next_writer), (Some(name("eu")), Some(name("us"))));
    assert_eq!((seen.loss, seen.standing), (Loss::Nothing, false));
    assert!(seen.pause.is_some_and(|pause| pause < Duration::from_secs(1)));
}

#[test]
fn an_unsafe_order_is_refused_with_its_reason() {
    let (shown, orders) = (well(), Orders::default());
    let planned = |to: &str| transfer(to, TransferKind::Switchover);
    let check = |change: &Change, expect: Refusal| {
        assert_eq!(refused(&shown, Some(&orders), change), expect);
        assert!(!expect.remedy().is_empty());
    };
    check(&planned("eu"), Refusal::AlreadyWriter { region: name("eu") });
    check(&planned("ap"), Refusal::CopyIncomplete { region: name("ap") });
    check(&planned("mars"), Refusal::UnknownRegion { region: name("mars") });
    check(&transfer("us", TransferKind::Failover), Refusal::WriterIsWell { writer: name("eu") });
    assert_eq!(refused(&shown, None, &planned("us")), Refusal::NoLeaseStore { no_witness: false });
    let drained = Orders { drained: [name("us")].into(), ..Orders::default() };
    assert_eq!(refused(&shown, Some(&drained), &planned("us")), Refusal::Drained { region: name("us") });
    let drain = Change::Drain { region: name("eu") };
    assert_eq!(refused(&shown, Some(&drained), &drain), Refusal::LastRegion { region: name("eu") });
    let mut silent = shown.clone();
    silent.remove(&name("us"));
    assert_eq!(refused(&silent, Some(&orders), &planned("us")), Refusal::Silent { region: name("us") });
}

#[test]
fn a_failover_says_how_much_the_target_lacks() {
    let (topology, orders) = (topology(), Orders::default());
    let mut shown = well();
    shown.remove(&name("eu"));
    let known = Known { topology: &topology, shown: &shown, orders: Some(&orders) };
    let seen = foresee(known, &transfer("us", TransferKind::Failover)).unwrap();
    assert_eq!(seen.loss, Loss::UpTo { bytes: 100, age: Some(Duration::from_millis(20)) });
    assert_eq!(seen.writer, Some(name("eu")));
    assert!(seen.pause.is_some_and(|pause| pause > Duration::from_secs(1)), "the right has to end first");
    assert_eq!(refused(&shown, Some(&orders), &transfer("us", TransferKind::Switchover)), Refusal::NoWriter);
}

#[test]
fn an_order_that_stands_is_picked_up_again() {
    let (topology, mut shown) = (topology(), well());
    let change = transfer("us", TransferKind::Switchover);
    let orders = Orders::default().after(&change, Epoch(3)).unwrap();
    // The writer has shut its gate already.
    shown.get_mut(&name("eu")).unwrap().plan.writes =
        Writes::Nowhere { because: isles_model::Because::HandingOver };
    let known = Known { topology: &topology, shown: &shown, orders: Some(&orders) };
    let seen = foresee(known, &change).unwrap();
    assert!(seen.standing);
    assert_eq!(seen.writer, Some(name("eu")));
}

#[test]
fn draining_the_writers_region_names_the_next_writer() {
    let (topology, shown, orders) = (topology(), well(), Orders::default());
    let known = Known { topology: &topology, shown: &shown, orders: Some(&orders) };
    let seen = foresee(known, &Change::Drain { region: name("eu") }).unwrap();
    assert_eq!(seen.next_writer, Some(name("us")));
    let mut level = shown.clone();
    level.insert(name("ap"), snapshot("ap", replica(Copy::Complete), false, 900));
    let drained = |shown: &BTreeMap<RegionName, Snapshot>| {
        let known = Known { topology: &topology, shown, orders: Some(&orders) };
        foresee(known, &Change::Drain { region: name("eu") }).unwrap().next_writer.unwrap()
    };
    assert_eq!(drained(&level), name("us"), "of equals the preferred one");
    level.get_mut(&name("ap")).unwrap().report.database.position = Lsn(901);
    assert_eq!(drained(&level), name("ap"), "else the one that holds most");
    level.get_mut(&name("ap")).unwrap().report.draining = true;
    assert_eq!(drained(&level), name("us"));
    let other = foresee(known, &Change::Drain { region: name("ap") }).unwrap();
    assert_eq!((other.next_writer, other.pause), (Some(name("eu")), None));
}
