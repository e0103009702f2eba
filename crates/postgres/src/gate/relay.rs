//! Carries one session's bytes both ways, and not one of them past the deadline.
//!
//! The permit is asked immediately before every write in either direction. The way back matters most: an
//! acknowledgement given after the right to write has moved is a write the app believes in and the new writer
//! has never seen.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{ADMIN_SHUTDOWN, Refusal},
    boundary::Boundary,
    keys::{Keys, Remembered},
    permit::{Permit, Route},
    pipe::Pipe,
    upstream::Upstream,
};

/// How long a closed session's client is listened to, unheard, so that the gate's last word is not lost to a reset.
const FAREWELL_WITHIN: Duration = Duration::from_millis(200);

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The client hung up.
    ClientLeft,
    /// The database hung up.
    DatabaseLeft,
    /// This region may not write any more, or writes under another epoch.
    RightLapsed,
    /// The region that writes is another one now.
    WriterMoved,
    /// No writer was known in time.
    HeldTooLong,
    /// As many sessions as may be were open or waiting.
    Full,
    /// The opening was not PostgreSQL's, or did not come in time.
    BadOpening,
    /// The role may not come through the gate.
    RoleRefused,
    /// The client did not prove who it is.
    NotAuthenticated,
    /// The database refused the session for a reason that is the app's business.
    DatabaseRefused,
    /// A peer was told that this region does not write.
    NotTheWriter,
    /// The database could not be reached.
    DatabaseDown,
    /// The agent stops.
    Stopping,
}

impl Closed {
    /// The label value in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::DatabaseLeft => "database_left",
            Self::RightLapsed => "right_lapsed",
            Self::WriterMoved => "writer_moved",
            Self::HeldTooLong => "held_too_long",
            Self::Full => "full",
            Self::BadOpening => "bad_opening",
            Self::RoleRefused => "role_refused",
            Self::NotAuthenticated => "not_authenticated",
            Self::DatabaseRefused => "database_refused",
            Self::NotTheWriter => "not_the_writer",
            Self::DatabaseDown => "database_down",
            Self::Stopping => "stopping",
        }
    }

    /// The gate's last word to a client that did not hang up itself.
    fn farewell(self) -> Option<Refusal> {
        let (message, hint) = match self {
            Self::RightLapsed | Self::WriterMoved => (
                "the right to write moved; the outcome of an unanswered statement is unknown",
                "Reconnect: the gate leads to the new writer.",
            ),
            Self::Stopping => ("the region's agent is stopping", "Reconnect in a moment."),
            Self::ClientLeft
            | Self::DatabaseLeft
            | Self::HeldTooLong
            | Self::Full
            | Self::BadOpening
            | Self::RoleRefused
            | Self::NotAuthenticated
            | Self::DatabaseRefused
            | Self::NotTheWriter
            | Self::DatabaseDown => return None,
        };
        Some(Refusal { code: ADMIN_SHUTDOWN, message: message.to_owned(), hint })
    }
}

/// One session under way. Everything that belongs to the database's side is in `upstream`, `route` and `down`.
pub(super) struct Relay {
    pub(super) client: TcpStream,
    pub(super) upstream: Upstream,
    pub(super) route: Route,
    pub(super) permit: Permit,
    pub(super) keys: Keys,
    /// From the database to the client; holds the first answer at the start.
    pub(super) down: Pipe,
    /// The client's cancel key, where the gate made one; otherwise the database's passes through.
    pub(super) remembered: Option<Remembered>,
}

/// Where the bytes to the client stand.
#[derive(Default)]
struct Delivered {
    boundary: Boundary,
}

