//! Compares what was measured with what the spec promises.
//!
//! Pure. A drill over other distances than asked for is void: it is neither passed nor missed.

use std::time::Duration;

use isles_model::{
    Topology,
    drill::{Drill, Expect, Losses, Since, WriterFate},
    topology::{Commit, Objectives},
};

use super::whole_ms;
use crate::report::{Distance, Run, Verdict};

/// What must hold: the spec's objectives, what its commit mode promises, and the drill's own expectations.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// The spec's.
    pub objectives: Objectives,
    /// When a commit counts.
    pub commit: Commit,
    /// The drill's.
    pub expects: Vec<Expect>,
}

impl Promise {
    /// What a drill on this topology must keep.
    pub fn of(topology: &Topology, drill: &Drill) -> Self {
        Self {
            objectives: topology.objectives,
            commit: topology.database.commit,
            expects: drill.expects.clone(),
        }
    }

    /// How old a lost write may have been at the fault; `None`: however old.
    fn oldest_lost(&self) -> Option<Duration> {
        let by_commit = match self.commit {
            Commit::Async => None,
            Commit::Bounded(bound) => Some(bound),
            Commit::Remote => Some(Duration::ZERO),
        };
        by_commit.into_iter().chain(self.objectives.rpo).min()
    }

    /// Whether the drill counts this recovery from its last act only, because its fault forbids it before.
    fn only_after_heal(&self, reads: bool) -> bool {
        let own = self.expects.iter().filter_map(|expect| match expect {
            Expect::Reads { from, .. } if reads => Some(*from),
            Expect::Writes { from, .. } if !reads => Some(*from),
            _ => None,
        });
        own.min() == Some(Since::Heal)
    }
}

/// What one run came to, with what its report does not repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The run as reported.
    pub run: Run,
    /// How long before the fault the oldest lost write had been acknowledged, in milliseconds; 0: at the fault or later.
    pub oldest_lost_ms: u64,
    /// The drill's first act is also its last.
    pub one_act: bool,
    /// The regions held the same numbered rows in the end.
    pub settled: bool,
    /// More was to be recorded than a run may hold, so the counts are not whole.
    pub overflowed: bool,
}

impl Judged {
    fn back_ms(&self, reads: bool, from: Since) -> Option<u64> {
        let run = &self.run;
        match (reads, from, self.one_act) {
            (true, Since::Heal, false) => run.reads_after_heal_ms,
            (false, Since::Heal, false) => run.writes_after_heal_ms,
            (true, _, _) => run.rto_reads_ms,
            (false, _, _) => run.rto_writes_ms,
        }
    }
}

/// The verdict, and why it is not a pass.
pub fn judge(judged: &[Judged], promise: &Promise, distances: &[Distance]) -> (Verdict, Vec<String>) {
    let off: Vec<String> =
        distances.iter().filter(|distance| !distance.holds()).map(Distance::amiss).collect();
    let runs = judged.iter().enumerate();
    let missed: Vec<String> = runs.flat_map(|(index, one)| shortfalls(index + 1, one, promise)).collect();
    // Because two writers at once are wrong over any distance, they are never void.
    let unsafe_anywhere = judged.iter().any(|one| one.run.two_writers_ms > 0);
    match (off.is_empty(), missed.is_empty()) {
        (false, _) if !unsafe_anywhere => (Verdict::Void, off),
        (true, true) => (Verdict::Pass, Vec::new()),
        (true | false, true | false) => (Verdict::Missed, missed.into_iter().chain(off).collect()),
    }
}

fn shortfalls(number: usize, judged: &Judged, promise: &Promise) -> Vec<String> {
    let run = &judged.run;
    let mut missed = promised(judged, promise);
    missed.extend(promise.expects.iter().filter_map(|expect| expected(judged, expect)));
    if run.two_writers_ms > 0 {
        missed
            .push(format!("two regions took writes at once for {} ms; promised: never", run.two_writers_ms));
    }
    if !judged.settled {
        missed.push("the regions did not hold the same rows in the end".to_owned());
    }
    if judged.overflowed {
        missed.push("there was more to record than one run may hold".to_owned());
    }
    missed.into_iter().map(|text| format!("run {number}: {text}")).collect()
}

