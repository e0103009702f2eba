//! Histories that are good, and histories that are bad in one way each, which the checker must catch.

#![allow(clippy::unwrap_used, reason = "the whole file is tests")]

use super::{
    check::{Checked, Final, Terms, check},
    history::{Op, Outcome, What},
};

/// Builds a history: one try of one client at a time, each a millisecond long, unless said otherwise.
#[derive(Default)]
struct Story {
    ops: Vec<Op>,
    last: Final,
    changes_us: Vec<u64>,
}

impl Story {
    fn at(mut self, client: u32, begun_us: u64, ended_us: u64, outcome: Outcome, what: What) -> Self {
        let via = "eu-west-1".parse().unwrap();
        self.ops.push(Op { client, via, begun_us, ended_us, outcome, server: Some(5501), what });
        self
    }

    fn next(&self) -> u64 {
        self.ops.iter().map(|op| op.ended_us).max().unwrap_or(0) + 1000
    }

    fn append(self, element: u64, seen: &[u64]) -> Self {
        let begun = self.next();
        let what = What::Append { list: 1, element, seen: seen.to_vec() };
        self.at(element as u32, begun, begun + 1000, Outcome::Ok, what)
    }

    fn append_with(self, element: u64, outcome: Outcome) -> Self {
        let begun = self.next();
        self.at(element as u32, begun, begun + 1000, outcome, What::Append { list: 1, element, seen: vec![] })
    }

    fn read(self, seen: &[u64]) -> Self {
        let begun = self.next();
        self.at(90, begun, begun + 1000, Outcome::Ok, What::Read { list: 1, seen: seen.to_vec() })
    }

    fn swap(self, new: u64, old: u64) -> Self {
        let begun = self.next();
        self.at(new as u32, begun, begun + 1000, Outcome::Ok, What::Swap { register: 2, new, old })
    }

    /// The writer changes here.
    fn change(mut self) -> Self {
        let at = self.next();
        self.changes_us.push(at);
        self
    }

    /// Nothing happens for ten seconds.
    fn pause(self) -> Self {
        let begun = self.next() + 10_000_000;
        self.at(99, begun, begun, Outcome::Unsent, What::Read { list: 1, seen: vec![] })
    }

    fn ends(mut self, list: &[u64]) -> Self {
        self.last.lists.insert(1, list.to_vec());
        self
    }

    fn ends_with(mut self, register: u64) -> Self {
        self.last.registers.insert(2, register);
        self
    }

    fn check(&self, none_lost: bool) -> Checked {
        check(&self.ops, &self.last, &Terms { none_lost, changes_us: &self.changes_us })
    }

    #[track_caller]
    fn fine(self, none_lost: bool) -> Checked {
        let checked = self.check(none_lost);
        assert!(checked.violations.is_empty(), "{:?}", checked.violations);
        checked
    }

    #[track_caller]
    fn caught(self, none_lost: bool, said: &str) {
        let checked = self.check(none_lost);
        let first = checked.violations.iter().find(|violation| violation.contains(said));
        assert!(first.is_some(), "{said:?} is not among {:?}", checked.violations);
    }
}

fn three() -> Story {
    Story::default().append(1, &[1]).append(2, &[1, 2]).read(&[1, 2]).append(3, &[1, 2, 3])
}

#[test]
fn a_history_in_which_all_is_well_passes() {
    let checked = three().ends(&[1, 2, 3]).fine(true);
    assert_eq!((checked.acknowledged, checked.lost.len(), checked.conflicts), (3, 0, 0));
    Story::default().swap(1, 0).swap(2, 1).swap(3, 2).ends_with(3).fine(true);
}

#[test]
fn a_try_of_unknown_outcome_may_count_or_not() {
    three().append_with(4, Outcome::Unknown).append(5, &[1, 2, 3, 4, 5]).ends(&[1, 2, 3, 4, 5]).fine(true);
    three().append_with(4, Outcome::Unknown).append(5, &[1, 2, 3, 5]).ends(&[1, 2, 3, 5]).fine(true);
    // It may even take effect after its client has given it up.
    three().append_with(4, Outcome::Unknown).append(5, &[1, 2, 3, 5]).ends(&[1, 2, 3, 5, 4]).fine(true);
}

#[test]
fn a_lost_acknowledgement_is_a_violation_where_none_may_be_lost_and_listed_elsewhere() {
    let lossy = || three().change().append(4, &[1, 2, 4]).ends(&[1, 2, 4]);
    lossy().caught(true, "3 was acknowledged to client 3 and is gone");
    assert_eq!(lossy().fine(false).lost, [3]);
    // A read that saw it saw what is gone.
    let seen = || three().read(&[1, 2, 3]).change().append(4, &[1, 2, 4]).ends(&[1, 2, 4]);
    seen().caught(true, "saw [3], which are gone");
    seen().fine(false);
}

