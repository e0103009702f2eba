//! Compares what was measured with what the spec promises.
//!
//! Pure. A drill over other distances than asked for is void: it is neither passed nor missed.

use isles_model::topology::Objectives;

use crate::report::{Distance, Run, Verdict};

/// What one run came to, with what its report does not repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The run as reported.
    pub run: Run,
    /// How long before the fault the oldest lost write had been acknowledged, in milliseconds; 0: at the fault or later.
    pub oldest_lost_ms: u64,
    /// The regions held the same numbered rows in the end.
    pub settled: bool,
    /// More was to be recorded than a run may hold, so the counts are not whole.
    pub overflowed: bool,
}

/// The verdict, and why it is not a pass.
pub fn judge(judged: &[Judged], objectives: &Objectives, distances: &[Distance]) -> (Verdict, Vec<String>) {
    let off: Vec<String> =
        distances.iter().filter(|distance| !distance.holds()).map(Distance::amiss).collect();
    let runs = judged.iter().enumerate();
    let missed: Vec<String> = runs.flat_map(|(index, one)| shortfalls(index + 1, one, objectives)).collect();
    // Because two writers at once are wrong over any distance, they are never void.
    let unsafe_anywhere = judged.iter().any(|one| one.run.two_writers_ms > 0);
    match (off.is_empty(), missed.is_empty()) {
        (false, _) if !unsafe_anywhere => (Verdict::Void, off),
        (true, true) => (Verdict::Pass, Vec::new()),
        (true | false, true | false) => (Verdict::Missed, missed.into_iter().chain(off).collect()),
    }
}

fn shortfalls(number: usize, judged: &Judged, objectives: &Objectives) -> Vec<String> {
    let run = &judged.run;
    let rto_ms = u64::try_from(objectives.rto.as_millis()).unwrap_or(u64::MAX);
    let mut missed = Vec::new();
    for (what, took) in [("reads", run.rto_reads_ms), ("writes", run.rto_writes_ms)] {
        match took {
            Some(took) if took <= rto_ms => {}
            Some(took) => missed.push(format!("{what} were back after {took} ms; promised: {rto_ms} ms")),
            None => missed.push(format!("{what} were not back; promised: within {rto_ms} ms")),
        }
    }
    if let Some(rpo) = objectives.rpo {
        let rpo_ms = u64::try_from(rpo.as_millis()).unwrap_or(u64::MAX);
        let lost = run.lost.len();
        if lost > 0 && (rpo_ms == 0 || judged.oldest_lost_ms > rpo_ms) {
            missed.push(format!(
                "{lost} acknowledged writes were lost, the oldest {} ms before the fault; promised: none older than {rpo_ms} ms",
                judged.oldest_lost_ms
            ));
        }
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn objectives(rpo: Option<Duration>) -> Objectives {
        Objectives { rto: Duration::from_secs(3), rpo, max_staleness: Duration::from_secs(2) }
    }

    fn good() -> Judged {
        let run =
            Run { rto_reads_ms: Some(310), rto_writes_ms: Some(1620), acknowledged: 1204, ..Run::default() };
        Judged { run, oldest_lost_ms: 0, settled: true, overflowed: false }
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
        let (given, reasons) = judge(&[judged], &objectives(rpo), &[far(measured_ms)]);
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
        check(late, None, 80, Verdict::Missed, "run 1: writes were back after 3001 ms; promised: 3000 ms");
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
}
