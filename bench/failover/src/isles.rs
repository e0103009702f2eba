//! Isles as `isles up` starts it: the product's own executable, three near regions, a spec that sets no time.
//!
//! Faults go through the lab's control socket. An outside client reaches each region through a door of its own, so that
//! a region that is cut off is silent for it, too, while an app inside the region still reaches its gate.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use isles_lab::{
    control::{Client, ControlError, LabState, LinkCondition, Part, PartAction, Phase},
    processes::tree,
    status,
    wan::{Distance, Wan},
};
use isles_model::{AgentConfig, DatabaseRole, RegionName};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::{
    case::Case,
    contender::{Contender, Inside},
    error::BenchError,
    session::Login,
};

/// Three regions of the planning table that are as near to each other as any three: 10, 10 and 16 ms.
const SPEC: &str = "name: bench
regions: [eu-west-3, eu-west-2, eu-central-1]
services: { web: { command: APP, healthcheck: { path: / } } }
database: { engine: postgres, version: 15 }
";
/// How long the lab may take to be ready, and to take itself down.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);
const DOWN_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often signals are sent again to what was forked meanwhile.
const SIGNAL_ROUNDS: usize = 3;
/// How long the command that moves the writer may take.
const SWITCHOVER_WAIT_MAX: Duration = Duration::from_secs(60);

/// One region, as clients reach it.
struct Place {
    config: AgentConfig,
    /// Where an outside client comes in.
    door: Login,
}

/// A lab of Isles, running.
pub(crate) struct Isles {
    program: PathBuf,
    spec: PathBuf,
    dir: PathBuf,
    lab: Client,
    supervisor: Supervisor,
    doors: Wan,
    places: Vec<Place>,
    writer: usize,
}

/// The process that is the lab, ended with it.
struct Supervisor(Child);

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Because the lab ends all it has started and removes its files when it is asked to, it is asked.
        let Some(pid) = self.0.id() else { return };
        tree::signal_trees(&[pid], Signal::CONT);
        tree::send(pid, Signal::TERM);
        let until = std::time::Instant::now() + DOWN_WAIT_MAX;
        while matches!(self.0.try_wait(), Ok(None)) {
            if std::time::Instant::now() > until {
                tree::kill_below(pid);
                tree::send(pid, Signal::KILL);
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The region's name by which an outside client's doors are set.
fn outside() -> RegionName {
    "outside".parse().expect("seven letters are a name")
}

impl Isles {
    /// Starts a lab in `dir` and waits until every region has been ready.
    pub(crate) async fn start(program: &Path, dir: &Path, cache: &Path) -> Result<Self, BenchError> {
        if !program.exists() {
            return Err(BenchError::Missing(program.to_owned()));
        }
        let own = std::env::current_exe();
        let own = own.map_err(|source| BenchError::Start { program: "the app".to_owned(), source })?;
        let spec = dir.join("isles.yaml");
        let command = format!("{} __app", own.display());
        fs::write(&spec, SPEC.replace("APP", &command))
            .map_err(|source| BenchError::File { path: spec.clone(), source })?;
        let log = dir.join("supervisor.log");
        let file = |source| BenchError::File { path: log.clone(), source };
        let output = fs::File::create(&log).map_err(file)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).arg("-f").arg(&spec).arg("up");
        command.env("XDG_CACHE_HOME", cache).current_dir(dir).process_group(0).stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(file)?).stderr(output);
        let start = |source| BenchError::Start { program: "isles up".to_owned(), source };
        let mut supervisor = Supervisor(command.spawn().map_err(start)?);
        let (lab, state) = until_ready(dir, &log, &mut supervisor).await?;
        let (doors, places) = open_doors(&state).await?;
        let (program, dir) = (program.to_owned(), dir.to_owned());
        Ok(Self { program, spec, dir, lab, supervisor, doors, places, writer: 0 })
    }

    fn region(&self) -> &RegionName {
        &self.places[self.writer].config.region
    }

    async fn state(&self) -> Result<LabState, BenchError> {
        self.lab.state().await.map_err(|source| BenchError::Lab { doing: "ask the lab what runs", source })
    }

    /// Stops or continues every process of the region, the etcd member included.
    async fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let state = self.state().await?;
        let region = state.regions.iter().find(|region| region.region == *self.region());
        let pids: Vec<u32> =
            region.into_iter().flat_map(|region| &region.parts).filter_map(|part| part.pid).collect();
        for _ in 0..SIGNAL_ROUNDS {
            tree::signal_trees(&pids, signal);
        }
        Ok(())
    }

    /// Cuts the region off from the others and from outside clients, or joins it again.
    async fn link(&self, condition: LinkCondition) -> Result<(), BenchError> {
        let region = self.region();
        for (from, to) in [(region, &outside()), (&outside(), region)] {
            self.doors.set(from, to, condition).map_err(|_| BenchError::Unclear("a door"))?;
        }
        lab("set a link", self.lab.links_of(region, condition).await)
    }

    async fn switch_over(&self) -> Result<(), BenchError> {
        let next = (self.writer + 1) % self.places.len();
        let target = self.places[next].config.region.as_str();
        let mut command = Command::new(&self.program);
        command.arg("-f").arg(&self.spec).args(["switchover", target, "--yes"]);
        let program = format!("isles switchover {target} --yes");
        let start = |source| BenchError::Start { program: program.clone(), source };
        let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let Ok(output) = tokio::time::timeout(SWITCHOVER_WAIT_MAX, running).await else {
            let said = format!("not done within {} s", SWITCHOVER_WAIT_MAX.as_secs());
            return Err(BenchError::Failed { program, said });
        };
        let output = output.map_err(start)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(BenchError::Failed { program, said })
    }
}

