//! What goes wrong in a world, when, and for how long.

use isles_model::{Change, TransferKind};

use crate::{
    agent::Wake,
    clock::{MS, Micros},
    kind::{ALL, CALM, HARD, Kind, RESTLESS, SILENT, STORE},
    mutant::Mutant,
    network::End,
    setup::{FAULTS_FROM, Weather},
    world::{Event, World},
};

/// One fault; the region is fixed when it strikes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    kind: Kind,
    region: usize,
    /// Where the fault concerns two regions.
    other: usize,
    /// It prefers the holder of the lease.
    at_holder: bool,
    lasts: Micros,
}

impl World {
    /// Draws the faults of this world: one to five that may overlap, or short ones far apart.
    pub(crate) fn draw_faults(&mut self) {
        let ttl = self.setup.ttl_micros();
        let mut at = FAULTS_FROM;
        let storm = self.setup.weather != Weather::Ordinary;
        let silence = self.setup.weather == Weather::Silence;
        let count = match (self.setup.calm, storm) {
            (true, _) => 3,
            // One after the other, until everything is mended.
            (false, true) if self.setup.weather == Weather::Gale => usize::MAX,
            (false, true) => self.rng.usize(14..=22),
            (false, false) => self.rng.usize(1..=5),
        };
        for _ in 0..count {
            let (kind, begins, lasts) = if self.setup.weather == Weather::Gale {
                at += self.rng.u64(ttl * 5 / 4..ttl * 9 / 4);
                if at + 1_000 * MS > self.setup.healed_at {
                    return;
                }
                self.draw_gust(at)
            } else if self.setup.calm {
                let lasts = self.rng.u64(50 * MS..(ttl * 3 / 10).min(700 * MS));
                at += 2 * ttl;
                (CALM[self.rng.usize(..CALM.len())], at, lasts)
            } else {
                let begins = self.rng.u64(FAULTS_FROM..self.setup.healed_at - 1_000 * MS);
                let hard =
                    storm && self.rng.u8(..3) > if self.setup.weather == Weather::Murk { 1 } else { 0 };
                let kinds: &[Kind] = match self.setup.weather {
                    Weather::Silence => &SILENT,
                    Weather::Restless => &RESTLESS,
                    Weather::Murk if !hard => &STORE,
                    Weather::Ordinary if !hard => &ALL,
                    Weather::Storm if !hard => &ALL,
                    Weather::Storm | Weather::Ordinary | Weather::Murk | Weather::Gale => &HARD,
                };
                let lasts = match self.setup.weather {
                    Weather::Restless => self.rng.u64(ttl..ttl * 3),
                    Weather::Storm | Weather::Silence | Weather::Ordinary | Weather::Murk | Weather::Gale => {
                        self.rng.u64(100 * MS..6_000 * MS)
                    }
                };
                (kinds[self.rng.usize(..kinds.len())], begins, lasts)
            };
            let region = self.rng.usize(..self.agents.len());
            let other = (region + self.rng.usize(1..self.agents.len())) % self.agents.len();
            let other_orders = matches!(kind, Kind::Drain | Kind::Maintenance);
            let lasts = if other_orders { lasts + 3_000 * MS } else { lasts };
            let gale = self.setup.weather == Weather::Gale && HARD.contains(&kind);
            let at_holder = gale
                || self.rng.u8(..3) > if kind == Kind::Drain { 1 } else { 0 }
                    && !(silence && kind == Kind::AgentCrash);
            self.faults.push(Fault { kind, region, other, at_holder, lasts });
            self.after(begins, Event::Strike(self.faults.len() - 1));
        }
    }

