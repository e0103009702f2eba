//! What a drill found: the object that `--json` prints, whose keys stay stable.

mod compare;
mod kept;
mod text;

use std::{collections::BTreeSet, time::Duration};

use isles_model::{RegionName, topology::Pattern};
use serde::{Deserialize, Serialize};

pub use compare::{Comparison, Figures, Subject, Tally, compare, table as comparison_table};
pub use kept::{Kept, KeptError, keep, list, stamp};

use crate::{drill::whole_ms, timeline::Entry};

/// A measured distance may differ from the one asked for by so many percent.
const OFF_PERCENT_MAX: u128 = 5;
/// Or by so much, whatever the percentage: what a round trip on one machine takes.
const OFF_MIN: Duration = Duration::from_millis(1);

/// The result of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The drill's name.
    pub scenario: String,
    /// Who takes traffic, who takes writes.
    pub pattern: Pattern,
    /// How many regions there are.
    pub regions: usize,
    /// Whether the promises were kept.
    pub verdict: Verdict,
    /// Why it is not a pass; empty when it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// In order.
    pub runs: Vec<Run>,
    /// Over all runs, where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The promises.
    pub objectives: Objectives,
    /// The application's name. Not printed: the lab is known to whoever asks.
    #[serde(skip)]
    pub app: String,
    /// What the result depends on. Kept with the report.
    #[serde(skip)]
    pub settings: Settings,
    /// The distances between the regions. Kept with the report and told to people.
    #[serde(skip)]
    pub distances: Vec<Distance>,
}

/// What a result depends on besides the app: only results of the same settings can be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Settings {
    /// `async`, `bounded 500ms`, `remote`.
    pub commit: String,
    /// How long the right to write lasts after its last renewal, in milliseconds.
    pub lease_ttl_ms: u64,
    /// The regions, in the spec's order, and the witness.
    pub places: Vec<RegionName>,
}

impl Settings {
    /// Those of a spec.
    pub fn of(topology: &isles_model::Topology) -> Self {
        use isles_model::topology::Commit;
        Self {
            commit: match topology.database.commit {
                Commit::Async => "async".to_owned(),
                Commit::Bounded(bound) => format!("bounded {}", isles_model::spec::show_duration(bound)),
                Commit::Remote => "remote".to_owned(),
            },
            lease_ttl_ms: whole_ms(topology.quorum.lease_ttl),
            places: topology.region_names().chain(&topology.witness).cloned().collect(),
        }
    }
}

/// Whether the promises were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All of them, in every run.
    Pass,
    /// One of them was not.
    Missed,
    /// The drill ran over other distances than asked for: it says nothing.
    Void,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Missed => "missed",
            Self::Void => "void",
        })
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Run {
    /// From the fault until the last group of readers could read again, in milliseconds; `null`: they could not.
    pub rto_reads_ms: Option<u64>,
    /// From the fault to the first acknowledgement of a write that began after it, in milliseconds; `null`: there was none.
    pub rto_writes_ms: Option<u64>,
    /// The same as `rto_reads_ms`, counted from the drill's last act, where that is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_after_heal_ms: Option<u64>,
    /// The same as `rto_writes_ms`, counted from the drill's last act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_after_heal_ms: Option<u64>,
    /// How long writes paused in a planned change, in milliseconds; `null`: this was no planned change.
    pub pause_ms: Option<u64>,
    /// The longest time without an acknowledgement anywhere since the fault, in milliseconds: a fault may bite late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_pause_ms: Option<u64>,
    /// Acknowledged numbered writes.
    pub acknowledged: usize,
    /// The acknowledged writes that are gone, by number.
    pub lost: Vec<u64>,
    /// How many of them the ledger of the region that came back holds.
    pub stranded_recovered: usize,
    /// HTTP requests that users made.
    pub requests: usize,
    /// Those that failed although the user tried again.
    pub errors_seen: usize,
    /// For how long two regions took writes at once, in milliseconds.
    pub two_writers_ms: u64,
    /// The region that took over; `null`: the writer stayed where it was.
    pub failed_over_to: Option<RegionName>,
    /// What happened, in the order of time.
    pub timeline: Vec<Entry>,
}

/// The promises, as far as a drill scores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// Recovery time, in milliseconds.
    pub rto_ms: u64,
    /// How many acknowledged writes may be lost; `null`: as many as the objective's time allows, or no promise.
    pub rpo_writes: Option<u64>,
}

impl Objectives {
    /// Those of a spec.
    pub fn of(objectives: &isles_model::topology::Objectives) -> Self {
        let none_lost = objectives.rpo.is_some_and(|rpo| rpo.is_zero());
        Self { rto_ms: whole_ms(objectives.rto), rpo_writes: none_lost.then_some(0) }
    }
}

/// Over all runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Recovery time of reads; `null`: they did not recover in any run.
    pub rto_reads_ms: Option<Spread>,
    /// Recovery time of writes.
    pub rto_writes_ms: Option<Spread>,
    /// Runs in which reads or writes did not recover.
    pub not_recovered: usize,
    /// Acknowledged writes lost, all runs together.
    pub lost: usize,
    /// Errors that users saw, all runs together.
    pub errors_seen: usize,
    /// The longest time in which two regions took writes at once.
    pub two_writers_ms_max: u64,
    /// Where writes went.
    pub failed_over_to: BTreeSet<RegionName>,
}