#[test]
fn a_hole_in_one_writers_history_is_caught_even_where_losses_are_allowed() {
    let hole = three().pause().append(4, &[1, 2, 4]).ends(&[1, 2, 4]);
    hole.caught(false, "3 is gone and 4 is there");
}

#[test]
fn what_nobody_wrote_is_caught() {
    three().ends(&[1, 2, 3, 7]).caught(false, "7 was never appended");
    three()
        .append_with(4, Outcome::Unsent)
        .ends(&[1, 2, 3, 4])
        .caught(false, "4 was never sent and is there");
    three().ends(&[1, 2, 3, 3]).caught(false, "3 is there twice");
    Story::default().read(&[1]).append(1, &[1]).ends(&[1]).caught(false, "1 was seen before it was appended");
    Story::default().swap(1, 8).ends_with(1).caught(false, "8 was never set");
    Story::default().swap(1, 0).ends_with(9).caught(false, "9 was never set, in the end");
}

#[test]
fn another_order_is_caught() {
    three().ends(&[1, 3, 2]).caught(false, "3 stands before 2");
    three().read(&[2, 1]).ends(&[1, 2, 3]).caught(false, "in another order");
    let own = Story::default().append(1, &[1]).append(2, &[2, 1]).ends(&[1, 2]);
    own.caught(false, "did not find its own number last");
}

#[test]
fn an_answer_of_a_former_writer_is_caught() {
    let zombie = three().change().append(4, &[1, 2, 3, 4]).read(&[1, 2, 3]).ends(&[1, 2, 3, 4]);
    zombie.caught(false, "client 90 was answered without 4");
    let both = three().change().append(4, &[1, 2, 3, 4]).append(5, &[1, 2, 3, 5]).ends(&[1, 2, 3, 4]);
    both.caught(false, "client 5 was answered without 4");
}

#[test]
fn a_register_that_forks_is_a_conflict_and_a_violation_unless_the_writer_changed() {
    let fork = || Story::default().swap(1, 0).swap(2, 1).pause();
    fork().swap(3, 1).ends_with(3).caught(false, "both replaced 1");
    let checked = fork().change().swap(3, 1).ends_with(3).fine(false);
    assert_eq!(checked.conflicts, 1);
    fork().change().swap(3, 1).ends_with(3).caught(true, "both replaced 1");
}

#[test]
fn a_register_that_forgets_is_caught() {
    let forgets = || Story::default().swap(1, 0).swap(2, 1).swap(3, 2).pause();
    forgets().ends_with(2).caught(false, "in the end found 2 although 3 had been acknowledged after it");
    forgets().change().ends_with(2).fine(false);
    forgets().change().ends_with(2).caught(true, "although 3 had been acknowledged");
}

/// A machine that carries tries out one after another, with clients that overlap, losing some answers.
fn honest(seed: u64) -> Story {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut story = Story::default();
    let (mut list, mut register, mut now) = (Vec::new(), 0, 10_000);
    for number in 1..=60 {
        now += rng.u64(100..2_000);
        let (begun, ended) = (now - rng.u64(50..5_000), now + rng.u64(50..5_000));
        let outcome = if rng.u8(..6) == 0 { Outcome::Unknown } else { Outcome::Ok };
        let happened = outcome == Outcome::Ok || rng.bool();
        let what = match rng.u8(..4) {
            0 => {
                let old = register;
                register = if happened { number } else { register };
                What::Swap { register: 2, new: number, old: if outcome == Outcome::Ok { old } else { 0 } }
            }
            1 => What::Read { list: 1, seen: list.clone() },
            _ => {
                list.extend(happened.then_some(number));
                let seen = if outcome == Outcome::Ok { list.clone() } else { Vec::new() };
                What::Append { list: 1, element: number, seen }
            }
        };
        story = story.at(number as u32, begun, ended, outcome, what);
    }
    story.ends(&list).ends_with(register)
}

#[test]
fn no_honest_history_is_accused_and_most_damage_to_one_is_noticed() {
    let mut noticed = 0;
    let seeds = 0..400;
    for seed in seeds.clone() {
        honest(seed).fine(true);
        let mut rng = fastrand::Rng::with_seed(!seed);
        let mut damaged = honest(seed);
        let list = damaged.last.lists.get_mut(&1).unwrap();
        let index = rng.usize(..list.len() - 1);
        match seed % 3 {
            0 => drop(list.remove(index)),
            1 => list.swap(index, index + 1),
            _ => list.insert(index, 999),
        }
        noticed += usize::from(!damaged.check(true).violations.is_empty());
    }
    // Two neighbours whose tries overlapped and which nobody read between may stand in either order.
    assert!(noticed >= seeds.count() * 95 / 100, "{noticed}");
}