    /// Of four faults, three make another region take over; the fourth is of any kind, and may overlap with the next.
    fn draw_gust(&mut self, begins: Micros) -> (Kind, Micros, Micros) {
        let ttl = self.setup.ttl_micros();
        let (kinds, lasts): (&[Kind], Micros) = match self.rng.u8(..8) {
            0 => (&ALL, self.rng.u64(100 * MS..4_000 * MS)),
            1 => (&STORE, self.rng.u64(100 * MS..4_000 * MS)),
            _ => (&HARD, self.rng.u64(ttl..2 * ttl)),
        };
        (kinds[self.rng.usize(..kinds.len())], begins, lasts)
    }

    /// One fault only: the writer's region is lost, or cut off, until everything is mended.
    pub(crate) fn lose_the_writer(&mut self) {
        let kind = if self.rng.bool() { Kind::RegionCrash } else { Kind::Isolation };
        self.faults = vec![Fault { kind, region: 0, other: 1, at_holder: true, lasts: self.setup.healed_at }];
        let begins = self.rng.u64(FAULTS_FROM..FAULTS_FROM + 1_000 * MS);
        self.after(begins, Event::Strike(0));
    }

    pub(crate) fn strike(&mut self, index: usize) {
        let holder = self.store.key.as_ref().map(|key| self.setup.index(&key.holder));
        if let Some(holder) = holder.filter(|_| self.faults[index].at_holder) {
            let fault = &mut self.faults[index];
            if fault.other == holder {
                fault.other = fault.region;
            }
            fault.region = holder;
        }
        let Fault { kind, region, other, lasts, .. } = self.faults[index];
        // Because healing ends every fault, none is longer than that.
        let lasts = lasts.min(self.setup.healed_at.saturating_sub(self.now + 2 * MS));
        if region == other || lasts == 0 {
            return;
        }
        self.disturbed_at = self.now;
        if self.struck_at == 0 {
            self.struck_at = self.now;
        }
        self.tally.strike(kind);
        self.note(|| format!("fault: {kind:?} at {region} (and {other}) for {} ms", lasts / MS));
        match kind {
            Kind::RegionCrash => {
                self.agents[region].kill();
                self.databases[region].crash();
            }
            Kind::AgentCrash => self.agents[region].kill(),
            Kind::DatabaseCrash => self.databases[region].crash(),
            Kind::Stall => self.stall(region, lasts),
            Kind::StoreSilent => self.store.silent_until = self.now + lasts,
            Kind::StoreSlow => self.store.slow_until = self.now + lasts,
            Kind::StoreMemberLost => self.lose_member(region),
            Kind::WatchGap => self.store.unwatched_until = self.now + lasts,
            Kind::SlowLinks => self.net.slow_down(region, lasts / 20),
            Kind::PromotionHangs => self.databases[region].hangs_until = self.now + lasts,
            Kind::Stop => {
                self.wake(region, 0, Wake::Stop);
                self.wake(region, lasts, Wake::Exit);
            }
            Kind::AppDown => self.app(region, false),
            Kind::HandOver => {
                let to = self.setup.name(other).clone();
                self.order_change(&Change::Transfer { to, kind: TransferKind::Switchover });
            }
            Kind::ForcedFailover => {
                let to = self.setup.name(other).clone();
                self.order_change(&Change::Transfer { to, kind: TransferKind::Failover });
            }
            Kind::Drain => {
                let region = self.setup.name(region).clone();
                self.order_change(&Change::Drain { region });
            }
            Kind::Maintenance => self.order_change(&Change::Maintenance { on: true }),
            Kind::Isolation
            | Kind::PeersCut
            | Kind::PairCut
            | Kind::OneWayCut
            | Kind::StoreRequestsCut
            | Kind::StoreAnswersCut => {
                for (from, to) in self.cuts(kind, region, other) {
                    self.net.block(from, to);
                }
            }
        }
        self.after(lasts + MS, Event::Mend(index));
    }

