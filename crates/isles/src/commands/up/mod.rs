//! Starts every region on this machine: shows each part as it becomes ready, and then where to connect.

mod background;
mod progress;

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use isles_lab::{
    blueprint::Wishes,
    control::{Client, LabState, Phase, Rigs},
    layout::Layout,
    requirements,
    supervisor::{self, Event, Settings, Watcher},
    table,
};
use isles_model::{RegionName, Topology};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, causes, say},
    running, spec_file,
};
use progress::Progress;

/// How often a lab that somebody else starts is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The arguments of `isles up`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Return when the lab is ready, and leave it running in the background.
    #[arg(short, long)]
    detach: bool,
    /// The first region's edge listens on this port, the next ones on those after it.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..65_000))]
    edge_port: Option<u16>,
    /// Where a region's PostgreSQL keeps its files.
    #[arg(long = "data-dir", value_name = "REGION=PATH")]
    data_dirs: Vec<DataDir>,
    /// What a drill may do to this lab besides: move the databases' wall clocks, fill their disks (needs root).
    #[arg(long = "with", value_name = "RIG", value_delimiter = ',')]
    pub(crate) rigs: Vec<Rig>,
    /// Say where the time went.
    #[arg(long)]
    timing: bool,
    /// Be the lab in the background (what `--detach` starts).
    #[arg(long, hide = true)]
    supervise: bool,
    /// This process has its own mounts already.
    #[arg(long, hide = true)]
    own_mounts: bool,
}

/// What a lab can do only if it was started for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rig {
    /// The databases' wall clocks can be moved.
    MovableClocks,
    /// Each database has a disk of its own that can be filled.
    SmallDisks,
}

impl Rig {
    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::MovableClocks => "movable-clocks",
            Self::SmallDisks => "small-disks",
        }
    }
}

/// `REGION=PATH`.
#[derive(Debug, Clone)]
struct DataDir {
    region: RegionName,
    path: PathBuf,
}

impl FromStr for DataDir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (region, path) = text.split_once('=').ok_or("expected REGION=PATH")?;
        let region = region.parse().map_err(|error: isles_model::InvalidName| error.to_string())?;
        Ok(Self { region, path: path.into() })
    }
}

/// Starts the lab, or shows the one that runs.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let layout = running::layout(global)?;
    if layout.is_locked() {
        return running::block_on(show_running(global, args, &layout));
    }
    let topology = spec_file::load(global)?.topology;
    supervisor::check_rigs(rigs(args))
        .map_err(|lacks| Failure::refused(lacks.to_string(), lacks.remedy()))?;
    if args.rigs.contains(&Rig::SmallDisks) && !args.detach && !args.own_mounts {
        return Err(with_own_mounts());
    }
    let settings = settings(args, topology, &layout)?;
    if args.detach {
        drop(settings);
        return running::block_on(background::start(global, args));
    }
    if args.supervise {
        // Because the lab is to outlive the terminal it was started from.
        rustix::process::setsid().map_err(|errno| Failure::new(std::io::Error::from(errno)))?;
    }
    supervise(global, args, settings)
}

/// Checks everything that can be checked before the first process is started.
fn settings(args: &Args, topology: Topology, layout: &Layout) -> Result<Settings, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let wanted = topology.database.version.as_ref().and_then(|version| version.parse().ok());
    let missing = |missing: requirements::Missing| {
        let remedy = missing.remedy();
        Failure::with_help(missing, remedy)
    };
    let (programs, etcd) = requirements::find(&path, wanted).map_err(missing)?;
    let wishes = wishes(args, &topology)?;
    layout.make().map_err(Failure::new)?;
    let lock = layout.lock().map_err(|error| Failure::with_help(error, "isles status shows it"))?;
    Ok(Settings { topology, layout: layout.clone(), lock, programs, etcd, cache: cache(layout), wishes })
}

