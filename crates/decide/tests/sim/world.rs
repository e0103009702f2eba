//! Runs one world through virtual time, one event after the other.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use isles_model::Epoch;

use crate::{
    agent::{Agent, Wake},
    clock::{MS, Micros},
    database::{Database, Work},
    drill::Stage,
    faults::Fault,
    judge::{Judge, Violation},
    mutant::Mutant,
    network::Network,
    setup::{Setup, Weather},
    store::{Request, Store},
    tally::Tally,
};

/// Events remembered for the report of a failing seed.
const TRACE_MAX: usize = 80;

/// Something that happens at one moment.
pub(crate) enum Event {
    /// To an agent's process: waits while the process is stalled, is void once that run has ended.
    Agent(usize, u64, Wake),
    /// A request reaches the lease store.
    Store { from: usize, incarnation: u64, request: Request },
    /// To a database, in one of its lives.
    Database(usize, u64, Work),
    /// A region's client writes.
    Client(usize),
    /// An acknowledgement leaves a gate; the process cannot call it back.
    Acknowledged { region: usize, write: u32 },
    /// A fault begins.
    Strike(usize),
    /// It ends.
    Mend(usize),
    /// Everything is mended.
    Heal,
    /// The gates are counted.
    Count,
    /// An act of a drill.
    Act(usize),
    /// A service manager starts what crashed in a region.
    Restart(usize),
}

/// The place of an event in time: its moment, its number, where it is kept.
type Place = (Micros, u64, usize);

/// One world.
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) rng: fastrand::Rng,
    pub(crate) setup: Setup,
    pub(crate) net: Network,
    pub(crate) store: Store,
    pub(crate) agents: Vec<Agent>,
    pub(crate) databases: Vec<Database>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) judge: Judge,
    /// What happened.
    pub(crate) tally: Tally,
    pub(crate) writes: u32,
    /// The drill that is played.
    pub(crate) stage: Option<Stage>,
    /// When a fault last began or ended.
    pub(crate) disturbed_at: Micros,
    /// When the first fault began.
    pub(crate) struck_at: Micros,
    queue: BinaryHeap<Reverse<Place>>,
    events: Vec<Option<Event>>,
    vacant: Vec<usize>,
    serial: u64,
    trace: Option<VecDeque<String>>,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: VecDeque<String>,
    pub(crate) acknowledged: usize,
    pub(crate) stranded: usize,
    /// How often the right went from one region to another, and how many of these times it was given back.
    pub(crate) failovers: u64,
    pub(crate) given_back: u64,
    pub(crate) tally: Tally,
}

/// Loses the writer's region of the world that a seed draws, and nothing else: how long until the first write is
/// acknowledged elsewhere, and how long is the TTL? `None` where no region may take over.
pub(crate) fn takeover(seed: u64) -> Option<(Micros, Micros)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut setup = Setup::draw(None, Weather::Ordinary, &mut rng);
    (setup.loss, setup.tail) = (0.0, 0.0);
    let mut world = World::new(setup, rng, false);
    world.forget_faults();
    world.judge = Judge::new(false, world.setup.topology.database.commit);
    world.lose_the_writer();
    world.run();
    assert!(world.judge.violation.is_none(), "seed {seed}: {:?}", world.judge.violation);
    let first = world.judge.first_acknowledged.get(&Epoch(2))?;
    world.setup.topology.may_fail_over().then(|| (first - world.struck_at, world.setup.ttl_micros()))
}

