//! What many trials say together: the shortest, the middle, and the one that only one in a hundred exceeds.

use serde::Serialize;

/// A few numbers that stand for many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How many there are.
    pub(crate) n: usize,
    /// The least.
    pub(crate) min: f64,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The 99th percentile by nearest rank: with fewer than 100 numbers, the greatest.
    pub(crate) p99: f64,
}

impl Summary {
    /// Of these numbers; nothing of none.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let min = *sorted.first()?;
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        let p99 = sorted[(n * 99).div_ceil(100) - 1];
        Some(Self { n, min, median, p99 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[f64], min: f64, median: f64, p99: f64) {
        let n = numbers.len();
        assert_eq!(
            Summary::of(numbers.iter().copied()),
            Some(Summary { n, min, median, p99 }),
            "{numbers:?}"
        );
    }

    #[test]
    fn a_few_numbers_are_summed_up_by_their_rank() {
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[3.0, 1.0], 1.0, 2.0, 3.0);
        check(&[9.0, 1.0, 2.0], 1.0, 2.0, 9.0);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn the_99th_percentile_is_the_greatest_until_there_are_a_hundred() {
        let to = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        check(&to(10), 1.0, 5.5, 10.0);
        check(&to(99), 1.0, 50.0, 99.0);
        check(&to(100), 1.0, 50.5, 99.0);
        check(&to(200), 1.0, 100.5, 198.0);
    }
}
