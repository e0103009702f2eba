//! What the drill's clients lived through, and what follows from it: how long nobody could write or read, which
//! acknowledged writes are gone, how many errors a user saw.
//!
//! Pure: moments are the drill's own, and nothing here asks a clock, a socket or a database.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isles_model::{Moment, RegionName};

/// A service counts as recovered by a success that is followed by so long without a failure.
pub const STEADY: Duration = Duration::from_secs(1);

/// The most records one run keeps; a drill that would need more stops its clients.
pub const RECORDS_MAX: usize = 2_000_000;

/// One numbered write through a region's write gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The row's number; unique in a drill.
    pub number: u64,
    /// The region whose write gate it went through.
    pub via: RegionName,
    /// When the client began, a connection it had to make included.
    pub begun: Moment,
    /// When the client knew, or gave up.
    pub ended: Moment,
    /// What the client knows.
    pub outcome: Outcome,
}

/// What a client knows of a write or a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded: for a write, the commit was acknowledged.
    Succeeded,
    /// It failed, or its fate is not known.
    Failed,
}

/// Who reads, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// A user nearest to this region, over HTTP; he tries the next edge when the first does not answer.
    User(RegionName),
    /// The app of this region, over its read gate.
    App(RegionName),
}

/// One read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Who.
    pub reader: Reader,
    /// When it began.
    pub begun: Moment,
    /// When it ended.
    pub ended: Moment,
    /// How, after the reader's own retries.
    pub outcome: Outcome,
}

/// One POST of a user's over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The region he is nearest to.
    pub user: RegionName,
    /// When it began.
    pub begun: Moment,
    /// When it ended. A held request ends late; it has not failed.
    pub ended: Moment,
    /// How, after the user's own retries.
    pub outcome: Outcome,
}

/// All that the clients lived through in one run.
#[derive(Debug, Default)]
pub struct History {
    /// Writes by number; the clients append.
    pub writes: Vec<Write>,
    /// Reads.
    pub reads: Vec<Read>,
    /// POSTs.
    pub posts: Vec<Post>,
}

/// The fault, as the drill timed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The region it struck.
    pub region: RegionName,
    /// When it was ordered.
    pub at: Moment,
    /// When it had struck: a success that began earlier proves nothing.
    pub struck: Moment,
}

impl History {
    /// Whether no more may be recorded.
    pub fn is_full(&self) -> bool {
        self.writes.len() + self.reads.len() + self.posts.len() >= RECORDS_MAX
    }

    /// The recovery time for writes: from the fault to the first acknowledgement of a write that began after it,
    /// from a surviving region. `None`: not recovered.
    pub fn rto_writes(&self, fault: &Fault, survivors: &BTreeSet<RegionName>) -> Option<Duration> {
        survivors.iter().filter_map(|region| self.writes_back(fault, region)).min()
    }

    /// The same for the clients of one region.
    pub fn writes_back(&self, fault: &Fault, via: &RegionName) -> Option<Duration> {
        let writes = self.writes.iter().filter(|write| write.via == *via);
        recovered(writes.map(|write| (write.begun, write.ended, write.outcome)), fault)
    }

    /// The recovery time for reads: the longest over `readers`. `None`: one of them has not recovered.
    pub fn rto_reads(&self, fault: &Fault, readers: &BTreeSet<Reader>) -> Option<Duration> {
        readers
            .iter()
            .map(|reader| self.reads_back(fault, reader))
            .try_fold(Duration::ZERO, |longest, one| Some(longest.max(one?)))
    }

    /// The same for one reader.
    pub fn reads_back(&self, fault: &Fault, reader: &Reader) -> Option<Duration> {
        let reads = self.reads.iter().filter(|read| read.reader == *reader);
        recovered(reads.map(|read| (read.begun, read.ended, read.outcome)), fault)
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.writes.iter().filter(|write| write.outcome == Outcome::Succeeded).count()
    }

    /// The acknowledged writes that are not among `kept`, by number, with the moment of their acknowledgement.
    pub fn lost(&self, kept: &BTreeSet<u64>) -> BTreeMap<u64, Moment> {
        let acknowledged = self.writes.iter().filter(|write| write.outcome == Outcome::Succeeded);
        acknowledged
            .filter(|write| !kept.contains(&write.number))
            .map(|write| (write.number, write.ended))
            .collect()
    }

    /// The longest time from `from` on without an acknowledgement, whoever's.
    pub fn longest_pause(&self, from: Moment) -> Duration {
        let acknowledged = self.writes.iter().filter(|write| write.outcome == Outcome::Succeeded);
        let mut at: Vec<Moment> = acknowledged.map(|write| write.ended).filter(|at| *at >= from).collect();
        at.sort_unstable();
        let gap = |(earlier, later): (&Moment, &Moment)| later.since(*earlier);
        std::iter::once(&from).chain(&at).zip(&at).map(gap).max().unwrap_or_default()
    }