    pub(crate) fn mend(&mut self, index: usize) {
        let Fault { kind, region, other, .. } = self.faults[index];
        if self.now >= self.setup.healed_at {
            return;
        }
        self.disturbed_at = self.now;
        self.note(|| format!("mended: {kind:?} at {region}"));
        match kind {
            Kind::RegionCrash => {
                if self.agents[region].helm.is_none() {
                    self.agents[region].clock.reboot(&mut self.rng);
                    self.agents[region].remembered = None;
                }
                self.start_region(region);
            }
            Kind::StoreMemberLost => self.store.find_member(region),
            Kind::AgentCrash | Kind::Stop => self.start_agent(region),
            Kind::DatabaseCrash => self.start_database(region),
            Kind::SlowLinks => self.net.slow_down(region, 0),
            Kind::AppDown => self.app(region, true),
            Kind::Drain => {
                let region = self.setup.name(region).clone();
                self.order_change(&Change::Undrain { region });
            }
            Kind::Maintenance => self.order_change(&Change::Maintenance { on: false }),
            Kind::Stall
            | Kind::StoreSilent
            | Kind::StoreSlow
            | Kind::WatchGap
            | Kind::PromotionHangs
            | Kind::HandOver
            | Kind::ForcedFailover => {}
            Kind::Isolation
            | Kind::PeersCut
            | Kind::PairCut
            | Kind::OneWayCut
            | Kind::StoreRequestsCut
            | Kind::StoreAnswersCut => {
                for (from, to) in self.cuts(kind, region, other) {
                    self.net.unblock(from, to);
                }
            }
        }
    }

    /// Mends everything that is still wrong.
    pub(crate) fn heal(&mut self) {
        self.note(|| "everything is mended".to_owned());
        self.disturbed_at = self.now;
        self.net.mend();
        self.setup.loss = 0.0;
        self.store.mend();
        self.order_change(&Change::Maintenance { on: false });
        for region in self.orders().drained.clone() {
            self.order_change(&Change::Undrain { region });
        }
        for region in 0..self.agents.len() {
            self.start_region(region);
            self.app(region, true);
        }
    }

    pub(crate) fn start_region(&mut self, region: usize) {
        if !self.databases[region].up {
            self.start_database(region);
        }
        self.start_agent(region);
    }

    pub(crate) fn start_database(&mut self, region: usize) {
        if !self.databases[region].up {
            self.databases[region].restart();
        }
    }

    pub(crate) fn stall(&mut self, region: usize, lasts: Micros) {
        let until = self.now + lasts;
        self.agents[region].stalled_until = until;
        if self.setup.mutant == Some(Mutant::ClockStopsInStall) {
            self.agents[region].clock.stop(self.now, until);
        }
    }

    pub(crate) fn app(&mut self, region: usize, up: bool) {
        let app = isles_model::AppReport { healthy: vec![up] };
        self.tell(region, isles_model::Fact::App(app));
    }

    fn cuts(&self, kind: Kind, region: usize, other: usize) -> Vec<(End, End)> {
        let own = End::Region(region);
        let peers = (0..self.agents.len()).filter(|peer| *peer != region).map(End::Region);
        let both = |end: End| [(own, end), (end, own)];
        match kind {
            Kind::Isolation => peers.chain([End::Store]).flat_map(both).collect(),
            Kind::PeersCut => peers.flat_map(both).collect(),
            Kind::PairCut => both(End::Region(other)).to_vec(),
            Kind::OneWayCut => vec![(own, End::Region(other))],
            Kind::StoreRequestsCut => vec![(own, End::Store)],
            Kind::StoreAnswersCut => vec![(End::Store, own)],
            Kind::RegionCrash
            | Kind::AgentCrash
            | Kind::DatabaseCrash
            | Kind::Stall
            | Kind::StoreSilent
            | Kind::StoreSlow
            | Kind::StoreMemberLost
            | Kind::WatchGap
            | Kind::SlowLinks
            | Kind::Stop
            | Kind::AppDown
            | Kind::PromotionHangs
            | Kind::HandOver
            | Kind::ForcedFailover
            | Kind::Drain
            | Kind::Maintenance => Vec::new(),
        }
    }
}