/// What the spec promises and the run did not keep.
fn promised(judged: &Judged, promise: &Promise) -> Vec<String> {
    let rto = promise.objectives.rto;
    let mut missed = Vec::new();
    for (what, reads) in [("reads", true), ("writes", false)] {
        let from = if promise.only_after_heal(reads) { Since::Heal } else { Since::Begin };
        missed.extend(late(what, judged.back_ms(reads, from), rto, from, "promised"));
    }
    let lost = judged.run.lost.len();
    if let Some(oldest) = promise.oldest_lost().filter(|_| lost > 0) {
        let oldest_ms = whole_ms(oldest);
        if oldest_ms == 0 || judged.oldest_lost_ms > oldest_ms {
            missed.push(format!(
                "{lost} acknowledged writes were lost, the oldest {} ms before the fault; promised: none older than {oldest_ms} ms",
                judged.oldest_lost_ms
            ));
        }
    }
    missed
}

/// What is wrong where the drill's own expectation was not met.
fn expected(judged: &Judged, expect: &Expect) -> Option<String> {
    let run = &judged.run;
    match expect {
        Expect::Reads { within, from } => {
            late("reads", judged.back_ms(true, *from), *within, *from, "expected")
        }
        Expect::Writes { within, from } => {
            late("writes", judged.back_ms(false, *from), *within, *from, "expected")
        }
        Expect::Lost(Losses::None) if !run.lost.is_empty() => {
            Some(format!("{} acknowledged writes were lost; expected: none", run.lost.len()))
        }
        Expect::Writer(WriterFate::Stays) => {
            let region = run.failed_over_to.as_ref()?;
            Some(format!("{region} took the right to write over; expected: it stays where it was"))
        }
        Expect::Writer(WriterFate::Moves) if run.failed_over_to.is_none() => {
            Some("no other region took the right to write over; expected: one does".to_owned())
        }
        // What concerns two writers is said whether it was expected or not.
        Expect::Lost(_) | Expect::Writer(WriterFate::Moves) | Expect::TwoWritersNever => None,
    }
}

