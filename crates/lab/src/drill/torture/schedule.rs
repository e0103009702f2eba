//! Draws the faults of a torture from a seed: the same seed on the same ground gives the same drill, to the letter.
//!
//! Faults come in rounds. In a round up to three overlap; a `heal` ends it; then it is quiet for a while. Of the faults
//! that cost the lease store a vote, a round has no more than the store survives.

use std::{ops::Range, time::Duration};

use isles_model::drill::{
    ACTS_MAX, Act, Deed, Drill, DrillPart, Expect, LinkDeed, Losses, PartVerb, RegionVerb, Subject, Subjects,
};

use crate::control::Rigs;

/// How many faults a round may have.
const FAULTS_MAX: u64 = 3;
/// How many of ten faults strike whoever writes at that moment.
const AT_HOLDER_OF_TEN: u64 = 6;
/// From the first fault of a round to the last at most, in milliseconds.
const OVERLAP_MS: u64 = 3_000;
/// How long a round lasts, in milliseconds: less than a lease, a few leases, long enough for everyone to settle.
const LASTS_MS: [Range<u64>; 4] = [200..900, 2_000..6_000, 2_000..8_000, 8_000..20_000];
/// How long it is quiet after a round, in milliseconds.
const QUIET_MS: Range<u64> = 6_000..14_000;

/// What the faults are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terrain {
    /// Data regions.
    pub regions: usize,
    /// Members of the lease store.
    pub votes: usize,
    /// What the lab can do besides.
    pub rigs: Rigs,
    /// Agents take an operator's orders.
    pub orders: bool,
    /// The lease store may lose more members than it survives.
    pub quorum: bool,
    /// Acknowledged writes may not be lost.
    pub none_lost: bool,
}

/// Draws a drill of about this length.
pub fn draw(seed: u64, length: Duration, terrain: &Terrain) -> Drill {
    let mut dice = Dice { rng: fastrand::Rng::with_seed(seed), terrain: *terrain };
    let end_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut acts = Vec::new();
    let mut at_ms = 0;
    while at_ms < end_ms && acts.len() + FAULTS_MAX as usize + 2 < ACTS_MAX {
        at_ms = dice.round(at_ms, &mut acts);
        at_ms += dice.rng.u64(QUIET_MS);
    }
    let losses = if terrain.none_lost { Losses::None } else { Losses::Counted };
    Drill {
        name: format!("torture-{seed}"),
        says: vec![format!("Drawn by isles torture from the seed {seed}.")],
        regions: terrain.regions..=terrain.regions,
        acts,
        expects: vec![Expect::TwoWritersNever, Expect::Lost(losses)],
    }
}

struct Dice {
    rng: fastrand::Rng,
    terrain: Terrain,
}

/// A fault that costs no vote, and whether it fits the ground.
type Mild = (fn(&mut Dice, Subjects) -> Deed, bool);

impl Dice {
    /// One round, which begins at a moment; gives the moment of its end.
    fn round(&mut self, from_ms: u64, acts: &mut Vec<Act>) -> u64 {
        let mut push = |at_ms: u64, deed: Deed| acts.push(Act { at: Duration::from_millis(at_ms), deed });
        let kind = self.rng.usize(..LASTS_MS.len());
        let lasts_ms = self.rng.u64(LASTS_MS[kind].clone());
        let heal_ms = from_ms + lasts_ms;
        if self.terrain.quorum && self.rng.u8(..6) == 0 {
            push(from_ms, self.lost_quorum());
            push(heal_ms, Deed::Heal);
            return heal_ms;
        }
        let mut votes_left = self.terrain.votes.saturating_sub(1) / 2;
        let mut at_ms = from_ms;
        for _ in 0..self.rng.u64(1..=FAULTS_MAX) {
            let who = self.whom();
            let costly = votes_left > 0 && self.rng.bool();
            let deed = if costly { self.costly(who) } else { self.mild(who) };
            votes_left -= usize::from(costly);
            push(at_ms, deed);
            at_ms = (at_ms + self.rng.u64(0..OVERLAP_MS)).min(heal_ms);
        }
        push(heal_ms, Deed::Heal);
        heal_ms
    }

    fn whom(&mut self) -> Subjects {
        if self.rng.u64(..10) < AT_HOLDER_OF_TEN {
            return Subjects::one(Subject::Holder);
        }
        Subjects::one(match self.rng.usize(..self.terrain.regions) {
            0 => Subject::Writer,
            number => Subject::Replica(number),
        })
    }

    /// Costs the lease store a vote, and perhaps the region's users their region.
    fn costly(&mut self, who: Subjects) -> Deed {
        let others = || Subjects::one(Subject::Others);
        let cut = |from, to, both| Deed::Link { what: LinkDeed::Cut, from, to, both };
        match self.rng.u8(..7) {
            0 => Deed::Region { verb: RegionVerb::Kill, who },
            1 | 2 => Deed::Region { verb: RegionVerb::Stall, who },
            3 => cut(who, others(), true),
            4 => cut(who, others(), false),
            5 => cut(others(), who, false),
            _ => Deed::Part { verb: PartVerb::Kill, part: DrillPart::Etcd, who },
        }
    }

