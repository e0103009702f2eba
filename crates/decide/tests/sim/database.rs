//! A region's database as a log of writes: promotes, follows, copies, strands what the writer never had.

use isles_model::{
    Copy, DatabaseOrder, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Fact, Lag, Lineage, Lsn,
};

use crate::{
    agent::Wake,
    clock::{MS, Micros},
    mutant::Mutant,
    network::End,
    world::{Event, World},
};

const REPLICATE_EVERY: Micros = 40 * MS;

/// Work that a database is given.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// The gate of a run forwards a write.
    Write {
        write: u32,
        epoch: Epoch,
        incarnation: u64,
    },
    Promoted {
        job: u64,
        epoch: Epoch,
    },
    Copied {
        job: u64,
    },
    Replicate,
}

/// A region's database.
pub(crate) struct Database {
    pub(crate) up: bool,
    /// Ends with each crash, and with it every session.
    pub(crate) life: u64,
    pub(crate) role: DatabaseRole,
    pub(crate) lineage: Lineage,
    pub(crate) log: Vec<u32>,
    /// Whether the log holds all that it should: false while a copy is on its way.
    pub(crate) whole: bool,
    /// Writes of its own that the next writer never had, listed when it rejoined.
    pub(crate) stranded: Vec<u32>,
    /// It cannot be promoted before this.
    pub(crate) hangs_until: Micros,
    order: Option<DatabaseOrder>,
    job: u64,
    copying: bool,
    /// Where the epoch it wrote begins.
    epoch_start: usize,
    synced_at: Micros,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self {
            up: true,
            life: 0,
            role: DatabaseRole::Fenced,
            lineage: Lineage::default(),
            log: Vec::new(),
            whole: true,
            stranded: Vec::new(),
            hangs_until: 0,
            order: None,
            job: 0,
            copying: false,
            epoch_start: 0,
            synced_at: 0,
        }
    }

    /// Its server dies; what was committed is on disk.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.life += 1;
        self.job += 1;
        self.copying = false;
    }

    /// Its server starts, and takes no writes until told to. A copy on its way is begun again.
    pub(crate) fn restart(&mut self) {
        self.up = true;
        self.order = None;
        self.role = DatabaseRole::Fenced;
    }

    fn report(&self, now: Micros) -> DatabaseReport {
        if !self.up {
            return DatabaseReport { state: DatabaseState::Down, ..DatabaseReport::unknown() };
        }
        let replica = matches!(self.role, DatabaseRole::Replica { .. });
        let time = std::time::Duration::from_micros(now - self.synced_at);
        DatabaseReport {
            state: DatabaseState::Up,
            role: self.role.clone(),
            lineage: self.lineage,
            position: Lsn(u64::try_from(self.log.len()).expect("a short log")),
            lag: replica.then_some(Lag { bytes: 0, time }),
            standbys: isles_model::Standbys::default(),
        }
    }

    /// Whether it can be followed as the writer of an epoch, fenced or not.
    fn leads(&self, epoch: Epoch) -> bool {
        self.up && self.lineage == Lineage { epoch, wrote: true }
    }
}

impl World {
    /// The agent probes its own database.
    pub(crate) fn see_database(&mut self, region: usize) {
        let newest = self.agents[region].newest;
        let mut report = self.databases[region].report(self.now);
        match self.setup.mutant {
            Some(Mutant::IncompleteCopyClaims) => {
                if let DatabaseRole::Replica { copy, epoch, .. } = &mut report.role
                    && *copy == Copy::Running
                {
                    *copy = Copy::Complete;
                    report.lineage = Lineage { epoch: *epoch, wrote: false };
                }
            }
            Some(Mutant::DivergedCopyClaims) if report.lineage.wrote && report.lineage.epoch < newest => {
                report.lineage = Lineage { epoch: newest, wrote: false };
            }
            Some(_) | None => {}
        }
        self.tell(region, Fact::Database(report));
    }

    /// The actuator carries out an order, if it is a new one.
    pub(crate) fn order(&mut self, region: usize, order: &DatabaseOrder) {
        let hangs = self.databases[region].hangs_until.saturating_sub(self.now);
        let delay = self.rng.u64(5 * MS..250 * MS) + hangs;
        let database = &mut self.databases[region];
        if !database.up || database.order.as_ref().is_some_and(|last| same(last, order)) {
            return;
        }
        database.order = Some(order.clone());
        database.job += 1;
        database.copying = false;
        match order {
            DatabaseOrder::Write { epoch, .. } => {
                if database.role != (DatabaseRole::Writer { epoch: *epoch }) {
                    let work = Work::Promoted { job: database.job, epoch: *epoch };
                    let life = database.life;
                    self.after(delay, Event::Database(region, life, work));
                }
            }
            DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => {
                if matches!(database.role, DatabaseRole::Writer { .. }) {
                    database.role = DatabaseRole::Fenced;
                    self.wake(region, 1, Wake::DatabaseChanged);
                }
            }
        }
        self.note(|| format!("{region}: database is to {order:?}"));
    }

    pub(crate) fn on_database(&mut self, region: usize, life: u64, work: Work) {
        let database = &self.databases[region];
        let current = database.up && database.life == life;
        match work {
            Work::Replicate => {
                if database.up {
                    self.replicate(region);
                }
                let period = REPLICATE_EVERY + self.rng.u64(..20 * MS);
                self.after(period, Event::Database(region, life, Work::Replicate));
            }
            Work::Write { write, epoch, incarnation } if current => {
                let database = &mut self.databases[region];
                if database.role == (DatabaseRole::Writer { epoch }) {
                    database.log.push(write);
                    let delay = self.rng.u64(100..5 * MS);
                    let wake = Wake::Acknowledge { write, epoch };
                    self.after(delay, Event::Agent(region, incarnation, wake));
                }
            }
            Work::Promoted { job, epoch } if current && database.job == job => self.promote(region, epoch),
            Work::Copied { job } if current && database.job == job => self.finish_copy(region),
            Work::Write { .. } | Work::Promoted { .. } | Work::Copied { .. } => {}
        }
    }

