//! Lists the reports that drills have left beside the spec, so that days and configurations can be compared.

use std::fmt::Write as _;

use isles_lab::report::{self, Kept, Spread};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// The arguments of `isles report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the newest report whole instead of a line for each.
    #[arg(long)]
    last: bool,
    /// Compare all results of the same drill, app and settings: how they are spread, and the last against those before.
    #[arg(long, conflicts_with = "last")]
    compare: bool,
}

/// Shows what was kept; having none is not an error.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let dir = running::layout(global)?.beside_spec().join("reports");
    let mut kept = report::list(&dir).map_err(Failure::new)?;
    if args.last {
        kept = kept.pop().into_iter().collect();
    }
    if args.compare {
        let comparisons = report::compare(&kept);
        if global.json {
            say(&serde_json::to_string(&comparisons).map_err(Failure::new)?);
        } else {
            say(&report::comparison_table(&comparisons));
        }
        let slower = comparisons.iter().any(|one| one.reads.slower || one.writes.slower);
        return Ok(if slower { Exit::Finding } else { Exit::Done });
    }
    if global.json {
        say(&serde_json::to_string(&kept).map_err(Failure::new)?);
    } else if kept.is_empty() {
        say("No drill has been kept yet.\nNext: isles drill region-outage");
    } else if args.last {
        kept.iter().for_each(|kept| say(kept.report.to_string().trim_end()));
    } else {
        say(table(&kept).trim_end());
    }
    Ok(Exit::Done)
}

fn table(kept: &[Kept]) -> String {
    let mut text = String::from(
        "drilled               scenario        verdict  runs   reads back median/p99 ms  writes back median/p99 ms    lost  two writers\n",
    );
    for Kept { at, report, .. } in kept {
        let runs = &report.runs;
        let reads = spread(Spread::of(runs.iter().filter_map(|run| run.rto_reads_ms)));
        let writes = spread(Spread::of(runs.iter().filter_map(|run| run.rto_writes_ms)));
        let lost: usize = runs.iter().map(|run| run.lost.len()).sum();
        let both = runs.iter().map(|run| run.two_writers_ms).max().unwrap_or(0);
        let both = if both == 0 { "never".to_owned() } else { format!("{both} ms") };
        let (scenario, verdict) = (&report.scenario, report.verdict);
        let _ = writeln!(
            text,
            "{at}  {scenario:<14}  {verdict:<7}  {:>4}  {reads:>24}  {writes:>25}  {lost:>6}  {both:>11}",
            runs.len()
        );
    }
    text.push_str("Measured on one machine over an emulated WAN.");
    text
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "never".to_owned(), |spread| format!("{}/{}", spread.median, spread.p99))
}