    fn mild(&mut self, who: Subjects) -> Deed {
        let (rigs, orders) = (self.terrain.rigs, self.terrain.orders);
        let known: [Mild; 9] = [
            (|_, who| Deed::Part { verb: PartVerb::Crash, part: DrillPart::Postgres, who }, true),
            (|_, who| Deed::Part { verb: PartVerb::Kill, part: DrillPart::Postgres, who }, true),
            (|_, who| Deed::Part { verb: PartVerb::Crash, part: DrillPart::Agent, who }, true),
            (|_, who| Deed::Part { verb: PartVerb::Freeze, part: DrillPart::Agent, who }, true),
            (|_, who| Deed::Part { verb: PartVerb::Freeze, part: DrillPart::Postgres, who }, true),
            (|dice, who| dice.bad_link(who), true),
            (
                |dice, who| Deed::Clock {
                    who,
                    ahead_ms: [-20_000, -2_000, 2_000, 20_000][dice.rng.usize(..4)],
                },
                rigs.movable_clocks,
            ),
            (|_, who| Deed::Disk { who, full: true }, rigs.small_disks),
            (
                |dice, _| Deed::Switchover { to: Subject::Replica(dice.rng.usize(1..dice.terrain.regions)) },
                orders,
            ),
        ];
        let fit: Vec<&Mild> = known.iter().filter(|(_, fits)| *fits).collect();
        let draw = fit[self.rng.usize(..fit.len())].0;
        draw(self, who)
    }

    fn bad_link(&mut self, who: Subjects) -> Deed {
        let by = Duration::from_millis(self.rng.u64(20..400));
        let rate = self.rng.bool().then_some(200_000);
        let what = [LinkDeed::Slow { by, rate }, LinkDeed::Reset][self.rng.usize(..2)];
        Deed::Link { what, from: who, to: Subjects::one(Subject::Others), both: true }
    }

    /// Half of the lease store and one more.
    fn lost_quorum(&mut self) -> Deed {
        let fatal = self.terrain.votes / 2 + 1;
        let who = (0..fatal.min(self.terrain.regions)).map(|number| match number {
            0 => Subject::Writer,
            number => Subject::Replica(number),
        });
        Deed::Part { verb: PartVerb::Kill, part: DrillPart::Etcd, who: Subjects(who.collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terrain() -> Terrain {
        let rigs = Rigs { movable_clocks: true, small_disks: true };
        Terrain { regions: 3, votes: 3, rigs, orders: true, quorum: false, none_lost: false }
    }

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn the_same_seed_draws_the_same_drill_and_another_seed_another() {
        let text = |seed| draw(seed, TEN_MINUTES, &terrain()).to_string();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn what_is_drawn_is_a_drill_that_reads_back_and_heals_in_time() {
        for seed in 0..300 {
            let drill = draw(seed, TEN_MINUTES, &terrain());
            assert_eq!(isles_model::drill::parse("x", &drill.to_string()).unwrap(), drill);
            let mut begun = Duration::ZERO;
            let mut costly = 0;
            for act in &drill.acts {
                let healed = act.deed == Deed::Heal;
                begun = if healed { act.at } else { begun };
                assert!(act.at - begun <= Duration::from_secs(20 + 14), "seed {seed}: {drill}");
                let costs = matches!(
                    act.deed,
                    Deed::Region { .. }
                        | Deed::Link { what: LinkDeed::Cut, .. }
                        | Deed::Part { part: DrillPart::Etcd, .. }
                );
                costly = if healed { 0 } else { costly + usize::from(costs) };
                assert!(costly <= 1, "seed {seed} loses the lease store at {:?}: {drill}", act.at);
            }
            assert_eq!(drill.acts.last().unwrap().deed, Deed::Heal);
        }
    }

    #[test]
    fn every_kind_that_suits_is_drawn_and_none_that_does_not() {
        let all = |terrain: &Terrain| {
            let drills = (0..200).map(|seed| draw(seed, TEN_MINUTES, terrain).to_string());
            drills.collect::<String>()
        };
        let (whole, poor) =
            (all(&terrain()), all(&Terrain { rigs: Rigs::default(), orders: false, ..terrain() }));
        for words in ["skew clock", "fill disk", "switchover to"] {
            assert!(whole.contains(words) && !poor.contains(words), "{words}");
        }
        for words in [
            "kill region",
            "stall region",
            "<-> others",
            "-> others",
            "others -> ",
            "kill etcd",
            "crash agent",
        ] {
            assert!(poor.contains(words), "{words}");
        }
        let lost = all(&Terrain { quorum: true, ..terrain() });
        assert!(
            lost.contains("kill etcd in writer, replica") && !whole.contains("kill etcd in writer, replica")
        );
    }
}
