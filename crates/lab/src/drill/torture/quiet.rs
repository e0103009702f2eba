//! How long nobody could write: in all, and after everything had been mended.
//!
//! Pure.

use std::time::Duration;

use isles_model::Moment;

/// The longest stretch from the end of one acknowledgement to the next, the beginning and the end included.
pub fn longest_without_writer(acknowledged: &[Moment], from: Moment, until: Moment) -> Duration {
    let inside = acknowledged.iter().filter(|at| (from..=until).contains(at));
    let mut last = from;
    let mut longest = Duration::ZERO;
    for at in inside.chain([&until]) {
        longest = longest.max(at.since(last));
        last = *at;
    }
    longest
}

/// The longest time from a moment at which everything was whole again to the next acknowledgement. One that was broken
/// again before it had a chance, within `bound`, is not counted.
pub fn longest_after_heal(
    acknowledged: &[Moment],
    whole: &[(Moment, Option<Moment>)],
    until: Moment,
    bound: Duration,
) -> Duration {
    let mut longest = Duration::ZERO;
    for (healed, broken) in whole {
        let next = acknowledged.get(acknowledged.partition_point(|at| at < healed)).copied().unwrap_or(until);
        let took = next.since(*healed);
        let had_its_chance = broken.is_none_or(|broken| next <= broken || broken.since(*healed) >= bound);
        if had_its_chance {
            longest = longest.max(took);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn the_longest_stretch_counts_from_the_beginning_and_to_the_end() {
        let at = [s(5), s(6), s(9), s(10)];
        assert_eq!(longest_without_writer(&at, s(4), s(11)), Duration::from_secs(3));
        assert_eq!(longest_without_writer(&at, s(0), s(11)), Duration::from_secs(5));
        assert_eq!(longest_without_writer(&at, s(4), s(20)), Duration::from_secs(10));
        assert_eq!(longest_without_writer(&[], s(4), s(20)), Duration::from_secs(16));
    }

    #[test]
    fn only_time_in_which_nothing_was_broken_counts_against_the_bound() {
        let bound = Duration::from_secs(5);
        let longest = |at: &[Moment], whole: &[_]| longest_after_heal(at, whole, s(100), bound);
        let at = [s(10), s(32), s(60)];
        assert_eq!(longest(&at, &[(s(30), Some(s(40)))]), Duration::from_secs(2));
        // Broken again after two seconds, before anybody had written: no chance.
        assert_eq!(longest(&at, &[(s(50), Some(s(52)))]), Duration::ZERO);
        assert_eq!(longest(&at, &[(s(50), Some(s(56)))]), Duration::from_secs(10));
        assert_eq!(longest(&at, &[(s(70), None)]), Duration::from_secs(30));
    }
}