/// Runs the world that a seed draws.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>, weather: Weather, traced: bool) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let setup = Setup::draw(mutant, weather, &mut rng);
    let mut world = World::new(setup, rng, traced);
    world.run();
    world.tally.add(&world.judge.checked);
    Outcome {
        tally: world.tally,
        given_back: world.judge.given_back,
        acknowledged: world.judge.acknowledged(),
        stranded: world.databases.iter().map(|database| database.stranded.len()).sum(),
        failovers: world.judge.failovers,
        violation: world.judge.violation,
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    pub(crate) fn new(setup: Setup, mut rng: fastrand::Rng, traced: bool) -> Self {
        let agents = (0..setup.regions()).map(|_| Agent::new(&mut rng)).collect();
        let databases = (0..setup.regions()).map(|_| Database::new()).collect();
        let mut world = Self {
            now: 0,
            net: Network::new(&setup),
            store: Store::new(&setup),
            tally: Tally::default(),
            agents,
            databases,
            faults: Vec::new(),
            judge: Judge::new(setup.calm, setup.topology.database.commit),
            writes: 0,
            stage: None,
            disturbed_at: 0,
            struck_at: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            vacant: Vec::new(),
            serial: 0,
            trace: traced.then(VecDeque::new),
            rng,
            setup,
        };
        world.note(|| "world drawn".to_owned());
        for region in 0..world.agents.len() {
            world.start_agent(region);
            let first = world.rng.u64(..50 * MS);
            world.after(first, Event::Database(region, 0, Work::Replicate));
            let first = world.rng.u64(..1_000 * MS);
            world.after(first, Event::Client(region));
        }
        world.draw_faults();
        let healed_at = world.setup.healed_at;
        world.after(healed_at, Event::Heal);
        let settled = world.setup.settled_at();
        world.after(settled, Event::Count);
        world
    }

    /// Nothing of what was drawn goes wrong.
    pub(crate) fn forget_faults(&mut self) {
        for event in &mut self.events {
            event.take_if(|event| matches!(event, Event::Strike(_)));
        }
    }

    /// A failure with the last events.
    pub(crate) fn told(&self, text: &str) -> String {
        let lines = self.trace.iter().flatten().map(|line| format!("{line}\n"));
        format!("{}{text}", lines.collect::<String>())
    }

    pub(crate) fn run(&mut self) {
        let end = self.setup.ends_at();
        while self.judge.violation.is_none()
            && let Some(Reverse((at, serial, slot))) = self.queue.pop()
        {
            self.now = at;
            if self.now >= end {
                self.judge.close(self.now, &self.databases, self.store.key.as_ref(), &self.setup);
                return;
            }
            if let Some(Event::Agent(region, ..)) = &self.events[slot] {
                let stalled_until = self.agents[*region].stalled_until;
                if stalled_until > self.now {
                    self.queue.push(Reverse((stalled_until, serial, slot)));
                    continue;
                }
            }
            self.vacant.push(slot);
            if let Some(event) = self.events[slot].take() {
                self.dispatch(event);
            }
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Agent(region, incarnation, wake) => self.on_agent(region, incarnation, wake),
            Event::Store { from, incarnation, request } => self.on_store(from, incarnation, request),
            Event::Database(region, life, work) => self.on_database(region, life, work),
            Event::Client(region) => self.on_client(region),
            Event::Acknowledged { region, write } => self.on_acknowledged(region, write),
            Event::Strike(fault) => self.strike(fault),
            Event::Mend(fault) => self.mend(fault),
            Event::Heal => self.heal(),
            Event::Count => self.count_gates(),
            Event::Act(index) => self.act(index),
            Event::Restart(region) => self.restart(region),
        }
    }

    /// Something happens `delay` from now, after everything already due then.
    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.serial += 1;
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.queue.push(Reverse((self.now + delay, self.serial, slot)));
    }

    /// Something happens to the present run of an agent.
    pub(crate) fn wake(&mut self, region: usize, delay: Micros, wake: Wake) {
        let incarnation = self.agents[region].incarnation;
        self.after(delay, Event::Agent(region, incarnation, wake));
    }

    /// Remembers a line for the report; costs nothing unless the run is traced.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>10.3} ms  {}", now as f64 / MS as f64, line()));
        }
    }

    /// Remembers a line unless it is one of too many.
    pub(crate) fn note_unless(&mut self, plain: bool, line: impl FnOnce() -> String) {
        if !plain {
            self.note(line);
        }
    }

    fn count_gates(&mut self) {
        let open: Vec<usize> = (0..self.agents.len()).filter(|region| self.gate(*region).is_some()).collect();
        self.tally.check("I4");
        if open.len() != 1 {
            let key = self.store.key.clone();
            self.judge.fail(self.now, "I4", || format!("gates {open:?} are open after healing; key {key:?}"));
        }
        self.after(100 * MS, Event::Count);
    }
}
