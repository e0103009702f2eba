//! Whether two regions' databases took the app's writes at the same time, and for how long.
//!
//! Pure. It works on what was tried: a database counts as writable only where an accepted try proves it, so the
//! silence of a lost region is no acceptance, and a slow answer is no overlap.

use std::{collections::BTreeMap, time::Duration};

use isles_model::{Moment, RegionName};

/// Two accepted tries further apart than this say nothing about the time between them.
const GAP_MAX: Duration = Duration::from_millis(250);

/// One try to write into a region's own database, past every gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// When it was sent.
    pub begun: Moment,
    /// When the answer came, or was given up.
    pub ended: Moment,
    /// The database took the write (which was then rolled back).
    pub accepted: bool,
}

/// All tries, by region, in the order they were made.
pub type Tries = BTreeMap<RegionName, Vec<Try>>;

/// A stretch of time.
type Span = (Moment, Moment);

/// For how long two regions or more were certainly writable at once; a single proof counts as the time its try took.
pub fn two_writers(tries: &Tries) -> Duration {
    let regions: Vec<Proof> = tries.values().map(|tries| Proof::of(tries)).collect();
    let mut both = Vec::new();
    for (index, one) in regions.iter().enumerate() {
        for other in regions.iter().skip(index + 1) {
            both.extend(common(&one.stretches, &other.stretches));
            both.extend(within(&one.tries, &other.stretches));
            both.extend(within(&other.tries, &one.stretches));
        }
    }
    total(both)
}

/// What a region's accepted tries prove.
struct Proof {
    /// It was writable throughout: from an accepted answer to the begin of the last accepted try after it.
    stretches: Vec<Span>,
    /// It was writable at some moment of each.
    tries: Vec<Span>,
}

impl Proof {
    fn of(tries: &[Try]) -> Self {
        let mut stretches: Vec<Span> = Vec::new();
        let mut accepted = Vec::new();
        let mut last: Option<Try> = None;
        for one in tries {
            match last.filter(|_| one.accepted) {
                Some(before) if one.begun.since(before.ended) <= GAP_MAX => {
                    match stretches.last_mut().filter(|(_, until)| *until == before.begun) {
                        Some(stretch) => stretch.1 = one.begun,
                        None => stretches.push((before.ended, one.begun)),
                    }
                }
                Some(_) | None => {}
            }
            if one.accepted {
                accepted.push((one.begun, one.ended));
            }
            last = one.accepted.then_some(*one);
        }
        Self { stretches, tries: accepted }
    }
}

fn common(one: &[Span], other: &[Span]) -> Vec<Span> {
    let meet = |a: &Span, b: &Span| (a.0.max(b.0), a.1.min(b.1));
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| meet(a, b)));
    pairs.filter(|(from, until)| from < until).collect()
}

/// The tries that lie in a stretch of the other region from begin to end.
fn within(tries: &[Span], stretches: &[Span]) -> Vec<Span> {
    let inside = |span: &&Span| stretches.iter().any(|(from, until)| *from <= span.0 && span.1 <= *until);
    tries.iter().filter(inside).copied().collect()
}

/// The time covered by any of the spans.
fn total(mut spans: Vec<Span>) -> Duration {
    spans.sort_unstable();
    let mut covered = Duration::ZERO;
    let mut reached = Moment::ZERO;
    for (from, until) in spans {
        covered += until.since(from.max(reached));
        reached = reached.max(until);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    /// Tries of 2 ms each, every 10 ms, accepted from `from` until `until`, refused before and after.
    fn every_10_ms(from: u64, until: u64) -> Vec<Try> {
        let one = |at| Try { begun: ms(at), ended: ms(at + 2), accepted: (from..until).contains(&at) };
        (0..5000).step_by(10).map(one).collect()
    }

    fn check(regions: &[Vec<Try>], expect_ms: u64) {
        let name = |index: usize| format!("r{index}").parse().unwrap();
        let tries: Tries =
            regions.iter().enumerate().map(|(index, tries)| (name(index), tries.clone())).collect();
        assert_eq!(two_writers(&tries), Duration::from_millis(expect_ms));
    }

    #[test]
    fn a_handover_without_overlap_is_none() {
        check(&[every_10_ms(0, 1000), every_10_ms(2500, 5000)], 0);
        check(&[every_10_ms(0, 1000), every_10_ms(1000, 5000), every_10_ms(0, 0)], 0);
    }

    #[test]
    fn two_writers_at_once_are_found_and_timed() {
        // Both accept the tries of 2500 … 2990 ms; the last of them is answered at 2992.
        check(&[every_10_ms(0, 3000), every_10_ms(2500, 5000)], 492);
    }

    #[test]
    fn three_writers_are_not_counted_twice() {
        check(&[every_10_ms(0, 3000), every_10_ms(2500, 5000), every_10_ms(2500, 5000)], 2490);
    }

    #[test]
    fn one_stray_acceptance_is_enough() {
        let mut stray = every_10_ms(0, 0);
        stray[300].accepted = true;
        check(&[stray, every_10_ms(2500, 5000)], 2);
    }

    #[test]
    fn the_silence_of_a_lost_region_is_no_acceptance() {
        let mut lost = every_10_ms(0, 1000);
        lost.truncate(100);
        // Its last try was begun before the fault and came to nothing long after.
        lost.push(Try { begun: ms(1000), ended: ms(4000), accepted: false });
        // It comes back, and accepts for a moment before the other had begun; nothing is known of the time between.
        lost.push(Try { begun: ms(4100), ended: ms(4102), accepted: false });
        check(&[lost, every_10_ms(2500, 5000)], 0);
    }

    #[test]
    fn a_slow_answer_proves_only_a_moment_of_its_time() {
        let mut slow = every_10_ms(0, 1000);
        slow.truncate(100);
        slow.push(Try { begun: ms(1000), ended: ms(2600), accepted: true });
        check(&[slow, every_10_ms(2500, 5000)], 0);
    }
}
