//! What a helm decides, fact by fact; every case asserts the reason. Here is the scene that the cases share.

mod claim;
mod hand_over;
mod length;
mod orders;
mod standby;

use isles_model::{
    AppReport, AttemptId, Copy, DatabaseState, Epoch, Lag, Lineage, Lsn, Orders, Revision, Standbys,
    Successor, Transfer, TransferKind,
    topology::{Commit, Pattern},
};

pub(super) use super::*;

pub(super) const TTL_MS: u64 = 1_500;

pub(crate) fn config(region: &str) -> HelmConfig {
    HelmConfig {
        region: name(region),
        regions: ["eu", "us", "ap"].map(name).to_vec(),
        pattern: Pattern::ReadReplicas,
        may_fail_over: true,
        ttl: ms(TTL_MS),
        margin: ms(225),
        renew_every: ms(150),
        patience: ms(400),
        max_staleness: ms(2_000),
        rtts: [("eu", 76), ("us", 80), ("ap", 172)].map(|(peer, rtt)| (name(peer), ms(rtt))).into(),
        database_grace: ms(1_000),
        commit: Commit::Async,
        failsafe: false,
        quiet: ms(600_000),
    }
}

pub(super) fn name(region: &str) -> RegionName {
    region.parse().unwrap()
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn at(millis: u64) -> Moment {
    Moment(ms(millis))
}

pub(super) fn database(role: DatabaseRole, epoch: u64, wrote: bool, position: u64) -> DatabaseReport {
    DatabaseReport {
        state: DatabaseState::Up,
        role,
        lineage: Lineage { epoch: Epoch(epoch), wrote },
        position: Lsn(position),
        lag: None,
        standbys: Standbys::default(),
    }
}

pub(super) fn replica_of(writer: &str, epoch: u64, copy: Copy) -> DatabaseRole {
    DatabaseRole::Replica { writer: name(writer), epoch: Epoch(epoch), copy }
}

pub(super) fn following(position: u64) -> DatabaseReport {
    database(replica_of("eu", 1, Copy::Complete), 1, false, position)
}

pub(super) fn writing(epoch: u64) -> DatabaseReport {
    database(DatabaseRole::Writer { epoch: Epoch(epoch) }, epoch, true, 100)
}

pub(super) fn empty() -> DatabaseReport {
    database(DatabaseRole::Fenced, 0, false, 0)
}

pub(super) fn down() -> DatabaseReport {
    DatabaseReport { state: DatabaseState::Down, ..DatabaseReport::unknown() }
}

pub(super) fn held(holder: &str, epoch: u64, seq: u64) -> LeaseKey {
    LeaseKey {
        epoch: Epoch(epoch),
        holder: name(holder),
        seq,
        state: LeaseState::Held,
        ttl: config(holder).ttl,
        successor: Successor::Any,
        unrest: 0,
    }
}

pub(super) fn released(holder: &str, epoch: u64, heir: Option<&str>) -> LeaseKey {
    LeaseKey { state: LeaseState::Released { heir: heir.map(name) }, ..held(holder, epoch, 9) }
}

pub(super) fn seen(key: Option<LeaseKey>, revision: u64) -> Fact {
    Fact::LeaseSeen { key, revision: Revision(revision) }
}

/// A standing order that `to` takes the right over from the holder of an epoch.
pub(super) fn ordered(number: u64, to: &str, kind: TransferKind, from: u64) -> Fact {
    let transfer = Transfer { number, to: name(to), kind, from: Epoch(from) };
    orders(Orders { transfer: Some(transfer), ..Orders::default() }, number)
}

pub(super) fn orders(orders: Orders, revision: u64) -> Fact {
    Fact::Orders { orders, revision: Revision(revision) }
}

pub(super) fn peer(region: &str, epoch: u64, database: DatabaseReport) -> Fact {
    let app = AppReport { healthy: vec![true] };
    let report = RegionReport {
        region: name(region),
        incarnation: 1,
        epoch: Epoch(epoch),
        database,
        app,
        draining: false,
    };
    Fact::Peer { report, rtt: ms(80) }
}

/// A helm with its facts, at the moment zero.
pub(super) fn helm(region: &str, facts: impl IntoIterator<Item = Fact>) -> Helm {
    let mut helm = Helm::new(config(region), 1, at(0));
    feed(&mut helm, 0, facts);
    helm
}

pub(super) fn feed(helm: &mut Helm, millis: u64, facts: impl IntoIterator<Item = Fact>) {
    for fact in facts {
        helm.observe(at(millis), fact);
    }
}

pub(super) fn stored(attempt: AttemptId, revision: u64) -> Fact {
    Fact::LeaseAnswered { attempt, outcome: LeaseOutcome::Stored(Revision(revision)) }
}

/// The primary, writing under epoch 1 since the moment zero (the put that gave it the right was emitted then).
pub(super) fn writer() -> Helm {
    let mut helm =
        helm("eu", [Fact::Database(empty()), peer("us", 0, empty()), peer("ap", 0, empty()), seen(None, 0)]);
    let claim = helm.tick(at(0)).lease.unwrap();
    feed(&mut helm, 40, [stored(claim.attempt, 1), Fact::Database(writing(1))]);
    helm
}

/// What a helm says that has seen `key`, then nothing more, after `millis`, its peers still talking.
pub(super) fn verdict(
    region: &str,
    own: DatabaseReport,
    key: LeaseKey,
    peers: Vec<Fact>,
    millis: u64,
) -> Decision {
    let mut helm = helm(region, [Fact::Database(own), seen(Some(key), 7)]);
    feed(&mut helm, 0, peers.clone());
    feed(&mut helm, millis, peers);
    helm.tick(at(millis))
}