impl Relay {
    /// Carries bytes until the session ends, and says why it did.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Closed {
        let mut up = Pipe::new();
        let mut delivered = Delivered::default();
        let closed = self.carry(&mut up, &mut delivered, stop).await;
        drop(self.upstream);
        if let Some(refusal) = closed.farewell()
            && delivered.boundary.between_messages()
        {
            refuse(self.client, &refusal.bytes()).await;
        }
        closed
    }

    async fn carry(&mut self, up: &mut Pipe, delivered: &mut Delivered, stop: &CancellationToken) -> Closed {
        loop {
            match self.pass_up(up).and_then(|()| self.pass_down(delivered)) {
                Ok(()) => {}
                Err(closed) => return closed,
            }
            // Both ends of a busy session are always ready: without this it would never let another run.
            tokio::task::coop::consume_budget().await;
            let from_client = wants(up.is_empty(), !self.down.is_empty());
            let from_upstream = wants(self.down.is_empty(), !up.is_empty());
            let (client, upstream) = (&self.client, &self.upstream);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Closed::Stopping,
                () = self.permit.turned() => {
                    if !self.permit.allows(&self.route) {
                        return lapsed(&self.route);
                    }
                }
                ready = client.ready(from_client.unwrap_or(Interest::READABLE)), if from_client.is_some() => {
                    if ready.is_err() {
                        return Closed::ClientLeft;
                    }
                }
                ready = upstream.ready(from_upstream.unwrap_or(Interest::READABLE)), if from_upstream.is_some() => {
                    if ready.is_err() {
                        return Closed::DatabaseLeft;
                    }
                }
            }
        }
    }

    /// One read from the client and one checked write to the database.
    fn pass_up(&self, up: &mut Pipe) -> Result<(), Closed> {
        if up.is_empty() {
            match up.append(|space| self.client.try_read(space)) {
                Ok(Some(0)) | Err(_) => return Err(Closed::ClientLeft),
                Ok(_) => {}
            }
        }
        if !up.is_empty() {
            up.write(|bytes| self.checked(bytes, |bytes| self.upstream.try_write(bytes)))
                .map_err(|error| blame(&error, &self.route, Closed::DatabaseLeft))?;
        }
        Ok(())
    }

    /// One read from the database and one checked write to the client.
    fn pass_down(&mut self, delivered: &mut Delivered) -> Result<(), Closed> {
        if self.down.is_empty() {
            match self.down.append(|space| self.upstream.try_read(space)) {
                Ok(Some(0)) | Err(_) => return Err(Closed::DatabaseLeft),
                Ok(_) => {}
            }
        }
        if !self.down.is_empty() {
            let (permit, route, client) = (&self.permit, &self.route, &self.client);
            let written = self
                .down
                .write(|bytes| checked(permit, route, bytes, |bytes| client.try_write(bytes)))
                .map_err(|error| blame(&error, route, Closed::ClientLeft))?;
            if let Some(key) = delivered.boundary.pass(written)
                && self.remembered.is_none()
            {
                self.remembered = Some(self.keys.remember(key.clone(), self.route.door(), key));
            }
        }
        Ok(())
    }

    fn checked(&self, bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        checked(&self.permit, &self.route, bytes, write)
    }
}