impl Summary {
    /// Of these runs.
    pub fn of(runs: &[Run]) -> Self {
        let unrecovered = |run: &&Run| run.rto_reads_ms.is_none() || run.rto_writes_ms.is_none();
        Self {
            rto_reads_ms: Spread::of(runs.iter().filter_map(|run| run.rto_reads_ms)),
            rto_writes_ms: Spread::of(runs.iter().filter_map(|run| run.rto_writes_ms)),
            not_recovered: runs.iter().filter(unrecovered).count(),
            lost: runs.iter().map(|run| run.lost.len()).sum(),
            errors_seen: runs.iter().map(|run| run.errors_seen).sum(),
            two_writers_ms_max: runs.iter().map(|run| run.two_writers_ms).max().unwrap_or(0),
            failed_over_to: runs.iter().filter_map(|run| run.failed_over_to.clone()).collect(),
        }
    }
}

/// How a figure is spread over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// Half of the runs are at or below it (nearest rank).
    pub median: u64,
    /// 99 of 100 are at or below it (nearest rank); of fewer than 100 runs, the greatest.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

impl Spread {
    /// Of these figures; `None` of none.
    pub fn of(figures: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<u64> = figures.into_iter().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1));
        Some(Self { min: *sorted.first()?, median: *rank(50)?, p99: *rank(99)?, max: *sorted.last()? })
    }
}

/// The distance between two regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distance {
    /// One region.
    pub from: RegionName,
    /// The other.
    pub to: RegionName,
    /// The round trip of the planning table.
    pub asked: Duration,
    /// The round trip as measured through the lab's links; `None`: no answer came.
    pub measured: Option<Duration>,
}

impl Distance {
    /// Whether it was measured as asked for: within 5 %, or within a millisecond.
    pub fn holds(&self) -> bool {
        self.measured.is_some_and(|measured| {
            let off = measured.abs_diff(self.asked);
            off <= OFF_MIN || off.as_nanos() * 100 <= self.asked.as_nanos() * OFF_PERCENT_MAX
        })
    }

    /// What is wrong with it, in words.
    pub fn amiss(&self) -> String {
        let Self { from, to, asked, measured } = self;
        let asked = asked.as_secs_f64() * 1e3;
        match measured {
            Some(measured) => format!(
                "{from} to {to}: {asked:.1} ms asked, {:.1} ms measured",
                measured.as_secs_f64() * 1e3
            ),
            None => format!("{from} to {to}: {asked:.1} ms asked, no answer to measure"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_nearest_ranks() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([7]), Some(Spread { min: 7, median: 7, p99: 7, max: 7 }));
        let expect = Spread { min: 1, median: 100, p99: 198, max: 200 };
        assert_eq!(Spread::of((1..=200).rev()), Some(expect));
    }

    #[test]
    fn the_json_has_the_keys_that_were_promised() {
        let run = Run {
            rto_reads_ms: Some(310),
            rto_writes_ms: Some(1620),
            acknowledged: 1204,
            requests: 3870,
            failed_over_to: Some("us-east-1".parse().unwrap()),
            timeline: vec![Entry { at_ms: 0, event: "region stopped".into(), region: None }],
            ..Run::default()
        };
        let report = Report {
            scenario: "region-outage".into(),
            pattern: Pattern::ReadReplicas,
            regions: 3,
            verdict: Verdict::Pass,
            because: Vec::new(),
            runs: vec![run],
            summary: None,
            objectives: Objectives { rto_ms: 15000, rpo_writes: Some(0) },
            app: "shop".into(),
            settings: Settings::default(),
            distances: Vec::new(),
        };
        let expect: serde_json::Value = serde_json::from_str(
            r#"{"scenario": "region-outage", "pattern": "read-replicas", "regions": 3, "verdict": "pass",
                "runs": [{"rto_reads_ms": 310, "rto_writes_ms": 1620, "pause_ms": null, "acknowledged": 1204,
                          "lost": [], "stranded_recovered": 0, "requests": 3870, "errors_seen": 0,
                          "two_writers_ms": 0, "failed_over_to": "us-east-1",
                          "timeline": [{"at_ms": 0, "event": "region stopped"}]}],
                "objectives": {"rto_ms": 15000, "rpo_writes": 0}}"#,
        )
        .unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), expect);
    }

    #[test]
    fn a_distance_holds_within_five_percent_or_a_millisecond() {
        let holds = |asked, measured| {
            let (from, to) = ("a".parse().unwrap(), "b".parse().unwrap());
            let [asked, measured] = [asked, measured].map(Duration::from_micros);
            Distance { from, to, asked, measured: Some(measured) }.holds()
        };
        assert!(holds(80_000, 84_000) && holds(80_000, 76_000));
        assert!(!holds(80_000, 84_100) && !holds(80_000, 75_900));
        assert!(holds(2_000, 2_900));
    }
}