impl Contender for Isles {
    async fn survey(&mut self) -> Result<(), String> {
        let mut writer = None;
        let mut epochs = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let region = &place.config.region;
            let seen = status::snapshot(place.config.listen.control).await;
            let seen = seen.map_err(|error| format!("{region}: {error}"))?;
            if let Some(lacks) = status::lacks(&seen) {
                return Err(format!("{region}: {lacks}"));
            }
            if matches!(seen.report.database.role, DatabaseRole::Writer { .. })
                && writer.replace(index).is_some()
            {
                return Err("two regions take writes".to_owned());
            }
            epochs.push(seen.plan.epoch);
        }
        if epochs.iter().any(|epoch| *epoch != epochs[0]) {
            return Err("the regions do not agree who writes".to_owned());
        }
        self.writer = writer.ok_or("no region takes writes")?;
        Ok(())
    }

    fn outside(&self) -> Vec<Login> {
        self.places.iter().map(|place| place.door.clone()).collect()
    }

    fn inside(&self) -> Inside {
        let place = &self.places[self.writer];
        let address = place.config.listen.write_gate;
        Inside { login: Login { address, ..place.door.clone() }, namespace: None }
    }

    fn copies(&self) -> Vec<Login> {
        let reader = |place: &Place| Login {
            address: place.config.listen.read_gate,
            user: place.config.database.read_user.clone(),
            password: Some(place.config.database.read_password.clone()),
            database: place.config.database.name.clone(),
        };
        self.places.iter().map(reader).collect()
    }

    async fn inject(&mut self, case: Case) -> Result<(), BenchError> {
        let region = self.region();
        match case {
            Case::Database => {
                lab("kill a database", self.lab.part(region, Part::Postgres, PartAction::Crash).await)
            }
            Case::Killed => lab("kill a region", self.lab.kill_region(region).await),
            Case::Stopped => self.signal(Signal::STOP).await,
            Case::Network => self.link(LinkCondition::Cut).await,
            Case::Planned => self.switch_over().await,
        }
    }

    async fn heal(&mut self, case: Case) -> Result<(), BenchError> {
        match case {
            Case::Killed => lab("start a region", self.lab.start_region(self.region()).await),
            Case::Stopped => self.signal(Signal::CONT).await,
            Case::Network => self.link(LinkCondition::Healthy).await,
            Case::Database | Case::Planned => Ok(()),
        }
    }

    fn logs(&self) -> PathBuf {
        // The lab's directory is the parent of its control socket.
        self.lab.socket().parent().map_or_else(|| self.dir.clone(), Path::to_owned)
    }

    async fn stop(mut self) {
        if self.lab.down(false).await.is_ok() {
            let _ = tokio::time::timeout(DOWN_WAIT_MAX, self.supervisor.0.wait()).await;
        }
    }
}

fn lab(doing: &'static str, done: Result<(), ControlError>) -> Result<(), BenchError> {
    done.map_err(|source| BenchError::Lab { doing, source })
}

/// Waits until the lab is ready; its note beside the spec says where it is.
async fn until_ready(
    dir: &Path,
    log: &Path,
    supervisor: &mut Supervisor,
) -> Result<(Client, LabState), BenchError> {
    let until = tokio::time::Instant::now() + READY_WAIT_MAX;
    let mut lacks = "the lab does not answer".to_owned();
    while tokio::time::Instant::now() < until {
        if let Ok(Some(status)) = supervisor.0.try_wait() {
            let said = fs::read_to_string(log).unwrap_or_default();
            let said = format!("{status}: {}", said.trim());
            return Err(BenchError::Failed { program: "isles up".to_owned(), said });
        }
        let client = socket(dir).map(Client::new);
        let state = match &client {
            Some(client) => client.state().await.ok(),
            None => None,
        };
        match (client, state) {
            (Some(client), Some(state)) if state.phase == Phase::Ready => return Ok((client, state)),
            (_, Some(state)) => lacks = format!("the lab is {:?}", state.phase),
            (_, None) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(BenchError::NotReady { lacks, within: READY_WAIT_MAX })
}

fn socket(dir: &Path) -> Option<PathBuf> {
    let note = fs::read(dir.join(".isles/lab.json")).ok()?;
    let note: serde_json::Value = serde_json::from_slice(&note).ok()?;
    note.get("control")?.as_str().map(PathBuf::from)
}

/// Reads each region's configuration and opens a door to its write gate.
async fn open_doors(state: &LabState) -> Result<(Wan, Vec<Place>), BenchError> {
    let unclear = |_| BenchError::Unclear("a door");
    let near = Distance { one_way: Duration::ZERO, jitter: Duration::ZERO, rate: None };
    let ways = state.regions.iter().flat_map(|region| {
        let region = &region.region;
        [((outside(), region.clone()), near), ((region.clone(), outside()), near)]
    });
    let mut doors = Wan::new(ways).map_err(unclear)?;
    let mut places = Vec::new();
    for region in &state.regions {
        let failed = |source| BenchError::File { path: region.config.clone(), source };
        let text = fs::read(&region.config).map_err(failed)?;
        let config: AgentConfig =
            serde_json::from_slice(&text).map_err(|_| BenchError::Unclear("a region's configuration"))?;
        let address = doors.relay(&outside(), &region.region, region.write_gate).await.map_err(unclear)?;
        let database = &config.database;
        let door = Login {
            address,
            user: database.app_user.clone(),
            password: Some(database.app_password.clone()),
            database: database.name.clone(),
        };
        places.push(Place { config, door });
    }
    Ok((doors, places))
}