    fn promote(&mut self, region: usize, epoch: Epoch) {
        let database = &mut self.databases[region];
        self.judge.promoted(self.now, region, epoch, database);
        database.epoch_start = database.log.len();
        database.lineage = Lineage { epoch, wrote: true };
        database.role = DatabaseRole::Writer { epoch };
        self.note(|| format!("{region}: database is promoted under epoch {epoch}"));
        self.wake(region, 1, Wake::DatabaseChanged);
    }

    /// Whom the database follows now, if that one can be reached and has been promoted.
    fn leader_of(&self, region: usize) -> Option<(usize, Epoch)> {
        let Some(DatabaseOrder::Follow { writer, epoch }) = &self.databases[region].order else {
            return None;
        };
        let leader = self.setup.index(writer);
        let reachable = self.net.connected(End::Region(region), End::Region(leader))
            && self.databases[leader].leads(*epoch);
        (reachable && leader != region).then_some((leader, *epoch))
    }

    fn replicate(&mut self, region: usize) {
        let Some((leader, epoch)) = self.leader_of(region) else { return };
        let name = self.setup.name(leader);
        let following = match &self.databases[region].role {
            DatabaseRole::Replica { writer, epoch: under, copy } if writer == name && *under == epoch => {
                Some(*copy)
            }
            DatabaseRole::Replica { .. } | DatabaseRole::Writer { .. } | DatabaseRole::Fenced => None,
        };
        match following {
            Some(Copy::Complete) => self.stream(region, leader, epoch),
            Some(Copy::Running) => self.copy(region),
            None => self.attach(region, leader, epoch),
        }
    }

    fn attach(&mut self, region: usize, leader: usize, epoch: Epoch) {
        let writer = self.setup.name(leader).clone();
        let theirs = self.databases[leader].log.clone();
        let (mutant, afresh) = (self.setup.mutant, self.setup.copies_afresh);
        let own = &mut self.databases[region];
        let common = own.log.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        let goes_on = own.lineage == Lineage { epoch, wrote: false };
        let part = common == own.log.len() && (goes_on || !afresh);
        let known = own.whole && own.lineage.epoch > Epoch::NONE;
        let continues = known && (part || mutant == Some(Mutant::FollowsWithoutRejoin));
        let copy = if continues { Copy::Complete } else { Copy::Running };
        if !continues {
            if own.whole && mutant != Some(Mutant::RejoinListsNothing) {
                own.stranded.extend(&own.log[common..]);
            }
            own.lineage = Lineage::default();
            own.whole = false;
            own.log = theirs[..theirs.len() / 2].to_vec();
        }
        own.role = DatabaseRole::Replica { writer, epoch, copy };
        self.note(|| format!("{region}: database follows {leader}, copy {copy:?}"));
        self.wake(region, 1, Wake::DatabaseChanged);
    }

    fn copy(&mut self, region: usize) {
        let lasts = self.rng.u64(100 * MS..1_500 * MS);
        let database = &mut self.databases[region];
        if !database.copying {
            database.copying = true;
            let (life, job) = (database.life, database.job);
            self.after(lasts, Event::Database(region, life, Work::Copied { job }));
        }
    }

    fn finish_copy(&mut self, region: usize) {
        self.databases[region].copying = false;
        let Some((leader, epoch)) = self.leader_of(region) else { return };
        let log = self.databases[leader].log.clone();
        let writer = self.setup.name(leader).clone();
        let own = &mut self.databases[region];
        own.log = log;
        own.whole = true;
        own.lineage = Lineage { epoch, wrote: false };
        own.role = DatabaseRole::Replica { writer, epoch, copy: Copy::Complete };
        own.synced_at = self.now;
        self.note(|| format!("{region}: copy is complete"));
        self.wake(region, 1, Wake::DatabaseChanged);
    }

    /// Takes the next few writes; now and then none, so that replicas are apart.
    fn stream(&mut self, region: usize, leader: usize, epoch: Epoch) {
        let count = if self.rng.u8(..8) == 0 { 0 } else { self.rng.usize(1..9) };
        let from = self.databases[region].log.len();
        let end = self.databases[leader].log.len();
        let next = self.databases[leader].log[from.min(end)..end.min(from + count)].to_vec();
        let start = self.databases[leader].epoch_start;
        let own = &mut self.databases[region];
        own.log.extend(next);
        if own.log.len() >= start {
            own.lineage = Lineage { epoch, wrote: false };
        }
        if own.log.len() == end {
            own.synced_at = self.now;
        }
    }
}

fn same(a: &DatabaseOrder, b: &DatabaseOrder) -> bool {
    match (a, b) {
        (DatabaseOrder::Fence { .. }, DatabaseOrder::Fence { .. }) => true,
        (DatabaseOrder::Write { epoch: a, .. }, DatabaseOrder::Write { epoch: b, .. }) => a == b,
        (DatabaseOrder::Follow { .. }, DatabaseOrder::Follow { .. }) => a == b,
        (DatabaseOrder::Fence { .. } | DatabaseOrder::Write { .. } | DatabaseOrder::Follow { .. }, _) => {
            false
        }
    }
}
