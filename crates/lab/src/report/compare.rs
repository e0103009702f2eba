//! Compares what drills found on different days: the same drill of the same app with the same settings.
//!
//! Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{Kept, Run, Settings, Verdict};

/// With fewer earlier runs than this nothing is called slower.
const BEFORE_MIN: usize = 3;

/// What can be compared: only results that depend on the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subject {
    /// The drill.
    pub scenario: String,
    /// The application.
    pub app: String,
    /// What the result depends on besides.
    pub settings: Settings,
}

/// One subject's results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Of what.
    pub subject: Subject,
    /// Recovery time of reads.
    pub reads: Figures,
    /// Recovery time of writes.
    pub writes: Figures,
    /// Acknowledged writes lost, all runs together.
    pub lost: usize,
    /// The longest time in which two regions took writes at once, in milliseconds.
    pub two_writers_ms_max: u64,
}

/// One figure over all runs, and of the last report against those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Over all runs; `null`: it recovered in none.
    pub all: Option<Tally>,
    /// Of the last report.
    pub last: Option<Tally>,
    /// Of all before it.
    pub before: Option<Tally>,
    /// The last report's median is beyond nine tenths of all runs before it.
    pub slower: bool,
}

/// How a figure is spread, in milliseconds; by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many runs.
    pub n: usize,
    /// The least.
    pub min: u64,
    /// Half of the runs are at or below it.
    pub median: u64,
    /// Nine of ten are at or below it.
    pub p90: u64,
    /// The greatest.
    pub max: u64,
}

impl Tally {
    fn of(figures: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<u64> = figures.collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1));
        Some(Self {
            n: sorted.len(),
            min: *sorted.first()?,
            median: *rank(50)?,
            p90: *rank(90)?,
            max: *sorted.last()?,
        })
    }
}

/// Groups kept reports, oldest first, by what can be compared. A void drill says nothing and is left out.
pub fn compare(kept: &[Kept]) -> Vec<Comparison> {
    let mut groups: BTreeMap<Subject, Vec<&Kept>> = BTreeMap::new();
    for one in kept.iter().filter(|one| one.report.verdict != Verdict::Void) {
        let subject = Subject {
            scenario: one.report.scenario.clone(),
            app: one.app.clone(),
            settings: one.settings.clone(),
        };
        groups.entry(subject).or_default().push(one);
    }
    let comparison = |(subject, kept): (Subject, Vec<&Kept>)| {
        let runs = || kept.iter().flat_map(|one| &one.report.runs);
        Comparison {
            subject,
            reads: figures(&kept, |run| run.rto_reads_ms),
            writes: figures(&kept, |run| run.rto_writes_ms),
            lost: runs().map(|run| run.lost.len()).sum(),
            two_writers_ms_max: runs().map(|run| run.two_writers_ms).max().unwrap_or(0),
        }
    };
    groups.into_iter().map(comparison).collect()
}

fn figures(kept: &[&Kept], figure: impl Fn(&Run) -> Option<u64>) -> Figures {
    let tally = |kept: &[&Kept]| Tally::of(kept.iter().flat_map(|one| &one.report.runs).filter_map(&figure));
    let (before, last) = kept.split_at(kept.len().saturating_sub(1));
    let (before, last) = (tally(before), tally(last));
    let slower = match (&before, &last) {
        (Some(before), Some(last)) => before.n >= BEFORE_MIN && last.median > before.p90,
        _ => false,
    };
    Figures { all: tally(kept), last, before, slower }
}

/// The comparisons as a person reads them.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut text = String::new();
    for Comparison { subject, reads, writes, lost, two_writers_ms_max } in comparisons {
        let Settings { commit, lease_ttl_ms, places } = &subject.settings;
        let _ = writeln!(
            text,
            "{} · {} · commit {commit} · lease {lease_ttl_ms} ms · {} places",
            subject.scenario,
            subject.app,
            places.len()
        );
        let _ =
            writeln!(text, "  (ms)            n      min   median      p90      max   last against before");
        for (what, figures) in [("reads back", reads), ("writes back", writes)] {
            let Some(all) = figures.all else {
                let _ = writeln!(text, "  {what:<12} never");
                continue;
            };
            let against = match (figures.last, figures.before) {
                (Some(last), Some(before)) => {
                    let word = if figures.slower { "  SLOWER" } else { "" };
                    format!("{} against {}{word}", last.median, before.median)
                }
                (Some(_), None) => "the first".to_owned(),
                (None, _) => "not recovered the last time".to_owned(),
            };
            let Tally { n, min, median, p90, max } = all;
            let _ = writeln!(text, "  {what:<12} {n:>4} {min:>8} {median:>8} {p90:>8} {max:>8}   {against}");
        }
        let both = match two_writers_ms_max {
            0 => "never two writers".to_owned(),
            both => format!("TWO WRITERS FOR {both} ms"),
        };
        let _ = writeln!(text, "  {lost} acknowledged writes lost, {both}");
    }
    text.push_str("Measured on one machine over an emulated WAN.");
    text
}

#[cfg(test)]
mod tests {
    use isles_model::topology::Pattern;

    use super::*;
    use crate::report::{Objectives, Report};

    fn kept(scenario: &str, lease_ttl_ms: u64, writes: &[Option<u64>]) -> Kept {
        let settings = Settings { commit: "async".into(), lease_ttl_ms, places: Vec::new() };
        let run = |rto_writes_ms: &Option<u64>| Run { rto_writes_ms: *rto_writes_ms, ..Run::default() };
        let report = Report {
            scenario: scenario.into(),
            pattern: Pattern::ReadReplicas,
            regions: 3,
            verdict: Verdict::Pass,
            because: Vec::new(),
            runs: writes.iter().map(run).collect(),
            summary: None,
            objectives: Objectives { rto_ms: 15000, rpo_writes: None },
            app: "shop".into(),
            settings: settings.clone(),
            distances: Vec::new(),
        };
        let (at, app, isles) = (String::new(), "shop".into(), String::new());
        Kept { at, app, isles, settings, distances: Vec::new(), report }
    }

    #[test]
    fn only_the_same_drill_with_the_same_settings_is_compared() {
        let all =
            [kept("stall", 1500, &[Some(1)]), kept("stall", 3000, &[Some(2)]), kept("agent", 1500, &[])];
        assert_eq!(compare(&all).len(), 3);
        let mut void = kept("stall", 1500, &[Some(9)]);
        void.report.verdict = Verdict::Void;
        assert!(compare(&[void]).is_empty());
    }

    #[test]
    fn the_last_report_is_slower_when_its_median_is_beyond_nine_tenths_of_those_before() {
        let before = || kept("stall", 1500, &(10..=30).map(Some).collect::<Vec<_>>());
        let figures = |last: &[Option<u64>]| compare(&[before(), kept("stall", 1500, last)])[0].writes;
        let tally = figures(&[None]).all.unwrap();
        assert_eq!((tally.n, tally.min, tally.median, tally.p90, tally.max), (21, 10, 20, 28, 30));
        assert!(!figures(&[Some(28), None, Some(90), Some(5)]).slower);
        assert!(figures(&[Some(29), Some(29)]).slower);
        assert!(
            !compare(&[kept("stall", 1500, &[Some(1)]), kept("stall", 1500, &[Some(9)])])[0].writes.slower
        );
        let text = table(&compare(&[before(), kept("stall", 1500, &[Some(29)])]));
        assert!(text.contains("29 against 20  SLOWER") && text.contains("reads back   never"), "{text}");
    }
}
