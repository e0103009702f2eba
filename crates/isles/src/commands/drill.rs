//! Breaks the running lab on purpose and measures what users would have seen; starts a lab when none runs, and stops
//! what it started.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use isles_lab::{
    control::Client,
    drill::{self, Orders, Paths, Progress},
    layout::Layout,
    report::{self, Report, Verdict},
};
use isles_model::{
    RegionName,
    drill::{self as text, CATALOGUE, built_in},
};

use super::ground;
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
    /// Which drill: a name of `--list`, or a file of your own (./my.drill).
    #[arg(required_unless_present = "list")]
    drill: Option<String>,
    /// Show the drills that come with Isles.
    #[arg(long)]
    list: bool,
    /// Print the drill's text, to begin one of your own from.
    #[arg(long)]
    show: bool,
    /// Which region plays the writer's part [default: the one that writes when a run begins].
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
}

fn path(text: &str) -> Result<String, String> {
    let parsed: Result<http::uri::PathAndQuery, _> = text.parse();
    match parsed {
        Ok(path) if text.starts_with('/') => Ok(path.to_string()),
        Ok(_) | Err(_) => Err("expected a path that begins with a slash, as in /api/products".into()),
    }
}

/// Drills, keeps the report, and says whether the spec's promises were kept.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let Some(wanted) = args.drill.as_ref().filter(|_| !args.list) else {
        return list(global);
    };
    let (name, text) = find(wanted)?;
    let drill = text::parse(&name, &text).map_err(Failure::diagnostic)?;
    if args.show {
        say(text.trim_end());
        return Ok(Exit::Done);
    }
    let rigs = drill::rigs(&drill);
    let paths = Paths { read: args.path.clone(), post: args.post.clone() };
    let orders = Orders { drill, region: args.region.clone(), repeat: args.repeat, paths };
    let layout = running::layout(global)?;
    ground::with_lab(global, &layout, rigs, || running::block_on(guarded(global, &orders, &layout)))
}

/// The drills that come with Isles, with the first line of what each shows.
fn list(global: &Global) -> Outcome {
    let mut drills = Vec::new();
    for (name, text) in CATALOGUE {
        let drill = text::parse(name, text).map_err(Failure::diagnostic)?;
        drills.push(drill);
    }
    if global.json {
        let value = |drill: &text::Drill| {
            let (least, most) = (drill.regions.start(), drill.regions.end());
            serde_json::json!({ "drill": drill.name, "says": drill.says.join(" "), "regions": [least, most] })
        };
        say(&serde_json::Value::Array(drills.iter().map(value).collect()).to_string());
        return Ok(Exit::Done);
    }
    for drill in &drills {
        let says = drill.says.first().map_or("", String::as_str);
        say(&format!("{:<26} {says}", drill.name));
    }
    say("Next: isles drill NAME, or isles drill NAME --show > my.drill");
    Ok(Exit::Done)
}

/// The text of a drill, and what to call it.
fn find(wanted: &str) -> Result<(String, String), Failure> {
    if let Some(text) = built_in(wanted) {
        return Ok((wanted.to_owned(), text.to_owned()));
    }
    let is_file = wanted.contains('/') || Path::new(wanted).extension().is_some();
    if !is_file {
        let names: Vec<&str> = CATALOGUE.iter().map(|(name, _)| *name).collect();
        let help = format!("there are {}; a file of your own needs a slash: ./{wanted}", names.join(", "));
        return Err(Failure::usage(format!("there is no drill `{wanted}`"), help));
    }
    let failed = |source| {
        Failure::with_help(
            ReadDrill { path: wanted.into(), source },
            "isles drill --list shows those that are there",
        )
    };
    let length = fs::metadata(wanted).map_err(failed)?.len();
    if length > text::DRILL_BYTES_MAX as u64 {
        return Err(Failure::message(format!("{wanted} has {length} bytes"), "is this the right file?"));
    }
    Ok((wanted.to_owned(), fs::read_to_string(wanted).map_err(failed)?))
}

/// Why a drill could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
struct ReadDrill {
    path: PathBuf,
    source: std::io::Error,
}

/// Drills until it is done or the user has had enough.
async fn guarded(global: &Global, orders: &Orders, layout: &Layout) -> Outcome {
    let lab = Client::new(layout.control_socket());
    let watcher = watcher(global);
    let drilled = tokio::select! {
        drilled = drill::drill(&lab, orders, &watcher) => drilled,
        () = ground::interrupted() => return Err(ground::interrupted_failure(&lab).await),
    };
    match drilled {
        Ok(report) => finish(global, layout, &report),
        Err(error) => Err(ground::failure(&lab, error).await),
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
