//! The result of a series: every trial and the settings as JSON, the comparison as a Markdown table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{case::Case, statistics::Summary, system::System, trial::Finding};

/// One trial, as it is kept.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trial {
    /// Whose.
    pub(crate) system: System,
    /// What was done.
    pub(crate) case: Case,
    /// Which round, counted from 1.
    pub(crate) round: u32,
    /// What came of it; `None` when it could not be made.
    pub(crate) finding: Option<Finding>,
    /// Why it could not be made.
    pub(crate) failed: Option<String>,
}

/// The machine and the programs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Processors.
    pub(crate) processors: usize,
    /// `uname -sr`.
    pub(crate) kernel: String,
    /// `postgres --version`.
    pub(crate) postgres: String,
    /// `isles --version`.
    pub(crate) isles: String,
    /// `patroni --version`.
    pub(crate) patroni: String,
    /// `pg_autoctl --version`, its first line.
    pub(crate) auto_failover: String,
}

/// A series, as far as it has come.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    /// Where it was made.
    pub(crate) machine: Machine,
    /// In the order in which they were made.
    pub(crate) trials: Vec<Trial>,
}

/// One cell of the table.
#[derive(Debug, Serialize)]
struct Cell {
    system: System,
    case: Case,
    /// Seconds of the trials that recovered.
    seconds: Option<Summary>,
    /// Trials in which nobody could write again in time.
    not_recovered: usize,
    /// Trials that could not be made.
    not_made: usize,
    /// The greatest number of acknowledged writes that a trial lost outside and inside.
    lost_outside_max: usize,
    lost_inside_max: usize,
}

impl Results {
    /// Everything, for a program.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "machine": self.machine,
            "unit": "seconds",
            "cells": self.cells(),
            "trials": self.trials,
        })
    }

    /// The comparison, for a person.
    pub(crate) fn markdown(&self) -> String {
        let cells = self.cells();
        let systems: Vec<System> = System::ALL
            .into_iter()
            .filter(|system| cells.iter().any(|cell| cell.system == *system))
            .collect();
        let cases: Vec<Case> =
            Case::ALL.into_iter().filter(|case| cells.iter().any(|cell| cell.case == *case)).collect();
        let cell = |system, case| cells.iter().find(|cell| cell.system == system && cell.case == case);
        let mut text = String::from(
            "Seconds from the fault to the first acknowledged write: min / median / p99 (n). \
             With fewer than 100 trials, p99 is the greatest.\n\n",
        );
        head(&mut text, &cases);
        for system in &systems {
            let row =
                cases.iter().map(|case| cell(*system, *case).map_or_else(|| "-".to_owned(), Cell::times));
            line(&mut text, system.title(), row);
        }
        let ratios = cases.iter().map(|case| {
            let own = cell(System::Isles, *case).and_then(|cell| cell.seconds);
            let peers = systems.iter().filter(|system| system.is_peer());
            ratio(own, peers.filter_map(|system| cell(*system, *case)?.seconds))
        });
        line(&mut text, "best peer / Isles: median, p99", ratios);
        text.push_str(
            "\nAcknowledged writes that the final table does not hold, the greatest number of any trial: \
             of a client outside + of an app inside the region.\n\n",
        );
        head(&mut text, &cases);
        for system in &systems {
            let row =
                cases.iter().map(|case| cell(*system, *case).map_or_else(|| "-".to_owned(), Cell::losses));
            line(&mut text, system.title(), row);
        }
        self.notes(&mut text);
        text
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for system in System::ALL {
            for case in Case::ALL {
                let trials: Vec<&Trial> =
                    self.trials.iter().filter(|trial| trial.system == system && trial.case == case).collect();
                if trials.is_empty() {
                    continue;
                }
                let found: Vec<&Finding> = trials.iter().filter_map(|trial| trial.finding.as_ref()).collect();
                cells.push(Cell {
                    system,
                    case,
                    seconds: Summary::of(found.iter().filter_map(|finding| finding.seconds)),
                    not_recovered: found.iter().filter(|finding| finding.seconds.is_none()).count(),
                    not_made: trials.len() - found.len(),
                    lost_outside_max: found.iter().map(|finding| finding.lost_outside).max().unwrap_or(0),
                    lost_inside_max: found.iter().map(|finding| finding.lost_inside).max().unwrap_or(0),
                });
            }
        }
        cells
    }

    /// What went otherwise than planned, a line a trial.
    fn notes(&self, text: &mut String) {
        let mut lines = Vec::new();
        for Trial { system, case, round, finding, failed } in &self.trials {
            let mut said: Vec<String> = failed.iter().map(|failed| format!("not made: {failed}")).collect();
            if let Some(finding) = finding {
                said.extend(finding.seconds.is_none().then(|| "nobody could write again in time".to_owned()));
                said.extend(finding.notes.iter().cloned());
            }
            lines.extend(
                said.iter().map(|said| format!("- {} {case} round {round}: {said}\n", system.name())),
            );
        }
        if !lines.is_empty() {
            text.push_str("\nNotes:\n\n");
            text.extend(lines);
        }
    }
}

