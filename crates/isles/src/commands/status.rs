//! Shows each region's role, lease, lag and health, as its own agent tells it.

use std::{collections::BTreeMap, fmt::Write as _, io::IsTerminal as _, time::Duration};

use isles_lab::{
    control::{LabState, Part, PartPhase, RegionState},
    status, tail,
};
use isles_model::{Because, DatabaseRole, RegionName, Snapshot, Successor, TransferKind, Writes};
use tokio::task::JoinSet;

use crate::{
    cli::Global,
    outcome::{Exit, Outcome, say},
    running,
};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The arguments of `isles status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look again every second.
    #[arg(short, long)]
    watch: bool,
}

/// Prints the status; exit code 1 when a region is not ready for users.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    running::block_on(async {
        loop {
            let (_, state) = running::lab(global).await?;
            let snapshots = ask_all(&state).await;
            let sick = snapshots
                .values()
                .any(|snapshot| snapshot.as_ref().map_or(true, |snapshot| status::lacks(snapshot).is_some()));
            let text = if global.json { json(&state, &snapshots) } else { text(&state, &snapshots) };
            if args.watch && !global.json && std::io::stdout().is_terminal() {
                // Clears the screen and goes to its first line (ECMA-48, ED and CUP).
                say(&format!("\x1b[2J\x1b[H{text}"));
            } else {
                say(&text);
            }
            if !args.watch {
                return Ok(if sick { Exit::Finding } else { Exit::Done });
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    })
}

type Snapshots = BTreeMap<RegionName, Result<Snapshot, String>>;

async fn ask_all(state: &LabState) -> Snapshots {
    let mut asked = JoinSet::new();
    for region in &state.regions {
        let (name, control, held) = (region.region.clone(), region.control, region.held);
        asked.spawn(async move {
            let answer = status::snapshot(control)
                .await
                .map_err(|error| if held { "the region is kept down".to_owned() } else { error.to_string() });
            (name, answer)
        });
    }
    asked.join_all().await.into_iter().collect()
}

fn json(state: &LabState, snapshots: &Snapshots) -> String {
    let regions: BTreeMap<&RegionName, serde_json::Value> = snapshots
        .iter()
        .map(|(region, snapshot)| {
            let value = match snapshot {
                Ok(snapshot) => serde_json::json!({ "snapshot": snapshot, "lacks": status::lacks(snapshot) }),
                Err(error) => serde_json::json!({ "snapshot": null, "lacks": error }),
            };
            (region, value)
        })
        .collect();
    serde_json::json!({ "lab": state, "regions": regions }).to_string()
}

const HEAD: [&str; 8] = ["region", "role", "epoch", "lease", "lag", "app", "rtt to peers", "why"];

fn text(state: &LabState, snapshots: &Snapshots) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut notes = String::new();
    for region in &state.regions {
        match snapshots.get(&region.region) {
            Some(Ok(snapshot)) => {
                rows.push(row(region, snapshot));
                for finding in &snapshot.findings {
                    let _ = writeln!(notes, "  {}: {finding}", region.region);
                }
            }
            Some(Err(error)) => rows.push(silent(region, error)),
            None => {}
        }
        parts(&mut notes, region);
    }
    orders(&mut notes, snapshots);
    let body = align(&rows);
    if notes.is_empty() { body } else { format!("{body}\n{}", notes.trim_end()) }
}

/// What the operator has ordered, and how well the writer's commits are protected.
fn orders(notes: &mut String, snapshots: &Snapshots) {
    let shown = || snapshots.values().filter_map(|snapshot| snapshot.as_ref().ok());
    let Some(newest) =
        shown().max_by_key(|snapshot| snapshot.lease.as_ref().map(|(key, _)| (key.epoch, key.seq)))
    else {
        return;
    };
    if let Some((key, _)) = &newest.lease {
        match &key.successor {
            Successor::Any => {}
            Successor::Only { region } => {
                let _ =
                    writeln!(notes, "  commits are protected by {region}, which alone may take over unasked");
            }
            Successor::Nobody => {
                let _ = writeln!(
                    notes,
                    "  commits are NOT protected by another region; nobody takes over unasked"
                );
            }
        }
    }
    for region in &newest.orders.drained {
        let _ = writeln!(notes, "  {region} is drained; isles region undrain {region} lets it back");
    }
    if newest.orders.maintenance {
        let _ = writeln!(
            notes,
            "  maintenance is on: a lost writer is not replaced; isles maintenance off ends it"
        );
    }
    let standing = newest.orders.transfer.as_ref().filter(|transfer| transfer.from == newest.plan.epoch);
    if let Some(transfer) = standing {
        let kind = match transfer.kind {
            TransferKind::Switchover => "switchover",
            TransferKind::Failover => "failover",
        };
        let _ = writeln!(notes, "  a {kind} to {} is ordered and not done yet", transfer.to);
    }
}

fn row(region: &RegionState, snapshot: &Snapshot) -> [String; 8] {
    let report = &snapshot.report;
    let role = match &report.database.role {
        DatabaseRole::Writer { .. } => "WRITER".to_owned(),
        DatabaseRole::Replica { writer, copy: isles_model::Copy::Complete, .. } => {
            format!("replica of {writer}")
        }
        DatabaseRole::Replica { writer, copy: isles_model::Copy::Running, .. } => {
            format!("copying from {writer}")
        }
        DatabaseRole::Replica { writer, copy: isles_model::Copy::Extending, .. } => {
            format!("new tables from {writer}")
        }
        DatabaseRole::Fenced => "fenced".to_owned(),
    };
    let lease = snapshot.lease.as_ref().map_or_else(
        || "-".to_owned(),
        |(key, age)| format!("{} {:.1} s ago", key.holder, age.as_secs_f64()),
    );
    let lag = report
        .database
        .lag
        .map_or_else(|| "-".to_owned(), |lag| format!("{} B, {} ms", lag.bytes, lag.time.as_millis()));
    let up = report.app.healthy.iter().filter(|up| **up).count();
    let rtt: Vec<String> = snapshot
        .peers
        .values()
        .map(|peer| {
            peer.rtt.map_or_else(|| "silent".to_owned(), |rtt| format!("{:.0}", rtt.as_secs_f64() * 1000.0))
        })
        .collect();
    [
        region.region.to_string(),
        role,
        report.epoch.to_string(),
        lease,
        lag,
        format!("{up}/{}", report.app.healthy.len()),
        format!("{} ms", rtt.join(", ")),
        why(snapshot),
    ]
}

/// Why writes go where they go, and why this region serves or does not.
fn why(snapshot: &Snapshot) -> String {
    let serving = snapshot.plan.serve.iter().find(|serving| serving.region == snapshot.report.region);
    let serving = serving.map(|serving| serving.because);
    match (&snapshot.plan.writes, serving) {
        (Writes::Here { .. }, _) => Because::HoldsLease.to_string(),
        (Writes::At { region, .. }, Some(because)) => format!("{because}; writes go to {region}"),
        (Writes::At { region, .. }, None) => format!("writes go to {region}"),
        (Writes::Nowhere { because }, _) => format!("no writer: {because}"),
    }
}

fn silent(region: &RegionState, error: &str) -> [String; 8] {
    let dash = || "-".to_owned();
    [region.region.to_string(), dash(), dash(), dash(), dash(), dash(), dash(), error.to_owned()]
}

/// Processes that do not run.
fn parts(notes: &mut String, region: &RegionState) {
    for part in &region.parts {
        if part.part == Part::Postgres && tail::says_disk_full(&part.log) {
            let _ = writeln!(
                notes,
                "  {0}: postgres found its disk full; see isles logs {0} postgres",
                region.region
            );
        }
        let what = match part.phase {
            PartPhase::Running => continue,
            PartPhase::Waiting => "has not been started yet".to_owned(),
            PartPhase::Frozen => "is frozen by a drill".to_owned(),
            PartPhase::Restarting => {
                let (region, name) = (&region.region, part.part);
                format!(
                    "has ended {} times and is started again; see isles logs {region} {name}",
                    part.restarts
                )
            }
            PartPhase::Held => "is kept down by a drill".to_owned(),
        };
        let _ = writeln!(notes, "  {}: {} {what}", region.region, part.part);
    }
}

fn align(rows: &[[String; 8]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 8]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let row = |first: &str| [first, "b", "c", "d", "e", "f", "g", "h"].map(str::to_owned);
        assert_eq!(align(&[row("a"), row("long")]), "a     b  c  d  e  f  g  h\nlong  b  c  d  e  f  g  h");
    }
}
