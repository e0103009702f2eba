//! How another command talks to a running lab: one JSON line asks, one JSON line answers, over a Unix socket of mode 0600.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use isles_model::{RegionName, topology::Pattern};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

/// The longest question or answer, in bytes.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// How long an answer may take. Starting a region answers when it has been started, not when it is ready.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a lab can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What runs where. Answered with [`Answer::State`].
    State,
    /// End every process of a region with SIGKILL, and keep it down.
    KillRegion {
        /// The region.
        region: RegionName,
    },
    /// Start a region that is kept down.
    StartRegion {
        /// The region.
        region: RegionName,
    },
    /// Stop every process of a region with SIGSTOP, as a suspended machine does, or let all go on.
    StallRegion {
        /// The region.
        region: RegionName,
        /// `false`: let them go on.
        stalled: bool,
    },
    /// Do something to one process of a region.
    Part {
        /// The region.
        region: RegionName,
        /// Which process.
        part: Part,
        /// What to do to it.
        action: PartAction,
    },
    /// Set the wall clock of a region's database off. Needs a lab that was started with movable clocks.
    Clock {
        /// The region.
        region: RegionName,
        /// Milliseconds ahead of the true time; negative: behind; 0: right.
        ahead_ms: i64,
    },
    /// Fill the disk of a region's database, or free it. Needs a lab that was started with small disks.
    Disk {
        /// The region.
        region: RegionName,
        /// `false`: free it.
        full: bool,
    },
    /// Set the condition of the link in one direction; it stays until it is set again.
    Link {
        /// The sending region.
        from: RegionName,
        /// The receiving region.
        to: RegionName,
        /// The condition.
        condition: LinkCondition,
    },
    /// Stop everything. Answered before it begins; it is done when the socket is gone.
    Down {
        /// Keep the databases for the next `isles up`.
        keep: bool,
    },
}

/// What a lab answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// What runs where.
    State(Box<LabState>),
    /// It is not done.
    Refused {
        /// Why, in words.
        because: String,
    },
}

/// A kind of process in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "part", content = "index", rename_all = "snake_case")]
pub enum Part {
    /// PostgreSQL with all its backends.
    Postgres,
    /// The region's member of the lease store.
    Etcd,
    /// The `isles agent`.
    Agent,
    /// One instance of the app, counted from 0, with all its descendants.
    App(u32),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postgres => f.pad("postgres"),
            Self::Etcd => f.pad("etcd"),
            Self::Agent => f.pad("agent"),
            Self::App(index) => f.pad(&format!("app-{index}")),
        }
    }
}

/// What can be done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartAction {
    /// SIGKILL; the lab starts it again after a short wait, as a service manager would.
    Crash,
    /// SIGKILL, and keep it down until [`Self::Start`].
    Kill,
    /// Start it again.
    Start,
    /// SIGSTOP: it neither runs nor ends.
    Freeze,
    /// SIGCONT.
    Thaw,
}

/// The condition of a link in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkCondition {
    /// As far as the planning table says, and no further.
    #[default]
    Healthy,
    /// Packets vanish: no answer, no reset.
    Cut,
    /// Connections are reset and new ones refused.
    Reset,
    /// Slower by so much in this direction, on top of the distance.
    Slow {
        /// The extra time.
        extra: Duration,
        /// Bytes a second; `None`: as before.
        rate: Option<u64>,
    },
}

/// What runs where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabState {
    /// The application's name.
    pub name: String,
    /// The spec that the lab runs, as an absolute path.
    pub spec: PathBuf,
    /// Who takes traffic, who takes writes.
    pub pattern: Pattern,
    /// How far it is.
    pub phase: Phase,
    /// The supervisor's process.
    pub pid: u32,
    /// Where its files are.
    pub dir: PathBuf,
    /// In the order of the spec.
    pub regions: Vec<RegionState>,
    /// The witness, where there is one: it has an etcd member and nothing else.
    pub witness: Option<WitnessState>,
    /// The distance between the regions, one entry a pair.
    pub links: Vec<LinkState>,
    /// What it can do besides.
    #[serde(default)]
    pub rigs: Rigs,
    /// Where the time of the start went: what was waited for, from when to when (since the start).
    pub timing: Vec<(String, Duration, Duration)>,
}

