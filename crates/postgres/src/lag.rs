//! Says how far a replica is behind, honestly, from what the writer's log was at known moments.
//!
//! No clock is compared between machines: the age of a write is the time since this agent *asked* a writer whose
//! log already held it. It is therefore never less than the truth by more than one sampling interval, and it
//! grows while the writer cannot be asked.

use std::{collections::VecDeque, time::Duration};

use isles_model::{Lag, Lsn, Moment};

/// The most samples kept; at the limit neighbours are merged into (earlier moment, later position), so that ages
/// become coarser, never younger.
const SAMPLES_MAX: usize = 512;
/// A newest sample older than this no longer proves that the replica is in step.
const FRESH: Duration = Duration::from_secs(1);

/// Positions of the writer's log and when they were asked for, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    kept: VecDeque<(Moment, Lsn)>,
}

impl Samples {
    /// Forgets all: another writer's positions mean nothing here.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Adds the end of the writer's log, as answered to a question sent at `asked`.
    pub(crate) fn add(&mut self, asked: Moment, end: Lsn) {
        if self.kept.back().is_some_and(|(_, last)| *last == end) && self.kept.len() > 1 {
            // Nothing was written in between: the later question proves more about a replica in step, and the
            // earlier one keeps the age of what is not applied yet.
            let last = self.kept.len() - 1;
            if self.kept[last - 1].1 == end {
                self.kept[last].0 = asked;
                return;
            }
        }
        if self.kept.len() >= SAMPLES_MAX {
            let pairs: Vec<_> = self.kept.drain(..).collect();
            self.kept = pairs.chunks(2).map(|pair| (pair[0].0, pair[pair.len() - 1].1)).collect();
        }
        self.kept.push_back((asked, end));
    }

    /// The lag of a replica at `position`; `None` before the first sample.
    pub(crate) fn lag(&mut self, now: Moment, position: Lsn) -> Option<Lag> {
        let (newest_asked, newest) = *self.kept.back()?;
        while self.kept.len() > 1 && self.kept[0].1 <= position {
            self.kept.pop_front();
        }
        let (oldest_asked, oldest) = self.kept[0];
        let time = if oldest > position {
            now.since(oldest_asked)
        } else {
            let age = now.since(newest_asked);
            if age <= FRESH { Duration::ZERO } else { age }
        };
        Some(Lag { bytes: newest.bytes_since(position), time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    #[test]
    fn a_replica_in_step_has_no_lag_while_the_writer_answers() {
        let mut samples = Samples::default();
        assert_eq!(samples.lag(at(0), Lsn(5)), None);
        samples.add(at(0), Lsn(100));
        assert_eq!(samples.lag(at(50), Lsn(100)), Some(Lag { bytes: 0, time: Duration::ZERO }));
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_write_that_is_not_applied() {
        let mut samples = Samples::default();
        for (ms, lsn) in [(0, 100), (200, 150), (400, 170)] {
            samples.add(at(ms), Lsn(lsn));
        }
        let lag = samples.lag(at(500), Lsn(120)).unwrap();
        assert_eq!(lag, Lag { bytes: 50, time: Duration::from_millis(300) });
        let lag = samples.lag(at(600), Lsn(150)).unwrap();
        assert_eq!(lag, Lag { bytes: 20, time: Duration::from_millis(200) });
    }

    #[test]
    fn the_lag_grows_while_the_writer_cannot_be_asked() {
        let mut samples = Samples::default();
        samples.add(at(0), Lsn(100));
        let lag = samples.lag(at(5_000), Lsn(100)).unwrap();
        assert_eq!(lag, Lag { bytes: 0, time: Duration::from_secs(5) });
    }

    #[test]
    fn an_idle_writer_costs_no_memory_and_a_busy_one_a_bounded_amount() {
        let mut samples = Samples::default();
        for n in 0..10_000 {
            samples.add(at(n), Lsn(7));
        }
        assert!(samples.kept.len() <= 2);
        for n in 0..10_000 {
            samples.add(at(10_000 + n), Lsn(8 + n));
        }
        assert!(samples.kept.len() <= SAMPLES_MAX);
        let age = samples.lag(at(20_000), Lsn(7)).unwrap().time;
        assert!((Duration::from_secs(10)..=Duration::from_secs(20)).contains(&age), "{age:?}");
    }
}