fn late(what: &str, took_ms: Option<u64>, within: Duration, from: Since, who: &str) -> Option<String> {
    let within_ms = whole_ms(within);
    let since = match from {
        Since::Begin => "",
        Since::Heal => " after the last act",
    };
    match took_ms {
        Some(took) if took <= within_ms => None,
        Some(took) => Some(format!("{what} were back after {took} ms{since}; {who}: within {within_ms} ms")),
        None => Some(format!("{what} were not back{since}; {who}: within {within_ms} ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(rpo: Option<Duration>) -> Promise {
        let objectives =
            Objectives { rto: Duration::from_secs(3), rpo, max_staleness: Duration::from_secs(2) };
        Promise { objectives, commit: Commit::Async, expects: Vec::new() }
    }

    fn good() -> Judged {
        let run =
            Run { rto_reads_ms: Some(310), rto_writes_ms: Some(1620), acknowledged: 1204, ..Run::default() };
        Judged { run, oldest_lost_ms: 0, one_act: false, settled: true, overflowed: false }
    }

    fn far(measured_ms: u64) -> Distance {
        Distance {
            from: "eu-west-1".parse().unwrap(),
            to: "us-east-1".parse().unwrap(),
            asked: Duration::from_millis(80),
            measured: Some(Duration::from_millis(measured_ms)),
        }
    }

    fn check(judged: Judged, rpo: Option<Duration>, measured_ms: u64, verdict: Verdict, because: &str) {
        let (given, reasons) = judge(&[judged], &promise(rpo), &[far(measured_ms)]);
        let reasons = reasons.join("; ");
        assert_eq!(given, verdict, "{reasons}");
        assert!(reasons.contains(because), "{reasons}");
    }

    #[test]
    fn a_drill_within_its_objectives_passes() {
        check(good(), Some(Duration::ZERO), 81, Verdict::Pass, "");
    }

    #[test]
    fn a_late_or_missing_recovery_is_a_miss() {
        let mut late = good();
        late.run.rto_writes_ms = Some(3001);
        check(
            late,
            None,
            80,
            Verdict::Missed,
            "run 1: writes were back after 3001 ms; promised: within 3000 ms",
        );
        let mut never = good();
        never.run.rto_reads_ms = None;
        check(never, None, 80, Verdict::Missed, "reads were not back");
    }

    #[test]
    fn a_lost_write_is_a_miss_only_where_it_was_promised_not_to_be() {
        let mut lost = good();
        lost.run.lost = vec![17];
        lost.oldest_lost_ms = 40;
        check(lost.clone(), None, 80, Verdict::Pass, "");
        check(lost.clone(), Some(Duration::from_millis(500)), 80, Verdict::Pass, "");
        check(lost.clone(), Some(Duration::ZERO), 80, Verdict::Missed, "1 acknowledged writes were lost");
        lost.oldest_lost_ms = 501;
        check(lost, Some(Duration::from_millis(500)), 80, Verdict::Missed, "501 ms before the fault");
    }

    #[test]
    fn other_distances_than_asked_for_make_it_void() {
        check(good(), None, 85, Verdict::Void, "eu-west-1 to us-east-1");
        check(good(), None, 84, Verdict::Pass, "");
    }

    #[test]
    fn two_writers_are_a_miss_over_any_distance() {
        let mut split = good();
        split.run.two_writers_ms = 3;
        check(split, None, 200, Verdict::Missed, "two regions took writes at once for 3 ms");
    }

    /// What is said of a run when the drill expects this besides.
    #[track_caller]
    fn expects(judged: &Judged, expect: &str, because: &str) {
        let text = format!("drill x\nregions 2\nat 0s heal\nexpect {expect}\n");
        let expects = isles_model::drill::parse("x", &text).unwrap().expects;
        let (verdict, reasons) =
            judge(std::slice::from_ref(judged), &Promise { expects, ..promise(None) }, &[]);
        let reasons = reasons.join("; ");
        assert_eq!(verdict == Verdict::Pass, because.is_empty(), "{reasons}");
        assert!(reasons.contains(because), "{reasons}");
    }

    #[test]
    fn a_drills_own_expectations_are_judged_besides() {
        let mut judged = good();
        expects(&judged, "writes within 1620ms", "");
        expects(&judged, "writes within 1s", "writes were back after 1620 ms; expected: within 1000 ms");
        expects(&judged, "reads within 300ms", "expected: within 300 ms");
        expects(&judged, "writer stays", "");
        expects(&judged, "writer moves", "no other region took the right");
        expects(&judged, "writes within 1s after heal", "were not back after the last act");
        judged.run.writes_after_heal_ms = Some(900);
        // What the fault forbids is not held against the spec's promise either.
        judged.run.rto_writes_ms = Some(14_000);
        expects(&judged, "writes within 1s after heal", "");
        judged.one_act = true;
        judged.run.rto_writes_ms = Some(500);
        expects(&judged, "writes within 1s after heal", "");
        judged.run.lost = vec![7];
        judged.run.failed_over_to = Some("us-east-1".parse().unwrap());
        expects(&judged, "lost counted", "");
        expects(&judged, "lost none", "1 acknowledged writes were lost; expected: none");
        expects(&judged, "writer stays", "us-east-1 took the right");
        expects(&judged, "two-writers never", "");
    }

    #[test]
    fn a_commit_mode_promises_by_itself() {
        let mut judged = good();
        judged.run.lost = vec![7];
        judged.oldest_lost_ms = 300;
        let verdict =
            |commit| judge(std::slice::from_ref(&judged), &Promise { commit, ..promise(None) }, &[]).0;
        assert_eq!(verdict(Commit::Async), Verdict::Pass);
        assert_eq!(verdict(Commit::Bounded(Duration::from_millis(500))), Verdict::Pass);
        assert_eq!(verdict(Commit::Bounded(Duration::from_millis(200))), Verdict::Missed);
        assert_eq!(verdict(Commit::Remote), Verdict::Missed);
    }
}
