//! Breaks the running lab in many ways at once, by chance but from a seed, and judges every write that anybody made.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use isles_agent::journal;
use isles_lab::{
    control::{Client, Rigs},
    drill::{
        Progress, Watcher,
        torture::{self, JOURNALS_DIR, Orders, Replayed, SCHEDULE_FILE, TortureReport},
    },
    layout::Layout,
    report::{Verdict, stamp},
    supervisor,
};

use super::ground;
use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// The longest torture, in minutes; for more, run several with seeds of their own.
const MINUTES_MAX: f64 = 60.0;
/// The shortest, in minutes.
const MINUTES_MIN: f64 = 0.1;

/// The arguments of `isles torture`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long faults are made.
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    /// The same seed on the same lab gives the same faults [default: another one each time].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Let the lease store lose more members than it survives, too.
    #[arg(long)]
    quorum: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (MINUTES_MIN..=MINUTES_MAX).contains(&minutes) => Ok(minutes),
        _ => Err(format!("expected a number of minutes from {MINUTES_MIN} to {MINUTES_MAX}")),
    }
}

/// Tortures, keeps what was found, and says whether every promise was kept.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let seed = args.seed.unwrap_or_else(|| u64::try_from(now % 1_000_000_000).unwrap_or(1));
    if !global.json {
        say(&format!("Seed: {seed}"));
    }
    let layout = running::layout(global)?;
    let orders = Orders {
        seed,
        length: Duration::from_secs_f64(args.minutes * 60.0),
        quorum: args.quorum,
        orders: takes_orders(),
        dir: layout.beside_spec().join("reports").join(format!("{}-torture-{seed}", stamp())),
    };
    ground::with_lab(global, &layout, rigs(), || running::block_on(guarded(global, &orders, &layout)))
}

/// Whatever this machine can do besides.
fn rigs() -> Rigs {
    let able = |rigs: &Rigs| supervisor::check_rigs(*rigs).is_ok();
    let clocks = Some(Rigs { movable_clocks: true, small_disks: false }).filter(able).is_some();
    let disks = Some(Rigs { movable_clocks: false, small_disks: true }).filter(able).is_some();
    Rigs { movable_clocks: clocks, small_disks: disks }
}

/// Whether this program has the operator's commands.
fn takes_orders() -> bool {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["switchover", "--help"]).stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}

async fn guarded(global: &Global, orders: &Orders, layout: &Layout) -> Outcome {
    let lab = Client::new(layout.control_socket());
    let watcher = watcher(global);
    let tortured = tokio::select! {
        tortured = torture::torture(&lab, orders, &watcher) => tortured,
        () = ground::interrupted() => return Err(ground::interrupted_failure(&lab).await),
    };
    match tortured {
        Ok(report) => finish(global, orders, report),
        Err(error) => {
            if !global.json {
                say(&format!("Seed: {}", orders.seed));
            }
            Err(ground::failure(&lab, error).await)
        }
    }
}

fn finish(global: &Global, orders: &Orders, mut report: TortureReport) -> Outcome {
    report.replayed = Some(replay(&orders.dir.join(JOURNALS_DIR)));
    report.judge();
    let path = orders.dir.join("report.json");
    let text = serde_json::to_string(&report).map_err(Failure::new)?;
    let kept = fs::write(&path, format!("{text}\n"));
    if global.json {
        say(&text);
    } else {
        let schedule = orders.dir.join(SCHEDULE_FILE);
        match kept {
            Ok(()) => say(&format!("Kept: {}", orders.dir.display())),
            Err(error) => say(&format!("Not kept: {error}")),
        }
        say(&format!("Next: isles drill {} repeats the faults", schedule.display()));
        say(report.to_string().trim_end());
    }
    Ok(match report.verdict {
        Verdict::Pass => Exit::Done,
        Verdict::Missed | Verdict::Void => Exit::Finding,
    })
}

/// Makes every decision again that the agents' journals tell of.
fn replay(dir: &Path) -> Replayed {
    let mut replayed = Replayed::default();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut journals: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    journals.sort();
    for path in journals {
        let mut differ = 0;
        match journal::replay(&path, |one| differ += u64::from(one.differs_from.is_some())) {
            Ok(ticks) => {
                replayed.journals += 1;
                replayed.decisions += ticks;
            }
            Err(error) => {
                tracing::warn!(journal = %path.display(), %error, "A journal could not be read to the end.");
                replayed.unreadable += 1;
            }
        }
        replayed.differ += differ;
    }
    replayed
}

fn watcher(global: &Global) -> Watcher {
    let silent = global.json || global.quiet;
    Arc::new(move |progress| {
        let Progress::Step { doing, .. } = progress else { return };
        if !silent {
            // A reader that has gone away is not an error.
            let _ = writeln!(std::io::stderr(), "  {doing}");
        }
    })
}