/// What a lab can do only if it was started for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rigs {
    /// The wall clocks of the databases can be moved.
    pub movable_clocks: bool,
    /// Each database has a disk of its own that can be filled.
    pub small_disks: bool,
}

/// How far a lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not all regions are ready yet.
    Starting,
    /// Every region has been ready.
    Ready,
    /// It could not start, and is taking itself down.
    Failed {
        /// Why, in words.
        because: String,
        /// What to do about it; may be empty.
        help: String,
    },
    /// It has been told to stop.
    Stopping,
}

/// One region of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionState {
    /// Its name.
    pub region: RegionName,
    /// It has been killed and is kept down.
    pub held: bool,
    /// When its agent, its app and its database were first ready, since the lab's start.
    pub ready_after: Option<Duration>,
    /// HTTP for users.
    pub edge: SocketAddr,
    /// The agent's control port: `GET /v1/status`.
    pub control: SocketAddr,
    /// The app's instances.
    pub instances: Vec<SocketAddr>,
    /// PostgreSQL for writes: leads to the writer.
    pub write_gate: SocketAddr,
    /// PostgreSQL for reads: leads to this region's database.
    pub read_gate: SocketAddr,
    /// The directory of the database's socket, its port, its name, its superuser.
    pub database: DatabaseState,
    /// The agent's configuration file (it holds passwords).
    pub config: PathBuf,
    /// The region's processes.
    pub parts: Vec<PartState>,
}

/// How a region's database is reached by an operator on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseState {
    /// The directory of its Unix socket.
    pub socket_dir: PathBuf,
    /// Its port.
    pub port: u16,
    /// The application's database.
    pub name: String,
    /// The superuser; needs no password on the socket.
    pub admin_user: String,
}

/// The witness of a lab with two regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WitnessState {
    /// Its region.
    pub region: RegionName,
    /// Its one process.
    pub parts: Vec<PartState>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartState {
    /// Which.
    #[serde(flatten)]
    pub part: Part,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// What it is doing.
    pub phase: PartPhase,
    /// How often it has been started again.
    pub restarts: u32,
    /// Where its output goes.
    pub log: PathBuf,
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartPhase {
    /// It has not been started yet.
    Waiting,
    /// It runs.
    Running,
    /// It has been stopped with SIGSTOP.
    Frozen,
    /// It ended and will be started again shortly.
    Restarting,
    /// It is kept down.
    Held,
}

/// The distance between two regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkState {
    /// One region.
    pub from: RegionName,
    /// The other.
    pub to: RegionName,
    /// The round trip of the planning table.
    pub rtt_asked: Duration,
    /// The round trip through the relays: the median of a few probes.
    pub rtt_measured: Option<Duration>,
    /// The condition from `from` to `to`.
    pub forth: LinkCondition,
    /// The condition from `to` to `from`.
    pub back: LinkCondition,
}

