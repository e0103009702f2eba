//! What the acknowledgement of a commit waits for: which followers have confirmed how much of a writer's log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isles_model::{CommitOrder, Epoch, Lsn, RegionName, Standbys};

use crate::{
    agent::Wake,
    clock::{MS, Micros},
    database::Work,
    mutant::Mutant,
    world::{Event, World},
};

/// A commit whose acknowledgement waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) write: u32,
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: u64,
    /// The end of the log after it.
    pub(crate) position: usize,
}

/// A writer's knowledge of the copies that follow it.
#[derive(Default)]
pub(crate) struct Followers {
    /// The order last given.
    ordered: Option<CommitOrder>,
    /// What is in force, and for whom it is said to be.
    in_force: CommitOrder,
    claimed: BTreeSet<RegionName>,
    since: usize,
    confirmed: BTreeMap<RegionName, (usize, Micros)>,
    pending: Vec<Pending>,
    /// When each commit of the own epoch was made, by the end of the log after it.
    made: BTreeMap<usize, Micros>,
    applied_at: Micros,
}

impl Followers {
    /// The server has started again: what was in force still is, as it is in the configuration's file.
    pub(crate) fn restart(&mut self) {
        self.ordered = None;
        self.pending.clear();
    }

    /// The database is the writer of a new epoch, whom nobody follows.
    pub(crate) fn begin(&mut self) {
        let in_force = self.ordered.clone().unwrap_or_default();
        let claimed = in_force.standbys.clone();
        *self = Self {
            ordered: self.ordered.take(),
            in_force,
            claimed,
            applied_at: self.applied_at,
            ..Self::default()
        };
    }

    pub(crate) fn report(&self) -> Standbys {
        let lsn = |position: usize| Lsn(u64::try_from(position).expect("a short log"));
        let confirmed = self.confirmed.iter().map(|(region, (position, _))| (region.clone(), lsn(*position)));
        Standbys { required: self.claimed.clone(), since: lsn(self.since), confirmed: confirmed.collect() }
    }

    fn has(&self, region: &RegionName) -> usize {
        self.confirmed.get(region).map_or(0, |(position, _)| *position)
    }

    /// How much of the log all that are waited for have.
    fn common(&self, now: Micros, mutant: Option<Mutant>) -> usize {
        let waited: BTreeSet<&RegionName> = self
            .in_force
            .standbys
            .iter()
            .filter(|region| {
                let moved = self.confirmed.get(*region).map_or(0, |(_, at)| *at);
                mutant != Some(Mutant::NobodyLate) || now < moved + 1_000 * MS
            })
            .collect();
        let each = waited.into_iter().map(|region| self.has(region));
        if mutant == Some(Mutant::AnyOneStandby) { each.max() } else { each.min() }.unwrap_or(usize::MAX)
    }

    /// Whether an acknowledgement may leave now.
    fn lets_out(&self, now: Micros, position: usize, mutant: Option<Mutant>) -> bool {
        let common = self.common(now, mutant);
        match self.in_force.bound {
            None => position <= common,
            Some(bound) => {
                let oldest = self.made.range(common.saturating_add(1)..).next();
                let age = oldest.map_or(0, |(_, made)| now - made);
                u128::from(age) <= bound.as_micros() || mutant == Some(Mutant::BoundIgnored)
            }
        }
    }
}

impl World {
    /// The actuator is told what acknowledgements wait for; each order takes its time, one after the other.
    pub(crate) fn require(&mut self, region: usize, commit: &CommitOrder) {
        let hangs = self.databases[region].hangs_until.saturating_sub(self.now);
        let delay = self.rng.u64(5 * MS..150 * MS) + hangs;
        let database = &mut self.databases[region];
        let followers = &mut database.followers;
        if followers.ordered.as_ref() == Some(commit) {
            return;
        }
        followers.ordered = Some(commit.clone());
        followers.applied_at = followers.applied_at.max(self.now + delay);
        let (at, life) = (followers.applied_at - self.now, database.life);
        self.note(|| format!("{region}: commits are to wait for {commit:?}"));
        let order = Box::new(commit.clone());
        self.after(at, Event::Database(region, life, Work::Required { order }));
    }

    pub(crate) fn required(&mut self, region: usize, order: CommitOrder) {
        let mutant = self.setup.mutant;
        let database = &mut self.databases[region];
        let followers = &mut database.followers;
        if followers.claimed != order.standbys {
            followers.since = database.log.len();
        }
        followers.claimed = order.standbys.clone();
        let before = std::mem::replace(&mut followers.in_force, order);
        if mutant == Some(Mutant::NamedAfterTheOrder) && followers.claimed.len() > 1 {
            followers.in_force.standbys.retain(|standby| !before.standbys.contains(standby));
        }
        self.wake(region, 1, Wake::DatabaseChanged);
        self.let_out(region);
    }

    /// The writer has committed.
    pub(crate) fn committed(&mut self, region: usize, write: u32, epoch: Epoch, incarnation: u64) {
        let now = self.now;
        let database = &mut self.databases[region];
        let position = database.log.len();
        database.followers.made.insert(position, now);
        database.followers.pending.push(Pending { write, epoch, incarnation, position });
        self.let_out(region);
    }

    /// A follower tells the writer how much it has.
    pub(crate) fn confirm(&mut self, region: usize, from: usize, epoch: Epoch, position: usize) {
        let name = self.setup.name(from).clone();
        let now = self.now;
        let database = &mut self.databases[region];
        if database.lineage.epoch != epoch || !database.lineage.wrote {
            return;
        }
        let last = database.followers.confirmed.entry(name).or_insert((position, now));
        if last.0 < position {
            *last = (position, now);
        } else if last.0 >= database.log.len() {
            last.1 = now;
        }
        self.let_out(region);
    }

    /// Lets the acknowledgements out that need not wait any more.
    pub(crate) fn let_out(&mut self, region: usize) {
        let (now, mutant) = (self.now, self.setup.mutant);
        let followers = &mut self.databases[region].followers;
        let all = std::mem::take(&mut followers.pending);
        let (out, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| followers.lets_out(now, one.position, mutant));
        followers.pending = kept;
        for Pending { write, epoch, incarnation, position } in out {
            let delay = self.rng.u64(100..5 * MS);
            let wake = Wake::Acknowledge { write, epoch, position };
            self.after(delay, Event::Agent(region, incarnation, wake));
        }
    }

    /// The gate asks once more, when it lets an acknowledgement out: a bound is on the moment of the answer.
    pub(crate) fn too_old(&mut self, region: usize, one: Pending) -> bool {
        let (now, mutant) = (self.now, self.setup.mutant);
        let database = &mut self.databases[region];
        let bounded = database.followers.in_force.bound.is_some();
        let held = bounded && !database.followers.lets_out(now, one.position, mutant);
        if held && database.up {
            database.followers.pending.push(one);
        }
        held
    }
}

/// The bound of `commit: bounded` in a world.
pub(crate) const BOUNDS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
