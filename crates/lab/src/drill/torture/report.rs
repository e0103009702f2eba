//! What a torture found: the object that `--json` prints, whose keys stay stable, and the same for people.

use std::fmt::{self, Display, Formatter};

use isles_model::topology::Pattern;
use serde::{Deserialize, Serialize};

use crate::report::Verdict;

/// The result of a torture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TortureReport {
    /// The same seed on the same lab gives the same faults.
    pub seed: u64,
    /// How long faults were made.
    pub minutes: f64,
    /// Who takes traffic, who takes writes.
    pub pattern: Pattern,
    /// How many regions there are.
    pub regions: usize,
    /// How many faults and orders there were.
    pub faults: usize,
    /// Appends, swaps and reads that were tried.
    pub tries: usize,
    /// Acknowledged appends and swaps.
    pub acknowledged: usize,
    /// Acknowledged appends that are gone, by number.
    pub lost: Vec<u64>,
    /// Whether the spec's commit mode allows none to be lost.
    pub none_lost: bool,
    /// Pairs of acknowledged swaps that replaced the same number.
    pub conflicts: usize,
    /// Rows that differ between the regions in the end.
    pub divergent_rows: usize,
    /// For how long two regions took writes at once, in milliseconds.
    pub two_writers_ms: u64,
    /// The longest time without an acknowledgement anywhere, faults included, in milliseconds.
    pub longest_without_writer_ms: u64,
    /// The same, counted from a moment at which everything had been mended, in milliseconds.
    pub longest_after_heal_ms: u64,
    /// What that may be at most: two times-to-live of the right to write and ten seconds, in milliseconds.
    pub back_within_ms: u64,
    /// How often the right to write was claimed, the first claim included.
    pub epochs: usize,
    /// What operators' orders were answered when they were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// What the history shows that must not be.
    pub violations: Vec<String>,
    /// The agents' decisions, made again from their journals.
    pub replayed: Option<Replayed>,
    /// Whether every promise was kept.
    pub verdict: Verdict,
    /// Why it is not a pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

/// Decisions made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replayed {
    /// Journals that were whole.
    pub journals: usize,
    /// Journals that could not be read to the end.
    pub unreadable: usize,
    /// How many decisions.
    pub decisions: u64,
    /// How many came out otherwise.
    pub differ: u64,
}

impl Default for TortureReport {
    fn default() -> Self {
        Self {
            seed: 0,
            minutes: 0.0,
            pattern: Pattern::ReadReplicas,
            regions: 0,
            faults: 0,
            tries: 0,
            acknowledged: 0,
            lost: Vec::new(),
            none_lost: false,
            conflicts: 0,
            divergent_rows: 0,
            two_writers_ms: 0,
            longest_without_writer_ms: 0,
            longest_after_heal_ms: 0,
            back_within_ms: 0,
            epochs: 0,
            refused: Vec::new(),
            violations: Vec::new(),
            replayed: None,
            verdict: Verdict::Pass,
            because: Vec::new(),
        }
    }
}

impl TortureReport {
    /// Comes to the verdict; again, when something has been added.
    pub fn judge(&mut self) {
        let mut because = Vec::new();
        let mut unless = |fine: bool, text: String| because.extend((!fine).then_some(text));
        unless(self.acknowledged > 0, "nothing was acknowledged, so nothing was shown".to_owned());
        unless(
            self.lost.is_empty() || !self.none_lost,
            format!("{} acknowledged writes were lost; promised: none", self.lost.len()),
        );
        unless(
            self.violations.is_empty(),
            format!("the history shows {} things that must not be", self.violations.len()),
        );
        unless(self.divergent_rows == 0, format!("{} rows differ between the regions", self.divergent_rows));
        unless(
            self.two_writers_ms == 0,
            format!("two regions took writes at once for {} ms", self.two_writers_ms),
        );
        unless(
            self.longest_after_heal_ms <= self.back_within_ms,
            format!(
                "with everything mended, nobody could write for {} ms; allowed: {} ms",
                self.longest_after_heal_ms, self.back_within_ms
            ),
        );
        let differ = self.replayed.map_or(0, |replayed| replayed.differ);
        unless(differ == 0, format!("{differ} decisions came out otherwise when they were made again"));
        self.verdict = if because.is_empty() { Verdict::Pass } else { Verdict::Missed };
        self.because = because;
    }
}