impl Cell {
    fn times(&self) -> String {
        let mut text = match self.seconds {
            Some(Summary { n, min, median, p99 }) => format!("{min:.2} / {median:.2} / {p99:.2} ({n})"),
            None => String::new(),
        };
        if self.not_recovered > 0 {
            let _ = write!(text, " not recovered: {}", self.not_recovered);
        }
        if self.not_made > 0 {
            let _ = write!(text, " not made: {}", self.not_made);
        }
        text.trim().to_owned()
    }

    fn losses(&self) -> String {
        match (self.seconds, self.not_recovered) {
            (None, 0) => "-".to_owned(),
            _ => format!("{} + {}", self.lost_outside_max, self.lost_inside_max),
        }
    }
}

/// How many times longer the best peer takes, at the median and at the tail.
fn ratio(own: Option<Summary>, peers: impl Iterator<Item = Summary>) -> String {
    let peers: Vec<Summary> = peers.collect();
    let best = |of: fn(&Summary) -> f64| peers.iter().map(of).min_by(f64::total_cmp);
    let (Some(own), Some(median), Some(p99)) = (own, best(|s| s.median), best(|s| s.p99)) else {
        return "-".to_owned();
    };
    format!("{:.1}, {:.1}", median / own.median, p99 / own.p99)
}

fn head(text: &mut String, cases: &[Case]) {
    line(text, "", cases.iter().map(|case| case.title().to_owned()));
    line(text, "---", cases.iter().map(|_| "---".to_owned()));
}

fn line(text: &mut String, first: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(system: System, case: Case, seconds: Option<f64>, lost_inside: usize) -> Trial {
        let finding = Finding { seconds, lost_inside, ..Finding::default() };
        Trial { system, case, round: 1, finding: Some(finding), failed: None }
    }

    fn results(trials: Vec<Trial>) -> Results {
        let machine = Machine {
            processors: 2,
            kernel: "Linux".into(),
            postgres: "15".into(),
            isles: "0".into(),
            patroni: "3".into(),
            auto_failover: "2".into(),
        };
        Results { machine, trials }
    }

    #[test]
    fn the_ratio_is_to_the_best_peer_of_each_column() {
        let text = results(vec![
            trial(System::Isles, Case::Killed, Some(1.5), 3),
            trial(System::Patroni, Case::Killed, Some(24.0), 0),
            trial(System::AutoFailoverTight, Case::Killed, Some(3.0), 0),
        ])
        .markdown();
        assert!(text.contains("| Isles, defaults | 1.50 / 1.50 / 1.50 (1) |"), "{text}");
        assert!(text.contains("| best peer / Isles: median, p99 | 2.0, 2.0 |"), "{text}");
        assert!(text.contains("| Isles, defaults | 0 + 3 |"), "{text}");
        assert!(!text.contains("link cut") && !text.contains("Notes"), "{text}");
    }

    #[test]
    fn a_trial_that_did_not_recover_is_named_and_is_no_number() {
        let mut failed = trial(System::Patroni, Case::Planned, None, 0);
        failed.finding = None;
        failed.failed = Some("not available".into());
        let text = results(vec![trial(System::Patroni, Case::Network, None, 0), failed]).markdown();
        assert!(text.contains("| not recovered: 1 | not made: 1 |"), "{text}");
        assert!(text.contains("- patroni N round 1: nobody could write again in time"), "{text}");
        assert!(text.contains("- patroni P round 1: not made: not available"), "{text}");
        assert!(text.contains("median, p99 | - | - |"), "{text}");
    }
}