/// The safety of the whole gate: the check, and at once one write that cannot wait.
fn checked(
    permit: &Permit,
    route: &Route,
    bytes: &[u8],
    write: impl FnOnce(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    if permit.allows(route) { write(bytes) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn blame(error: &io::Error, route: &Route, otherwise: Closed) -> Closed {
    if error.kind() == io::ErrorKind::PermissionDenied { lapsed(route) } else { otherwise }
}

fn lapsed(route: &Route) -> Closed {
    match route {
        Route::Writer(_) | Route::Reader => Closed::RightLapsed,
        Route::Peer { .. } => Closed::WriterMoved,
    }
}

fn wants(read: bool, write: bool) -> Option<Interest> {
    match (read, write) {
        (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
        (true, false) => Some(Interest::READABLE),
        (false, true) => Some(Interest::WRITABLE),
        (false, false) => None,
    }
}

/// Says the gate's last word and hangs up. What the client still sends is thrown away.
pub(super) async fn refuse(mut client: TcpStream, last_word: &[u8]) {
    let saying = async {
        client.write_all(last_word).await?;
        client.shutdown().await?;
        let mut ignored = [0; 1024];
        while client.read(&mut ignored).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // Because a client that does not listen to the reason has nothing more to be told.
    let _ = timeout(FAREWELL_WITHIN, saying).await;
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use isles_model::{Epoch, Moment, Plan, Writes};
    use tokio::{
        net::{TcpListener, UnixListener, UnixStream},
        sync::watch,
    };

    use super::*;
    use crate::gate::upstream::Doors;

    const DEADLINE_MS: u64 = 100;
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A session under way whose idle timer never fires: what stops a byte here is the check before its write.
    struct Session {
        app: TcpStream,
        database: UnixStream,
        now_ms: Arc<AtomicU64>,
        plans: watch::Sender<Plan>,
        closed: tokio::task::JoinHandle<Closed>,
        _directory: tempfile::TempDir,
    }

    fn here(epoch: u64, until_ms: u64) -> Plan {
        let until = Moment(Duration::from_millis(until_ms));
        let epoch = Epoch(epoch);
        Plan { epoch, writes: Writes::Here { epoch, until }, ..Plan::starting() }
    }

    async fn session() -> Session {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (client, _) = listener.accept().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("database");
        let behind = UnixListener::bind(&socket).unwrap();
        let doors = Doors { socket, peers: BTreeMap::new() };
        let upstream = Upstream::Local(UnixStream::connect(&doors.socket).await.unwrap());
        let (database, _) = behind.accept().await.unwrap();
        let now_ms = Arc::new(AtomicU64::new(0));
        let (plans, receiver) = watch::channel(here(1, DEADLINE_MS));
        let clock = Arc::clone(&now_ms);
        let clock = Arc::new(move || Moment(Duration::from_millis(clock.load(Ordering::SeqCst))));
        let (permit, keeper) = Permit::new(receiver, clock);
        let relay = Relay {
            client,
            upstream,
            route: Route::Writer(Epoch(1)),
            permit,
            keys: Keys::default(),
            down: Pipe::new(),
            remembered: None,
        };
        let closed = tokio::spawn(async move {
            let closed = relay.run(&CancellationToken::new()).await;
            drop(keeper);
            closed
        });
        Session { app, database, now_ms, plans, closed, _directory: directory }
    }

    const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

    impl Session {
        async fn acknowledge(&mut self) {
            self.database.write_all(COMMITTED).await.unwrap();
        }

        async fn heard(&mut self) -> Vec<u8> {
            let mut heard = Vec::new();
            let ended = timeout(PATIENCE, self.app.read_to_end(&mut heard)).await;
            assert!(ended.is_ok(), "the session goes on; heard {heard:?}");
            heard
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_passes_before_the_deadline_and_never_at_it() {
        let mut session = session().await;
        session.now_ms.store(DEADLINE_MS - 1, Ordering::SeqCst);
        session.acknowledge().await;
        let mut heard = [0; COMMITTED.len()];
        session.app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, COMMITTED);

        session.now_ms.store(DEADLINE_MS, Ordering::SeqCst);
        session.acknowledge().await;
        let heard = session.heard().await;
        assert_eq!(heard, Closed::RightLapsed.farewell().unwrap().bytes());
        assert_eq!(session.closed.await.unwrap(), Closed::RightLapsed);
    }

    #[tokio::test]
    async fn a_statement_never_reaches_the_database_after_the_deadline() {
        let mut session = session().await;
        session.now_ms.store(DEADLINE_MS, Ordering::SeqCst);
        session.app.write_all(b"Q\0\0\0\x0bCOMMIT\0").await.unwrap();
        let mut reached = Vec::new();
        let ended = timeout(PATIENCE, session.database.read_to_end(&mut reached)).await;
        assert!(ended.is_ok(), "the session goes on; {reached:?} reached the database");
        assert_eq!(reached, b"");
        assert_eq!(session.closed.await.unwrap(), Closed::RightLapsed);
    }

    #[tokio::test]
    async fn an_acknowledgement_of_an_older_epoch_is_not_passed_though_the_region_writes_again() {
        let mut session = session().await;
        session.plans.send_replace(here(2, DEADLINE_MS));
        session.acknowledge().await;
        assert_eq!(session.heard().await, Closed::RightLapsed.farewell().unwrap().bytes());
    }

    #[tokio::test]
    async fn a_renewed_deadline_of_the_same_epoch_keeps_the_session() {
        let mut session = session().await;
        session.plans.send_replace(here(1, 2 * DEADLINE_MS));
        session.now_ms.store(2 * DEADLINE_MS - 1, Ordering::SeqCst);
        session.acknowledge().await;
        let mut heard = [0; COMMITTED.len()];
        session.app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, COMMITTED);
    }

    #[tokio::test]
    async fn the_gate_says_nothing_inside_a_message_of_the_database() {
        let mut session = session().await;
        session.database.write_all(&COMMITTED[..7]).await.unwrap();
        let mut heard = [0; 7];
        session.app.read_exact(&mut heard).await.unwrap();
        session.now_ms.store(DEADLINE_MS, Ordering::SeqCst);
        session.database.write_all(&COMMITTED[7..]).await.unwrap();
        assert_eq!(session.heard().await, b"");
    }
}
