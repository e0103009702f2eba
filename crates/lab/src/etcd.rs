//! Runs the lease store: one real etcd member in every region, and one at the witness where there are two regions.
//!
//! Members talk to one another through the emulated WAN; see [`crate::crossing`] for how.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use isles_model::RegionName;

use crate::processes::{Launch, Leash};

/// The shortest heartbeat; etcd's own default.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// An election time-out is so many heartbeats, and at least as many round trips (etcd, "Tuning").
const ELECTION_HEARTBEATS: u32 = 10;
/// The longest election time-out etcd takes.
const ELECTION_MAX: Duration = Duration::from_secs(50);
/// The member that should lead waits for so much of the others' time-out only. It calls an election before they do,
/// at the first start and when a leader is lost; with `pre-vote` a false alarm of its own disturbs nobody.
const FAVOURITE_SHARE: u32 = 2;

/// The programs of the lease store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// The server.
    pub program: PathBuf,
    /// As it says itself: `3.4.23`.
    pub version: String,
}

/// Why there is no lease store.
#[derive(Debug, thiserror::Error)]
pub enum EtcdMissing {
    /// Not installed.
    #[error("etcd is not installed (looked for `etcd` in PATH)")]
    NotFound,
    /// It does not say its version.
    #[error("{} does not say its version", .0.display())]
    Mute(PathBuf),
}

impl Etcd {
    /// Finds it in the directories of `path` (the PATH variable's value).
    ///
    /// # Errors
    /// When there is none, or it does not run.
    pub fn find(path: &std::ffi::OsStr) -> Result<Self, EtcdMissing> {
        let mut places = std::env::split_paths(path).map(|dir| dir.join("etcd"));
        let program = places.find(|place| place.is_file()).ok_or(EtcdMissing::NotFound)?;
        let said = std::process::Command::new(&program).arg("--version").output();
        let text =
            said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        match version {
            Some(version) => Ok(Self { version: version.trim().to_owned(), program }),
            None => Err(EtcdMissing::Mute(program)),
        }
    }
}

/// One member of the lease store.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its region.
    pub region: RegionName,
    /// Where its agent reaches it.
    pub client: SocketAddr,
    /// Where it listens for other members.
    pub peer: SocketAddr,
    /// What the other members know it by; leads to `peer` over the WAN.
    pub advertised: SocketAddr,
}

/// The lease store as a whole.
#[derive(Debug, Clone)]
pub struct Store<'a> {
    /// The program.
    pub etcd: &'a Etcd,
    /// All members.
    pub members: &'a [Member],
    /// Tells it from other labs'.
    pub token: &'a str,
    /// The longest round trip between two members.
    pub rtt_max: Duration,
    /// The region whose member should lead: not the writer's, so that a lost writer does not take the leader along.
    pub favourite: &'a RegionName,
}

/// How to start a member.
pub fn launch(store: &Store<'_>, member: &Member, dir: &Path, log: &Path) -> Launch {
    let Store { etcd, members, token, rtt_max, favourite } = store;
    let cluster: Vec<String> =
        members.iter().map(|m| format!("{}=http://{}", m.region, m.advertised)).collect();
    let share = if member.region == **favourite { FAVOURITE_SHARE } else { 1 };
    let heartbeat = (*rtt_max / share).clamp(HEARTBEAT_MIN, ELECTION_MAX / ELECTION_HEARTBEATS);
    let election = heartbeat * ELECTION_HEARTBEATS;
    let options = [
        ("name", member.region.to_string()),
        ("data-dir", dir.display().to_string()),
        ("listen-client-urls", format!("http://{}", member.client)),
        ("advertise-client-urls", format!("http://{}", member.client)),
        ("listen-peer-urls", format!("http://{}", member.peer)),
        ("initial-advertise-peer-urls", format!("http://{}", member.advertised)),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-state", "new".to_owned()),
        ("initial-cluster-token", (*token).to_owned()),
        ("heartbeat-interval", heartbeat.as_millis().to_string()),
        ("election-timeout", election.as_millis().to_string()),
        ("pre-vote", "true".to_owned()),
        ("snapshot-count", "5000".to_owned()),
        ("max-snapshots", "2".to_owned()),
        ("max-wals", "2".to_owned()),
        ("auto-compaction-mode", "periodic".to_owned()),
        ("auto-compaction-retention", "10m".to_owned()),
        ("logger", "zap".to_owned()),
        ("log-level", "warn".to_owned()),
    ];
    Launch {
        program: etcd.program.clone(),
        args: options.iter().map(|(name, value)| OsString::from(format!("--{name}={value}"))).collect(),
        env: Vec::new(),
        env_without: &["ETCD_", "HTTP_PROXY", "http_proxy"],
        cwd: dir.parent().unwrap_or(Path::new("/")).to_owned(),
        log: log.to_owned(),
        account: None,
        leash: Leash::Signal(rustix::process::Signal::KILL),
    }
}

/// Whether a member takes part in a cluster that has a leader: `GET /health`.
pub async fn has_leader(client: SocketAddr) -> bool {
    match crate::http::get(client, "/health", Duration::from_secs(2)).await {
        Ok((200, body)) => String::from_utf8_lossy(&body).contains("true"),
        _ => false,
    }
}
