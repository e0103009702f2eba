//! A report as a person reads it.

use std::fmt::{self, Display, Formatter};

use super::{Distance, Report, Run, Spread, Summary, Verdict};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let pattern = match self.pattern {
            isles_model::topology::Pattern::ActivePassive => "active-passive",
            isles_model::topology::Pattern::ReadReplicas => "read-replicas",
        };
        writeln!(f, "drill {} · {} · {pattern} · {} regions", self.scenario, self.app, self.regions)?;
        for (index, run) in self.runs.iter().enumerate() {
            if self.runs.len() > 1 {
                writeln!(f, "\nrun {} of {}", index + 1, self.runs.len())?;
            }
            self.run(f, run)?;
        }
        if let Some(summary) = &self.summary {
            summarize(f, summary, self.runs.len())?;
        }
        writeln!(f)?;
        match self.verdict {
            Verdict::Pass => writeln!(
                f,
                "Verdict: pass. Every objective of the spec and every expectation of the drill was kept."
            )?,
            Verdict::Missed => writeln!(f, "Verdict: missed.")?,
            Verdict::Void => {
                writeln!(f, "Verdict: void. The distances were not those asked for, so nothing is scored.")?;
            }
        }
        for because in &self.because {
            writeln!(f, "  {because}")?;
        }
        self.place(f)
    }
}

impl Report {
    fn run(&self, f: &mut Formatter<'_>, run: &Run) -> fmt::Result {
        for entry in &run.timeline {
            let region = entry.region.as_ref().map(ToString::to_string).unwrap_or_default();
            writeln!(f, "  {:>11}  {:<26}{region}", signed(entry.at_ms), entry.event)?;
        }
        let promised = grouped(self.objectives.rto_ms);
        writeln!(f, "  reads back       {}   promised within {promised} ms", time(run.rto_reads_ms))?;
        writeln!(f, "  writes back      {}   promised within {promised} ms", time(run.rto_writes_ms))?;
        for (what, after) in [("reads", run.reads_after_heal_ms), ("writes", run.writes_after_heal_ms)] {
            if after.is_some() {
                writeln!(f, "  {what:<6} back      {}   counted from the last act", time(after))?;
            }
        }
        if run.longest_pause_ms.is_some() {
            writeln!(f, "  writes paused    {}   at most, anywhere", time(run.longest_pause_ms))?;
        }
        let lost = run.lost.len();
        let promise =
            if self.objectives.rpo_writes == Some(0) { "none may be" } else { "counted, not promised" };
        writeln!(
            f,
            "  writes lost      {lost} of {} acknowledged ({promise})",
            grouped(run.acknowledged as u64)
        )?;
        if lost > 0 {
            writeln!(f, "    numbers        {}", ranges(&run.lost))?;
            writeln!(f, "    in the ledger  {} of {lost}", run.stranded_recovered)?;
        }
        let errors = run.errors_seen;
        writeln!(f, "  users            {} requests, {errors} failed", grouped(run.requests as u64))?;
        match run.two_writers_ms {
            0 => writeln!(f, "  two writers      never; every database was tried every 10 ms"),
            both => writeln!(f, "  two writers      FOR {both} ms TWO REGIONS TOOK WRITES AT ONCE"),
        }
    }

    /// Where it was measured, so that nobody takes it for more.
    fn place(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "Measured on one machine over an emulated WAN; a cloud's networks and disks differ.")?;
        for Distance { from, to, asked, measured } in &self.distances {
            let ms = |duration: std::time::Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
            let measured =
                measured.map_or_else(|| "not measured".to_owned(), |rtt| format!("{} measured", ms(rtt)));
            writeln!(f, "  {from} to {to}: round trip {} asked, {measured}", ms(*asked))?;
        }
        Ok(())
    }
}

fn summarize(f: &mut Formatter<'_>, summary: &Summary, runs: usize) -> fmt::Result {
    writeln!(f, "\nall {runs} runs         min   median      p99      max  (ms)")?;
    for (what, spread) in [("reads back", summary.rto_reads_ms), ("writes back", summary.rto_writes_ms)] {
        match spread {
            Some(Spread { min, median, p99, max }) => {
                let [min, median, p99, max] = [min, median, p99, max].map(grouped);
                writeln!(f, "  {what:<13} {min:>8} {median:>8} {p99:>8} {max:>8}")?;
            }
            None => writeln!(f, "  {what:<13} never")?,
        }
    }
    let Summary { not_recovered, lost, errors_seen, .. } = summary;
    writeln!(
        f,
        "  {not_recovered} not recovered, {lost} acknowledged writes lost, {errors_seen} requests failed"
    )
}

fn time(milliseconds: Option<u64>) -> String {
    let text = milliseconds.map_or_else(|| "never".to_owned(), |ms| format!("{} ms", grouped(ms)));
    format!("{text:>10}")
}

fn signed(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { "-" } else { "+" };
    format!("{sign}{} ms", grouped(milliseconds.unsigned_abs()))
}

/// Thousands apart: `12 345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Ascending numbers, neighbours joined: `3, 7-9`. None is left out.
fn ranges(numbers: &[u64]) -> String {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            Some(_) | None => spans.push((*number, *number)),
        }
    }
    let span = |(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    spans.iter().map(span).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use isles_model::topology::Pattern;

    use super::*;
    use crate::{
        report::{Objectives, Settings},
        timeline::Entry,
    };

    #[test]
    fn a_lost_write_is_listed_by_its_number() {
        let region = || Some("eu-west-1".parse().unwrap());
        let run = Run {
            rto_reads_ms: Some(310),
            acknowledged: 1204,
            lost: vec![3, 7, 8, 9],
            stranded_recovered: 4,
            timeline: vec![Entry { at_ms: 1450, event: "lease expired".into(), region: region() }],
            ..Run::default()
        };
        let report = Report {
            scenario: "region-outage".into(),
            pattern: Pattern::ReadReplicas,
            regions: 3,
            verdict: Verdict::Missed,
            because: vec!["run 1: writes were not back".into()],
            runs: vec![run],
            summary: None,
            objectives: Objectives { rto_ms: 15000, rpo_writes: None },
            app: "shop".into(),
            settings: Settings::default(),
            distances: Vec::new(),
        };
        let text = report.to_string();
        for part in [
            "+1 450 ms  lease expired             eu-west-1",
            "writes lost      4 of 1 204 acknowledged",
            "numbers        3, 7-9",
            "in the ledger  4 of 4",
            "writes back           never   promised within 15 000 ms",
            "one machine over an emulated WAN",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}
