//! Breaks the running lab on purpose and measures what users would have seen; starts a lab when none runs, and stops
//! what it started.

use std::{io::Write as _, process::Stdio, sync::Arc};

use clap::ValueEnum;
use isles_lab::{
    control::Client,
    drill::{self, Orders, Paths, Progress, Scenario},
    layout::Layout,
    report::{self, Report, Verdict},
};
use isles_model::RegionName;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// The most runs of one drill.
const REPEAT_MAX: i64 = 1000;

/// The arguments of `isles drill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to break.
    scenario: Break,
    /// Which region [default: the one that writes when a run begins].
    #[arg(long)]
    region: Option<RegionName>,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=REPEAT_MAX))]
    repeat: u32,
    /// Path that users GET [default: the health check's].
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<String>,
    /// Path that users also POST {"n": NUMBER} to.
    #[arg(long, value_name = "PATH", value_parser = path)]
    post: Option<String>,
    /// database-crash: keep the database down until the drill has seen the failover.
    #[arg(long)]
    no_restart: bool,
}

/// What to break.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Break {
    /// Kill every process of a region, and start it again later.
    RegionOutage,
    /// Kill a region's PostgreSQL.
    DatabaseCrash,
}

fn path(text: &str) -> Result<String, String> {
    let parsed: Result<http::uri::PathAndQuery, _> = text.parse();
    match parsed {
        Ok(path) if text.starts_with('/') => Ok(path.to_string()),
        Ok(_) | Err(_) => Err("expected a path that begins with a slash, as in /api/products".into()),
    }
}

impl Args {
    fn orders(&self) -> Orders {
        Orders {
            scenario: match self.scenario {
                Break::RegionOutage => Scenario::RegionOutage,
                Break::DatabaseCrash => Scenario::DatabaseCrash,
            },
            region: self.region.clone(),
            repeat: self.repeat,
            restart: !self.no_restart,
            paths: Paths { read: self.path.clone(), post: self.post.clone() },
        }
    }
}

/// Drills, keeps the report, and says whether the spec's promises were kept.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let layout = running::layout(global)?;
    let started = !layout.is_locked();
    if started {
        isles(global, &["up", "--detach"])?;
    }
    let outcome = running::block_on(guarded(global, args, &layout));
    let stopped = if started { isles(global, &["down"]) } else { Ok(()) };
    let exit = outcome?;
    stopped.map(|()| exit)
}

/// Drills until it is done or the user has had enough.
async fn guarded(global: &Global, args: &Args, layout: &Layout) -> Outcome {
    let lab = Client::new(layout.control_socket());
    let orders = args.orders();
    let watcher = watcher(global);
    let drilled = tokio::select! {
        drilled = drill::drill(&lab, &orders, &watcher) => drilled,
        () = interrupted() => {
            drill::mend(&lab).await.map_err(Failure::new)?;
            let help = "what it had stopped has been started again";
            return Err(Failure::message("the drill was interrupted", help));
        }
    };
    match drilled {
        Ok(report) => finish(global, layout, &report),
        Err(error) => {
            // Because the first error is the one to be told, a second one is only noted.
            if let Err(second) = drill::mend(&lab).await {
                tracing::warn!(error = %second, "What the drill had stopped could not be started again.");
            }
            Err(Failure::with_help(
                error,
                "isles status shows the regions; isles logs shows what their parts wrote",
            ))
        }
    }
}

fn finish(global: &Global, layout: &Layout, report: &Report) -> Outcome {
    let kept = report::keep(&layout.beside_spec().join("reports"), report);
    if global.json {
        say(&serde_json::to_string(report).map_err(Failure::new)?);
    } else {
        say(report.to_string().trim_end());
        match &kept {
            Ok(path) => say(&format!("Kept: {}\nNext: isles report", path.display())),
            Err(error) => say(&format!("Not kept: {error}")),
        }
    }
    Ok(match report.verdict {
        Verdict::Pass => Exit::Done,
        Verdict::Missed | Verdict::Void => Exit::Finding,
    })
}

fn watcher(global: &Global) -> drill::Watcher {
    let silent = global.json || global.quiet;
    Arc::new(move |progress| {
        let Progress::Step { run, doing } = progress else { return };
        if silent {
            return;
        }
        let run = if run == 0 { String::new() } else { format!("run {run}: ") };
        // A reader that has gone away is not an error.
        let _ = writeln!(std::io::stderr(), "  {run}{doing}");
    })
}

/// Runs this program with other arguments; what it prints for programs is left out.
fn isles(global: &Global, args: &[&str]) -> Result<(), Failure> {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("-f").arg(&global.file).args(args).stdin(Stdio::null()).stdout(Stdio::null());
    if global.json || global.quiet {
        command.arg("--quiet");
    }
    let status = command.status().map_err(Failure::new)?;
    let failed =
        || Failure::message(format!("`isles {}` failed", args.join(" ")), "run it by itself to see why");
    if status.success() { Ok(()) } else { Err(failed()) }
}

/// Completes when the user or the system asks this process to end.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
