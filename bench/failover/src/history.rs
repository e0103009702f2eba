//! What a writer has seen: which writes were acknowledged and when; from it, how long nobody could write and what was lost.

use std::{collections::BTreeSet, path::Path, time::Duration};

use crate::stamp::Stamp;

/// One acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Its number, the row's primary key.
    pub(crate) number: u64,
    /// When the statement was sent.
    pub(crate) sent: Stamp,
    /// When the acknowledgement came.
    pub(crate) at: Stamp,
    /// Which entry point it went through, counted from 0.
    pub(crate) entry: usize,
}

impl Acknowledged {
    /// The line of the writer's log.
    pub(crate) fn line(&self) -> String {
        format!("{} {} {} {}\n", self.number, self.sent.0, self.at.0, self.entry)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').map(str::parse::<u64>);
        let mut next = || fields.next()?.ok();
        let (number, sent, at, entry) = (next()?, Stamp(next()?), Stamp(next()?), next()?);
        Some(Self { number, sent, at, entry: usize::try_from(entry).ok()? })
    }
}

/// All acknowledged writes of one writer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History(Vec<Acknowledged>);

impl History {
    /// Reads a writer's log; a writer that has written nothing yet has none.
    pub(crate) fn read(log: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(log).unwrap_or_default())
    }

    /// Leaves out a last line that has no end: its writer is just writing it, or was killed meanwhile.
    fn parse(text: &str) -> Self {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Self(whole.lines().filter_map(Acknowledged::parse).collect())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The first acknowledgement of a write that was sent at `from` or later.
    pub(crate) fn first_sent_from(&self, from: Stamp) -> Option<Acknowledged> {
        self.0.iter().filter(|write| write.sent >= from).min_by_key(|write| write.at).copied()
    }

    /// How many writes were sent at `from` or later.
    pub(crate) fn sent_from(&self, from: Stamp) -> usize {
        self.0.iter().filter(|write| write.sent >= from).count()
    }

    /// The longest time between `from` and `until` in which no acknowledgement came.
    pub(crate) fn longest_silence(&self, from: Stamp, until: Stamp) -> Duration {
        let within = |at: &Stamp| *at >= from && *at <= until;
        let mut marks: Vec<Stamp> = self.0.iter().map(|write| write.at).filter(within).collect();
        marks.extend([from, until]);
        marks.sort_unstable();
        marks.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    /// The acknowledged writes that the final table does not hold, in the order of acknowledgement.
    pub(crate) fn lost(&self, kept: &BTreeSet<u64>) -> Vec<Acknowledged> {
        self.0.iter().filter(|write| !kept.contains(&write.number)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes as (number, sent, acknowledged).
    fn history(writes: &[(u64, u64, u64)]) -> History {
        let one = |&(number, sent, at)| Acknowledged { number, sent: Stamp(sent), at: Stamp(at), entry: 0 };
        History(writes.iter().map(one).collect())
    }

    #[test]
    fn a_log_is_read_as_it_was_written_and_half_a_line_is_left_out() {
        let seen = history(&[(1, 10, 20), (2, 30, 45)]);
        let text: String = seen.0.iter().map(Acknowledged::line).collect();
        assert_eq!(History::parse(&text), seen);
        assert_eq!(History::parse(&format!("{text}3 50 6")), seen);
        assert_eq!(History::parse(""), history(&[]));
    }

    #[test]
    fn a_write_that_was_under_way_at_the_fault_does_not_end_the_outage() {
        let seen = history(&[(1, 10, 20), (2, 99, 103), (3, 250, 260), (4, 240, 255)]);
        assert_eq!(seen.first_sent_from(Stamp(100)).map(|write| write.number), Some(4));
        assert_eq!(seen.first_sent_from(Stamp(300)), None);
        assert_eq!(seen.sent_from(Stamp(100)), 2);
    }

    #[test]
    fn the_pause_is_the_longest_time_without_an_acknowledgement_its_ends_included() {
        let seen = history(&[(1, 0, 20), (2, 0, 120), (3, 0, 60), (4, 0, 900)]);
        assert_eq!(seen.longest_silence(Stamp(10), Stamp(150)), Duration::from_micros(60));
        assert_eq!(seen.longest_silence(Stamp(120), Stamp(500)), Duration::from_micros(380));
        assert_eq!(seen.longest_silence(Stamp(200), Stamp(300)), Duration::from_micros(100));
    }

    #[test]
    fn only_an_acknowledged_write_that_is_not_in_the_final_table_is_lost() {
        let seen = history(&[(1, 0, 1), (2, 0, 2), (5, 0, 3)]);
        let kept = BTreeSet::from([1, 3, 5]);
        assert_eq!(seen.lost(&kept).iter().map(|write| write.number).collect::<Vec<_>>(), [2]);
        assert_eq!(history(&[]).lost(&kept), []);
    }
}