fn rigs(args: &Args) -> Rigs {
    Rigs {
        movable_clocks: args.rigs.contains(&Rig::MovableClocks),
        small_disks: args.rigs.contains(&Rig::SmallDisks),
    }
}

/// Becomes the same command in a mount namespace of its own, so that no disk outlives the lab. Returns only on failure.
fn with_own_mounts() -> Failure {
    use std::os::unix::process::CommandExt as _;
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return Failure::new(error),
    };
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(own);
    let error = command.args(std::env::args_os().skip(1)).arg("--own-mounts").exec();
    Failure::with_help(error, "small disks need the program `unshare` of util-linux")
}

fn wishes(args: &Args, topology: &Topology) -> Result<Wishes, Failure> {
    let mut data_dirs = BTreeMap::new();
    for DataDir { region, path } in &args.data_dirs {
        if !topology.region_names().any(|name| name == region) {
            let names: Vec<&str> = topology.region_names().map(RegionName::as_str).collect();
            let help = format!("the spec has: {}", names.join(", "));
            return Err(Failure::usage(format!("--data-dir: the spec has no region {region}"), help));
        }
        let path = path.canonicalize().map_err(|error| {
            Failure::with_help(error, format!("--data-dir needs a directory that exists: {}", path.display()))
        })?;
        data_dirs.insert(region.clone(), path);
    }
    Ok(Wishes { edge_port: args.edge_port, data_dirs, rigs: rigs(args) })
}

/// Where prepared empty databases are kept: the user's cache directory (XDG Base Directory Specification).
fn cache(layout: &Layout) -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    cache.or(home).map_or_else(|| layout.dir.join("cache"), |dir| dir.join("isles"))
}

/// Is the lab until it is told to stop.
fn supervise(global: &Global, args: &Args, settings: Settings) -> Outcome {
    let progress = Arc::new(Progress::new(global, args.supervise, args.timing));
    let watcher: Watcher = Arc::new(move |event: &Event| progress.show(event));
    running::block_on(async {
        let result = supervisor::run(settings, Arc::clone(&watcher), stop_signal()).await;
        result.map(|()| Exit::Done).map_err(|error| {
            let help = error.remedy();
            watcher(&Event::Failed { error: error.to_string(), causes: causes(&error), help: help.clone() });
            Failure::with_help(error, help)
        })
    })
}

/// Completes when the user or the system asks this process to end.
async fn stop_signal() {
    let signals =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Shows a lab that runs already, waiting until it is ready.
async fn show_running(global: &Global, args: &Args, layout: &Layout) -> Outcome {
    let client = Client::new(layout.control_socket());
    while layout.is_locked() {
        match client.state().await.map(|state| (state.phase.clone(), state)) {
            Ok((Phase::Ready, state)) => {
                if !global.quiet && !global.json {
                    eprintln!("A lab of {} runs already (pid {}).", global.file.display(), state.pid);
                }
                show(global, args.timing, &state).await;
                return Ok(Exit::Done);
            }
            Ok((Phase::Failed { because, help }, _)) => return Err(Failure::message(because, help)),
            Ok((Phase::Stopping, _)) => {
                return Err(Failure::message("the lab is being stopped", "wait a moment, then isles up"));
            }
            Ok((Phase::Starting, _)) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    Err(Failure::message("the lab that was starting has ended", "isles up"))
}

/// Prints the table, or the state as JSON.
async fn show(global: &Global, timing: bool, state: &LabState) {
    let roles = table::roles(state).await;
    if global.json {
        let mut value = serde_json::to_value(state).unwrap_or_default();
        value["roles"] = serde_json::json!(roles);
        say(&value.to_string());
        return;
    }
    let text = table::table(state, &roles, env!("CARGO_PKG_VERSION"), &global.file.display().to_string());
    let timing = if timing { table::timing(state) } else { String::new() };
    say(&format!("{text}{timing}Next: isles drill region-outage"));
}
