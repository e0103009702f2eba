//! Plays the drills of `drills/` in virtual time, and judges them by what they expect.
//!
//! The lease store is one register here, so a region reaches it when it reaches a majority of the voters whose member
//! lives. What has no meaning in virtual time is left out: wall clocks, and how users read.

use std::collections::{BTreeMap, BTreeSet};

use isles_model::{
    Change, RegionName, TransferKind,
    drill::{
        Deed, Drill, DrillPart, Expect, LinkDeed, Losses, PartVerb, RegionVerb, Since, Subject, Subjects,
        WriterFate,
    },
    topology::Commit,
};

use crate::{
    clock::{MS, Micros},
    judge::Violation,
    network::End,
    setup::{Setup, Weather},
    world::{Event, World},
};

/// When the first act is done: every copy is complete by then.
const BEGINS_AT: Micros = 6_000 * MS;

/// After the last act, until everything that is still broken is mended.
const WATCHED_FOR: Micros = 12_000 * MS;

/// Writes are back when for so long no pause between two acknowledgements is longer than `PAUSE_MAX`.
const STEADY_FOR: Micros = 2_000 * MS;
const PAUSE_MAX: Micros = 1_000 * MS;

/// How soon a service manager starts a process that crashed.
const RESTARTED_AFTER: Micros = 700 * MS;

/// A drill under way.
pub(crate) struct Stage {
    drill: Drill,
    writer: RegionName,
    replicas: Vec<RegionName>,
    cut: BTreeSet<(usize, usize)>,
    /// Regions whose member of the lease store is dead.
    voteless: BTreeSet<usize>,
    /// Regions that do not reach the store.
    apart: BTreeSet<usize>,
}

/// Plays a drill in a world of so many regions. `Err`: what did not hold.
pub(crate) fn play(drill: &Drill, regions: usize, commit: Commit, seed: u64) -> Result<(), String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let setup = loop {
        let setup = Setup::draw(None, Weather::Ordinary, &mut rng);
        if setup.regions() == regions && !setup.calm {
            break setup.for_drill(commit, BEGINS_AT + micros(drill.last_act()) + WATCHED_FOR);
        }
    };
    let mut world = World::new(setup, rng, true);
    world.forget_faults();
    let writer = world.setup.topology.primary().clone();
    let replicas = world.setup.topology.region_names().filter(|name| **name != writer).cloned().collect();
    for (index, act) in drill.acts.iter().enumerate() {
        world.after(BEGINS_AT + micros(act.at), Event::Act(index));
    }
    let (cut, voteless, apart) = Default::default();
    world.stage = Some(Stage { drill: drill.clone(), writer, replicas, cut, voteless, apart });
    world.run();
    world.verdict(drill).map_err(|text| world.told(&text))
}

fn micros(length: std::time::Duration) -> Micros {
    u64::try_from(length.as_micros()).expect("a drill is short")
}

impl World {
    /// Does one act of the drill.
    pub(crate) fn act(&mut self, index: usize) {
        let holder = self.store.key.as_ref().map(|key| key.holder.clone());
        let Some(stage) = self.stage.take() else { return };
        let act = &stage.drill.acts[index];
        let deed = holder.map_or_else(|| act.deed.clone(), |holder| act.deed.with_holder(&holder));
        let text = deed.to_string();
        self.note(|| format!("drill: {text}"));
        let later = stage.drill.acts[index..].to_vec();
        self.stage = Some(stage);
        self.disturbed_at = self.now;
        match deed {
            Deed::Region { verb, who } => {
                let thaws =
                    later.iter().find(|act| matches!(&act.deed, Deed::Region { verb: RegionVerb::Thaw, .. }));
                let lasts = thaws.map_or(WATCHED_FOR, |act| micros(act.at - later[0].at));
                self.each(&who, |world, region| world.strike_region(verb, region, lasts));
            }
            Deed::Part { verb, part, who } => {
                self.each(&who, |world, region| world.strike_part(verb, part, region));
            }
            Deed::Link { what, from, to, both } => self.join(what, &from, &to, both),
            Deed::Disk { who, full } => self.each(&who, |world, region| {
                if full { world.databases[region].crash() } else { world.start_database(region) }
            }),
            Deed::Switchover { to } => {
                let to =
                    self.meant(&Subjects::one(to), &[]).first().copied().expect("a region of this world");
                self.transfer(to);
            }
            Deed::Failback => self.transfer(0),
            Deed::Drain { who, out } => self.each(&who, |world, region| {
                let region = world.setup.name(region).clone();
                world.order_change(&if out { Change::Drain { region } } else { Change::Undrain { region } });
            }),
            Deed::Heal => {
                if let Some(stage) = &mut self.stage {
                    stage.cut.clear();
                    stage.voteless.clear();
                    stage.apart.clear();
                }
                self.heal();
            }
            Deed::Clock { .. } => {}
        }
        self.reach_store();
    }

    fn transfer(&mut self, to: usize) {
        let to = self.setup.name(to).clone();
        self.order_change(&Change::Transfer { to, kind: TransferKind::Switchover });
    }

    fn meant(&self, who: &Subjects, taken: &[RegionName]) -> Vec<usize> {
        let Some(stage) = &self.stage else { return Vec::new() };
        let named = who.resolve(&stage.writer, &stage.replicas, None, taken, true);
        named.iter().map(|name| self.setup.index(name)).collect()
    }

    fn each(&mut self, who: &Subjects, mut deed: impl FnMut(&mut Self, usize)) {
        for region in self.meant(who, &[]) {
            deed(self, region);
        }
    }

    fn vote(&mut self, region: usize, lives: bool) {
        let Some(stage) = &mut self.stage else { return };
        if lives {
            stage.voteless.remove(&region);
        } else {
            stage.voteless.insert(region);
        }
    }

