//! Users outside the lab's agents: each tries the edge nearest to him, and the next one when that does not answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use isles_model::RegionName;
use tokio::{task::JoinSet, time::Instant};

use super::{
    exchange::{Answered, Connection},
    ground::Ground,
    history::{Outcome, Post, Read, Reader},
    record::Record,
};

/// Readers nearest to each region.
const READERS: u32 = 2;
/// From the begin of one request of a user to the next.
const PACE: Duration = Duration::from_millis(40);
/// How long a user waits for a connection before he tries the next edge.
const CONNECT_WAIT: Duration = Duration::from_millis(300);
/// How long a user waits for the answer to a read before he tries the next edge.
const READ_WAIT: Duration = Duration::from_secs(2);
/// How long a user then prefers other edges, as a browser remembers an address that did not answer.
const AVOIDED_FOR: Duration = Duration::from_secs(10);
/// How much longer than the spec's `hold_writes` a user waits for the answer to a write.
const WRITE_WAIT_BEYOND_HOLD: Duration = Duration::from_secs(5);

/// What users ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Path of the GET; `None`: the health check's.
    pub read: Option<String>,
    /// Path of a POST with the body `{"n": NUMBER}`; `None`: users only read.
    pub post: Option<String>,
}

/// Starts the users of every region.
pub(super) fn start(ground: &Ground, paths: &Paths, record: &Arc<Record>, tasks: &mut JoinSet<()>) {
    let read = paths.read.clone().unwrap_or_else(|| ground.topology.service.healthcheck.path.clone());
    let hold = ground.topology.routing.hold_writes + WRITE_WAIT_BEYOND_HOLD;
    for place in &ground.places {
        let edges: Vec<SocketAddr> = ground.nearest(&place.region).iter().map(|near| near.edge).collect();
        for _ in 0..READERS {
            let user = User::new(place.region.clone(), &edges);
            tasks.spawn(read_on(user, read.clone(), Arc::clone(record)));
        }
        if let Some(path) = &paths.post {
            let user = User::new(place.region.clone(), &edges);
            tasks.spawn(post_on(user, path.clone(), hold, Arc::clone(record)));
        }
    }
}

async fn read_on(mut user: User, path: String, record: Arc<Record>) {
    let mut begun = record.now();
    while record.turn(begun, PACE).await {
        begun = record.now();
        let outcome = user.read(&path).await;
        let reader = Reader::User(user.home.clone());
        record.history().reads.push(Read { reader, begun, ended: record.now(), outcome });
    }
}

async fn post_on(user: User, path: String, within: Duration, record: Arc<Record>) {
    let mut begun = record.now();
    while record.turn(begun, PACE).await {
        begun = record.now();
        let body = format!("{{\"n\":{}}}", record.numbers.next());
        let outcome = user.post(&path, body, within).await;
        record.history().posts.push(Post { user: user.home.clone(), begun, ended: record.now(), outcome });
    }
}

/// One user.
struct User {
    home: RegionName,
    /// Nearest first, with the connection kept open to each.
    edges: Vec<Edge>,
}

struct Edge {
    address: SocketAddr,
    open: Option<Connection>,
    /// When it last left the user waiting in vain.
    silent: Option<Instant>,
}

impl User {
    fn new(home: RegionName, edges: &[SocketAddr]) -> Self {
        let edges =
            edges.iter().map(|address| Edge { address: *address, open: None, silent: None }).collect();
        Self { home, edges }
    }

    /// A read may be tried at every edge.
    async fn read(&mut self, path: &str) -> Outcome {
        // Nearest first; those that were silent a moment ago last.
        let (silent, lively): (Vec<_>, Vec<_>) = self.edges.iter_mut().partition(|edge| edge.is_avoided());
        for edge in lively.into_iter().chain(silent) {
            if let Answered::Served = edge.get(path).await {
                return Outcome::Succeeded;
            }
        }
        Outcome::Failed
    }

    /// A write is tried at the next edge only if it never left.
    async fn post(&self, path: &str, body: String, within: Duration) -> Outcome {
        let body = Bytes::from(body);
        for edge in &self.edges {
            let Ok(mut connection) = Connection::open(edge.address, CONNECT_WAIT).await else { continue };
            return match connection.ask("POST", path, body, within).await {
                Answered::Served => Outcome::Succeeded,
                Answered::Unsent | Answered::Failed => Outcome::Failed,
            };
        }
        Outcome::Failed
    }
}

impl Edge {
    fn is_avoided(&self) -> bool {
        self.silent.is_some_and(|since| since.elapsed() < AVOIDED_FOR)
    }

    /// Over the open connection, or a new one where there is none or the edge has closed it meanwhile.
    async fn get(&mut self, path: &str) -> Answered {
        if let Some(connection) = self.open.take() {
            let begun = Instant::now();
            if let Answered::Served = self.ask(connection, path).await {
                return Answered::Served;
            }
            if begun.elapsed() >= READ_WAIT {
                return Answered::Failed;
            }
        }
        let Ok(connection) = Connection::open(self.address, CONNECT_WAIT).await else {
            return Answered::Unsent;
        };
        self.ask(connection, path).await
    }

    async fn ask(&mut self, mut connection: Connection, path: &str) -> Answered {
        let begun = Instant::now();
        let answered = connection.ask("GET", path, Bytes::new(), READ_WAIT).await;
        match answered {
            Answered::Served => {
                self.open = Some(connection);
                self.silent = None;
            }
            Answered::Unsent | Answered::Failed if begun.elapsed() >= READ_WAIT => {
                self.silent = Some(Instant::now());
            }
            Answered::Unsent | Answered::Failed => {}
        }
        answered
    }
}