impl Display for TortureReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { seed, minutes, regions, faults, tries, acknowledged, .. } = self;
        writeln!(f, "torture · {regions} regions · {minutes:.1} minutes · {faults} faults · seed {seed}")?;
        writeln!(f, "  tries            {tries}; {acknowledged} writes acknowledged")?;
        let promise = if self.none_lost { "none may be" } else { "counted, not promised" };
        writeln!(f, "  writes lost      {} ({promise})", self.lost.len())?;
        writeln!(f, "  conflicts        {}", self.conflicts)?;
        writeln!(f, "  divergent rows   {}", self.divergent_rows)?;
        match self.two_writers_ms {
            0 => writeln!(f, "  two writers      never; every database was tried every 10 ms")?,
            both => writeln!(f, "  two writers      FOR {both} ms TWO REGIONS TOOK WRITES AT ONCE")?,
        }
        writeln!(f, "  without a writer {} ms at most, faults included", self.longest_without_writer_ms)?;
        writeln!(
            f,
            "                   {} ms at most once everything was mended; allowed: {} ms",
            self.longest_after_heal_ms, self.back_within_ms
        )?;
        writeln!(f, "  right to write   claimed {} times", self.epochs)?;
        if !self.refused.is_empty() {
            writeln!(f, "  orders refused   {}", self.refused.len())?;
        }
        if let Some(Replayed { journals, unreadable, decisions, differ }) = self.replayed {
            write!(f, "  decisions        {decisions} replayed from {journals} journals, {differ} differ")?;
            if unreadable > 0 {
                write!(f, "; {unreadable} journals could not be read to the end")?;
            }
            writeln!(f)?;
        }
        match self.verdict {
            Verdict::Pass => writeln!(f, "\nVerdict: pass.")?,
            Verdict::Missed | Verdict::Void => writeln!(f, "\nVerdict: missed.")?,
        }
        for because in &self.because {
            writeln!(f, "  {because}")?;
        }
        for violation in &self.violations {
            writeln!(f, "    {violation}")?;
        }
        writeln!(f, "Measured on one machine over an emulated WAN; a cloud's networks and disks differ.")?;
        writeln!(f, "Seed: {seed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_object_has_the_promised_keys() {
        let value = serde_json::to_value(TortureReport::default()).unwrap();
        for key in [
            "seed",
            "minutes",
            "pattern",
            "faults",
            "acknowledged",
            "lost",
            "conflicts",
            "divergent_rows",
            "two_writers_ms",
            "longest_without_writer_ms",
            "verdict",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn each_broken_promise_is_a_miss_and_is_named() {
        let good =
            || TortureReport { acknowledged: 9, lost: vec![4], back_within_ms: 10, ..Default::default() };
        let check = |mut report: TortureReport, because: &str| {
            report.judge();
            assert_eq!(report.verdict == Verdict::Pass, because.is_empty(), "{report}");
            assert!(report.to_string().contains(because), "{report}");
        };
        check(good(), "");
        check(TortureReport { acknowledged: 0, ..good() }, "nothing was shown");
        check(TortureReport { none_lost: true, ..good() }, "1 acknowledged writes were lost");
        check(TortureReport { violations: vec!["oh".into()], ..good() }, "1 things that must not be");
        check(TortureReport { divergent_rows: 2, ..good() }, "2 rows differ");
        check(TortureReport { two_writers_ms: 1, ..good() }, "two regions took writes at once for 1 ms");
        check(TortureReport { longest_after_heal_ms: 11, ..good() }, "nobody could write for 11 ms");
        let replayed = Some(Replayed { differ: 1, ..Replayed::default() });
        check(TortureReport { replayed, ..good() }, "1 decisions came out otherwise");
    }
}