    fn strike_region(&mut self, verb: RegionVerb, region: usize, lasts: Micros) {
        match verb {
            RegionVerb::Kill => {
                self.agents[region].kill();
                self.databases[region].crash();
            }
            RegionVerb::Start => self.start_region(region),
            RegionVerb::Stall => self.stall(region, lasts),
            RegionVerb::Thaw => {}
        }
        self.vote(region, matches!(verb, RegionVerb::Start | RegionVerb::Thaw));
    }

    fn strike_part(&mut self, verb: PartVerb, part: DrillPart, region: usize) {
        let stops = matches!(verb, PartVerb::Kill | PartVerb::Crash | PartVerb::Freeze);
        match part {
            DrillPart::Postgres if stops => self.databases[region].crash(),
            DrillPart::Postgres => self.start_database(region),
            DrillPart::Etcd => self.vote(region, !stops),
            DrillPart::Agent if stops => self.agents[region].kill(),
            DrillPart::Agent => self.start_agent(region),
            DrillPart::App => self.app(region, !stops),
        }
        if verb == PartVerb::Crash {
            self.after(RESTARTED_AFTER, Event::Restart(region));
        }
    }

    /// A service manager starts what has crashed.
    pub(crate) fn restart(&mut self, region: usize) {
        self.start_region(region);
        self.app(region, true);
        self.vote(region, true);
        self.reach_store();
    }

    fn join(&mut self, what: LinkDeed, from: &Subjects, to: &Subjects, both: bool) {
        let names = |world: &Self, who: &[usize]| -> Vec<RegionName> {
            who.iter().map(|region| world.setup.name(*region).clone()).collect()
        };
        let others = |who: &Subjects| who.0.contains(&Subject::Others);
        let mut far = if others(to) { Vec::new() } else { self.meant(to, &[]) };
        let near = self.meant(from, &names(self, &far));
        if others(to) {
            far = self.meant(to, &names(self, &near));
        }
        for (a, b) in near.iter().flat_map(|a| far.iter().map(move |b| (*a, *b))) {
            for (from, to) in [(a, b), (b, a)].into_iter().take(if both { 2 } else { 1 }) {
                let Some(stage) = &mut self.stage else { return };
                match what {
                    LinkDeed::Cut | LinkDeed::Reset if from != to && stage.cut.insert((from, to)) => {
                        self.net.block(End::Region(from), End::Region(to));
                    }
                    LinkDeed::Heal if stage.cut.remove(&(from, to)) => {
                        self.net.unblock(End::Region(from), End::Region(to));
                    }
                    LinkDeed::Slow { by, .. } => self.net.slow_down(from, micros(by)),
                    LinkDeed::Cut | LinkDeed::Reset | LinkDeed::Heal => {}
                }
            }
        }
    }

    /// Who reaches the store now: a majority of its members, one's own included.
    fn reach_store(&mut self) {
        let count = self.agents.len();
        let Some(stage) = &mut self.stage else { return };
        for region in 0..count {
            let joined = |other: &usize| {
                let both = [(region, *other), (*other, region)];
                !stage.voteless.contains(other) && both.iter().all(|way| !stage.cut.contains(way))
            };
            let reaches = (0..count).filter(joined).count() > count / 2;
            let ends = [(End::Region(region), End::Store), (End::Store, End::Region(region))];
            if reaches && stage.apart.remove(&region) {
                ends.iter().for_each(|(from, to)| self.net.unblock(*from, *to));
            } else if !reaches && stage.apart.insert(region) {
                ends.iter().for_each(|(from, to)| self.net.block(*from, *to));
            }
        }
    }

    fn verdict(&self, drill: &Drill) -> Result<(), String> {
        if let Some(Violation { invariant, text, .. }) = &self.judge.violation {
            return Err(format!("{invariant}: {text}"));
        }
        let (key, stage) = (self.store.key.as_ref(), self.stage.as_ref());
        let (Some(key), Some(stage)) = (key, stage) else { return Err("nobody ever wrote".to_owned()) };
        for expect in &drill.expects {
            let holds = match expect {
                Expect::Writes { within, from } => {
                    let from = match from {
                        Since::Begin => BEGINS_AT,
                        Since::Heal => BEGINS_AT + micros(drill.last_act()),
                    };
                    self.steady_from(from).is_some_and(|back| back - from <= micros(*within))
                }
                Expect::Writer(WriterFate::Stays) => key.epoch.0 == 1,
                Expect::Writer(WriterFate::Moves) => key.epoch.0 > 1,
                Expect::Lost(Losses::None) => {
                    self.judge.has_all(&self.databases[self.setup.index(&key.holder)].log)
                }
                // Two writers and unlisted losses are violations already; users' reads are not simulated.
                Expect::Lost(Losses::Counted) | Expect::TwoWritersNever | Expect::Reads { .. } => true,
            };
            if !holds {
                return Err(format!("expect {expect} (the writer was {}): {key:?}", stage.writer));
            }
        }
        Ok(())
    }

    /// From when on, after a moment, acknowledgements leave without a longer pause.
    fn steady_from(&self, from: Micros) -> Option<Micros> {
        let times: BTreeMap<Micros, ()> = self.judge.acknowledged_at().map(|at| (at, ())).collect();
        let steady = |begin: Micros| {
            let mut last = begin;
            times.range(begin..begin + STEADY_FOR).all(|(at, ())| {
                let pause = *at - last;
                last = *at;
                pause <= PAUSE_MAX
            }) && begin + STEADY_FOR - last <= PAUSE_MAX
        };
        times.range(from..).map(|(at, ())| *at).find(|at| steady(*at))
    }
}