    /// HTTP requests that users made.
    pub fn requests(&self) -> usize {
        self.user_outcomes().count()
    }

    /// HTTP requests that failed although the user tried again.
    pub fn errors_seen(&self) -> usize {
        self.user_outcomes().filter(|outcome| *outcome == Outcome::Failed).count()
    }

    fn user_outcomes(&self) -> impl Iterator<Item = Outcome> {
        let reads = self.reads.iter().filter(|read| matches!(read.reader, Reader::User(_)));
        reads.map(|read| read.outcome).chain(self.posts.iter().map(|post| post.outcome))
    }
}

/// From the fault to the first success that began after it struck and that no failure followed within [`STEADY`].
fn recovered(tries: impl Iterator<Item = (Moment, Moment, Outcome)>, fault: &Fault) -> Option<Duration> {
    let after: Vec<_> = tries.filter(|(begun, _, _)| *begun >= fault.struck).collect();
    let mut failures: Vec<Moment> = Vec::new();
    let mut successes: Vec<Moment> = Vec::new();
    for (begun, ended, outcome) in after {
        match outcome {
            Outcome::Succeeded => successes.push(ended),
            Outcome::Failed => failures.push(begun),
        }
    }
    failures.sort_unstable();
    successes.sort_unstable();
    let steady = |success: Moment| {
        let next = failures.partition_point(|begun| *begun < success);
        failures.get(next).is_none_or(|begun| *begun > success.plus(STEADY))
    };
    successes.into_iter().find(|success| steady(*success)).map(|success| success.since(fault.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn fault() -> Fault {
        Fault { region: region("eu"), at: ms(1000), struck: ms(1010) }
    }

    fn history(writes: &[(u64, &str, u64, u64, Outcome)]) -> History {
        let write = |&(number, via, begun, ended, outcome): &(u64, &str, u64, u64, Outcome)| Write {
            number,
            via: region(via),
            begun: ms(begun),
            ended: ms(ended),
            outcome,
        };
        History { writes: writes.iter().map(write).collect(), ..History::default() }
    }

    use Outcome::{Failed, Succeeded};

    #[test]
    fn recovery_is_the_first_acknowledgement_of_a_write_that_began_after_the_fault() {
        let history = history(&[
            (1, "us", 900, 905, Succeeded),
            (2, "us", 1005, 1080, Succeeded),
            (3, "us", 1020, 1300, Failed),
            (4, "us", 1310, 2600, Succeeded),
            (5, "ap", 1100, 2700, Succeeded),
            (6, "eu", 1100, 1200, Succeeded),
        ]);
        let survivors = BTreeSet::from([region("us"), region("ap")]);
        assert_eq!(history.rto_writes(&fault(), &survivors), Some(Duration::from_millis(1600)));
        assert_eq!(history.writes_back(&fault(), &region("ap")), Some(Duration::from_millis(1700)));
        assert_eq!(history.rto_writes(&fault(), &BTreeSet::from([region("sa")])), None);
    }

    #[test]
    fn a_success_among_failures_is_no_recovery() {
        let history = history(&[
            (1, "us", 1020, 1030, Succeeded),
            (2, "us", 1100, 1200, Failed),
            (3, "us", 1900, 2000, Succeeded),
            (4, "us", 9000, 9900, Failed),
        ]);
        assert_eq!(history.writes_back(&fault(), &region("us")), Some(Duration::from_millis(1000)));
    }

    #[test]
    fn reads_are_back_when_the_slowest_reader_is() {
        let read =
            |reader, begun, ended, outcome| Read { reader, begun: ms(begun), ended: ms(ended), outcome };
        let user = Reader::User(region("eu"));
        let app = Reader::App(region("us"));
        let history = History {
            reads: vec![
                read(app.clone(), 1020, 1022, Succeeded),
                read(user.clone(), 1012, 1311, Failed),
                read(user.clone(), 1315, 1320, Succeeded),
            ],
            ..History::default()
        };
        let readers = BTreeSet::from([user, app.clone()]);
        assert_eq!(history.rto_reads(&fault(), &readers), Some(Duration::from_millis(320)));
        assert_eq!(history.rto_reads(&fault(), &BTreeSet::from([app])), Some(Duration::from_millis(22)));
        let absent = BTreeSet::from([Reader::App(region("ap"))]);
        assert_eq!(history.rto_reads(&fault(), &absent), None);
        assert_eq!((history.requests(), history.errors_seen()), (2, 1));
    }

    #[test]
    fn every_lost_acknowledged_write_is_listed_and_an_unknown_one_is_not() {
        let history = history(&[
            (1, "eu", 900, 905, Succeeded),
            (2, "eu", 990, 999, Succeeded),
            (3, "eu", 995, 1500, Failed),
            (4, "us", 2000, 2010, Succeeded),
        ]);
        let kept = BTreeSet::from([1, 4]);
        assert_eq!(history.acknowledged(), 3);
        assert_eq!(history.lost(&kept), BTreeMap::from([(2, ms(999))]));
    }
}
