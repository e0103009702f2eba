//! A region's database as a log of writes: promotes, follows, copies, strands what the writer never had.

use isles_model::{
    CommitOrder, Copy, DatabaseOrder, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Fact, Lag, Lineage,
    Lsn, Standbys,
};

use crate::{
    agent::Wake,
    clock::{MS, Micros},
    follow::Followers,
    mutant::Mutant,
    network::End,
    world::{Event, World},
};

const REPLICATE_EVERY: Micros = 40 * MS;

/// Of 65,536 looks at the writer's log, so many find that it has made a table.
const NEW_TABLE: u16 = 60;

/// Work that a database is given.
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
    /// What acknowledgements wait for comes into force.
    Required {
        order: Box<CommitOrder>,
    },
    /// A follower has so much.
    Confirmed {
        from: usize,
        epoch: Epoch,
        position: usize,
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
    /// Whom its acknowledgements wait for.
    pub(crate) followers: Followers,
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
            followers: Followers::default(),
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
        self.followers.restart();
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
            standbys: if self.lineage.wrote { self.followers.report() } else { Standbys::default() },
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
        let down = report.state == DatabaseState::Down;
        self.tell(region, Fact::Database(report));
        // Because the log on disk is read while the server is down, which takes its time.
        if down && self.rng.u8(..3) == 0 {
            let position = Lsn(u64::try_from(self.databases[region].log.len()).expect("a short log"));
            self.tell(region, Fact::CommitsEnd { position });
        }
    }

    /// The actuator carries out an order, if it is a new one.
    pub(crate) fn order(&mut self, region: usize, order: &DatabaseOrder) {
        let hangs = self.databases[region].hangs_until.saturating_sub(self.now);
        let delay = self.rng.u64(5 * MS..250 * MS) + hangs;
        if !self.databases[region].up {
            return;
        }
        if let DatabaseOrder::Write { commit, .. } = order {
            self.require(region, commit);
        }
        let database = &mut self.databases[region];
        if database.order.as_ref().is_some_and(|last| same(last, order)) {
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
                    self.committed(region, write, epoch, incarnation);
                }
            }
            Work::Promoted { job, epoch } if current && database.job == job => self.promote(region, epoch),
            Work::Copied { job } if current && database.job == job => self.finish_copy(region),
            Work::Required { order } if current => {
                self.required(region, *order);
            }
            Work::Confirmed { from, epoch, position } if current => {
                self.confirm(region, from, epoch, position);
            }
            Work::Write { .. }
            | Work::Promoted { .. }
            | Work::Copied { .. }
            | Work::Required { .. }
            | Work::Confirmed { .. } => {}
        }
    }

    fn promote(&mut self, region: usize, epoch: Epoch) {
        let database = &mut self.databases[region];
        self.judge.promoted(self.now, region, epoch, database);
        if database.lineage.epoch != epoch {
            database.followers.begin();
        }
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
            Some(Copy::Complete) if self.now < self.setup.settled_at() && self.rng.u16(..) < NEW_TABLE => {
                self.extend(region);
            }
            Some(Copy::Complete) => self.stream(region, leader, epoch),
            Some(Copy::Running | Copy::Extending) => self.copy(region),
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

    /// The writer made a table: until its rows are here, nothing later counts as being here.
    fn extend(&mut self, region: usize) {
        if let DatabaseRole::Replica { copy, .. } = &mut self.databases[region].role {
            *copy = Copy::Extending;
        }
        self.note(|| format!("{region}: a new table is copied"));
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
        let from = self.databases[region].log.len();
        let end = self.databases[leader].log.len();
        let count =
            if self.rng.u8(..8) == 0 { 0 } else { self.rng.usize(1..9) + end.saturating_sub(from) / 2 };
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
        let ahead = self.setup.mutant == Some(Mutant::ConfirmsWhatItReceives);
        let position = if ahead { end } else { own.log.len() };
        let life = self.databases[leader].life;
        if let Some(delay) = self.net.delay(&mut self.rng, End::Region(region), End::Region(leader)) {
            let work = Work::Confirmed { from: region, epoch, position };
            self.after(delay, Event::Database(leader, life, work));
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