/// What went wrong while asking a lab.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No lab listens there.
    #[error("no lab answers at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It stopped in the middle.
    #[error("the lab broke off the conversation")]
    Talk(#[source] std::io::Error),
    /// It said something else than an answer.
    #[error("the lab answered something that this version does not understand")]
    Understand(#[source] serde_json::Error),
    /// It took too long.
    #[error("the lab did not answer within {} s", ANSWER_WAIT_MAX.as_secs())]
    Late,
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

/// Asks a lab, one connection a question, so that it can be cloned and used from several tasks.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the lab whose control socket is this.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket it asks at.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What runs where.
    pub async fn state(&self) -> Result<LabState, ControlError> {
        match self.ask(&Request::State).await? {
            Answer::State(state) => Ok(*state),
            Answer::Done => Err(ControlError::Refused("the lab did not say what runs".into())),
            Answer::Refused { because } => Err(ControlError::Refused(because)),
        }
    }

    /// Ends every process of a region with SIGKILL and keeps it down.
    pub async fn kill_region(&self, region: &RegionName) -> Result<(), ControlError> {
        self.order(&Request::KillRegion { region: region.clone() }).await
    }

    /// Starts a region that is kept down; answers when its processes have been started.
    pub async fn start_region(&self, region: &RegionName) -> Result<(), ControlError> {
        self.order(&Request::StartRegion { region: region.clone() }).await
    }

    /// Stops every process of a region with SIGSTOP, or lets all go on.
    pub async fn stall_region(&self, region: &RegionName, stalled: bool) -> Result<(), ControlError> {
        self.order(&Request::StallRegion { region: region.clone(), stalled }).await
    }

    /// Does something to one process.
    pub async fn part(
        &self,
        region: &RegionName,
        part: Part,
        action: PartAction,
    ) -> Result<(), ControlError> {
        self.order(&Request::Part { region: region.clone(), part, action }).await
    }

    /// Sets the wall clock of a region's database off by so many milliseconds.
    pub async fn set_clock(&self, region: &RegionName, ahead_ms: i64) -> Result<(), ControlError> {
        self.order(&Request::Clock { region: region.clone(), ahead_ms }).await
    }

    /// Fills the disk of a region's database, or frees it.
    pub async fn fill_disk(&self, region: &RegionName, full: bool) -> Result<(), ControlError> {
        self.order(&Request::Disk { region: region.clone(), full }).await
    }

    /// Sets the condition of a link in one direction.
    pub async fn link(
        &self,
        from: &RegionName,
        to: &RegionName,
        condition: LinkCondition,
    ) -> Result<(), ControlError> {
        self.order(&Request::Link { from: from.clone(), to: to.clone(), condition }).await
    }

    /// Cuts a region off from all others, in both directions, or joins it again (`LinkCondition::Healthy`).
    pub async fn links_of(&self, region: &RegionName, condition: LinkCondition) -> Result<(), ControlError> {
        let state = self.state().await?;
        let witness = state.witness.map(|witness| witness.region);
        for other in state.regions.iter().map(|other| &other.region).chain(&witness) {
            if other != region {
                self.link(region, other, condition).await?;
                self.link(other, region, condition).await?;
            }
        }
        Ok(())
    }

    /// Tells the lab to stop.
    pub async fn down(&self, keep: bool) -> Result<(), ControlError> {
        self.order(&Request::Down { keep }).await
    }

    async fn order(&self, request: &Request) -> Result<(), ControlError> {
        match self.ask(request).await? {
            Answer::Done | Answer::State(_) => Ok(()),
            Answer::Refused { because } => Err(ControlError::Refused(because)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer, ControlError> {
        tokio::time::timeout(ANSWER_WAIT_MAX, self.converse(request)).await.map_err(|_| ControlError::Late)?
    }

    async fn converse(&self, request: &Request) -> Result<Answer, ControlError> {
        let connect = |source| ControlError::Connect { path: self.socket.clone(), source };
        let mut stream = UnixStream::connect(&self.socket).await.map_err(connect)?;
        let mut line = serde_json::to_vec(request).map_err(ControlError::Understand)?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(ControlError::Talk)?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX))
            .read_line(&mut answer)
            .await
            .map_err(ControlError::Talk)?;
        serde_json::from_str(&answer).map_err(ControlError::Understand)
    }
}

/// The state by region, for callers that look regions up.
impl LabState {
    /// The regions by name.
    pub fn by_name(&self) -> BTreeMap<&RegionName, &RegionState> {
        self.regions.iter().map(|region| (&region.region, region)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &Request, line: &str) {
        assert_eq!(serde_json::to_string(request).unwrap(), line);
        assert_eq!(&serde_json::from_str::<Request>(line).unwrap(), request);
    }

    #[test]
    fn a_question_is_one_line_of_json() {
        let region: RegionName = "eu-west-1".parse().unwrap();
        check(&Request::State, r#"{"ask":"state"}"#);
        check(
            &Request::KillRegion { region: region.clone() },
            r#"{"ask":"kill_region","region":"eu-west-1"}"#,
        );
        check(
            &Request::Part { region: region.clone(), part: Part::App(1), action: PartAction::Freeze },
            r#"{"ask":"part","region":"eu-west-1","part":{"part":"app","index":1},"action":"freeze"}"#,
        );
        check(
            &Request::Link { from: region.clone(), to: region, condition: LinkCondition::Cut },
            r#"{"ask":"link","from":"eu-west-1","to":"eu-west-1","condition":"cut"}"#,
        );
    }
}
