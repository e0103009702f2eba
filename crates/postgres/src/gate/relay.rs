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
    answer::{ADMIN_SHUTDOWN, COMPLETION_UNKNOWN, Refusal},
    frame::Frames,
    keys::{self, Keys, Remembered},
    login::Greeting,
    overheard::Overheard,
    permit::{Permit, Route},
    pipe::{PIPE_BYTES, Pipe},
    repoint::news,
    session_state::SessionState,
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
    /// The database let a commit go that no other region had confirmed.
    Unconfirmed,
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
    /// The session could not be restored at another database.
    Unlike,
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
            Self::Unconfirmed => "unconfirmed",
            Self::RightLapsed => "right_lapsed",
            Self::WriterMoved => "writer_moved",
            Self::HeldTooLong => "held_too_long",
            Self::Full => "full",
            Self::BadOpening => "bad_opening",
            Self::RoleRefused => "role_refused",
            Self::NotAuthenticated => "not_authenticated",
            Self::DatabaseRefused => "database_refused",
            Self::Unlike => "unlike",
            Self::NotTheWriter => "not_the_writer",
            Self::DatabaseDown => "database_down",
            Self::Stopping => "stopping",
        }
    }

    /// The gate's last word to a client that did not hang up itself.
    fn farewell(self, pinned: Option<&str>) -> Option<Refusal> {
        let unknown =
            "the right to write moved; the outcome of an unanswered statement is unknown".to_owned();
        if self == Self::Unconfirmed {
            let message = "the wait for another region was cancelled: the commit is on one disk, and may be lost with it";
            let hint = "Treat the outcome as unknown.";
            return Some(Refusal { code: COMPLETION_UNKNOWN, message: message.to_owned(), hint });
        }
        let (message, hint) = match (self, pinned) {
            (Self::RightLapsed | Self::WriterMoved, Some(what)) => (
                format!("the right to write moved; the session could not move with it because of {what}"),
                "Reconnect: the gate leads to the new writer.",
            ),
            (Self::RightLapsed | Self::WriterMoved, None) => {
                (unknown, "Reconnect: the gate leads to the new writer.")
            }
            (Self::Stopping, _) => ("the region's agent is stopping".to_owned(), "Reconnect in a moment."),
            _ => return None,
        };
        Some(Refusal { code: ADMIN_SHUTDOWN, message, hint })
    }

    /// Whether it is only the way that ended, and another one may go on.
    pub(super) fn is_of_the_way(self) -> bool {
        matches!(self, Self::RightLapsed | Self::WriterMoved | Self::DatabaseLeft)
    }
}

/// What is known of the session whose bytes are carried.
pub(super) enum Follows {
    /// Where its answers end: another region's gate knows the rest.
    Answers(Frames),
    /// All that is needed to go on elsewhere.
    Session(Box<SessionState>),
}

/// One session under way, but for the database's end of it.
pub(super) struct Relay {
    pub(super) client: TcpStream,
    pub(super) permit: Permit,
    pub(super) follows: Follows,
    /// From the client to the database.
    pub(super) up: Pipe,
}

/// The database's end of a session.
pub(super) struct Behind {
    pub(super) upstream: Upstream,
    pub(super) route: Route,
    /// From the database to the client; holds the first answer at the start.
    pub(super) down: Pipe,
    /// Looks for commits that must not be acknowledged, or not yet.
    pub(super) overheard: Overheard,
    /// The cancel key under which the client reaches this backend, where the gate made one.
    pub(super) remembered: Option<Remembered>,
    /// Where it is noted otherwise, when the database's own passes through.
    pub(super) keys: Keys,
}

impl Relay {
    /// Carries bytes until the session or the way to its database ends, and says why it did.
    pub(super) async fn run(&mut self, mut behind: Behind, stop: &CancellationToken) -> Closed {
        loop {
            if let Err(closed) = self.pass_up(&behind).and_then(|()| self.pass_down(&mut behind)) {
                return closed;
            }
            // Both ends of a busy session are always ready: without this it would never let another run.
            tokio::task::coop::consume_budget().await;
            let held = !self.permit.acknowledges(&behind.route);
            let from_client = wants(self.up.is_empty(), !behind.down.is_empty() && !held);
            let from_upstream = wants(behind.down.is_empty(), !self.up.is_empty());
            let (client, upstream) = (&self.client, &behind.upstream);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Closed::Stopping,
                () = self.permit.turned_or_acknowledges(held) => {
                    if !self.permit.allows(&behind.route) {
                        return lapsed(&behind.route);
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

    /// May the session go on with another database?
    pub(super) fn can_move(&self) -> bool {
        matches!(&self.follows, Follows::Session(session) if session.can_move())
    }

    /// The session goes on with a database that greeted the gate so; returns what its client has to be told.
    pub(super) fn move_to(&mut self, greeting: &Greeting) -> Vec<u8> {
        let Follows::Session(session) = &mut self.follows else { return Vec::new() };
        let news = news(session.reported(), &greeting.reported);
        session.moved(greeting.reported.clone());
        news
    }

    /// Says why the session ends, where there is a place for it, and hangs up.
    pub(super) async fn end(self, closed: Closed) -> Closed {
        let (between, pinned) = match &self.follows {
            Follows::Answers(frames) => (frames.between_messages(), None),
            Follows::Session(session) => (session.between_answers(), session.pinned()),
        };
        if let Some(refusal) = closed.farewell(pinned)
            && between
        {
            refuse(self.client, &refusal.bytes()).await;
        }
        closed
    }

    /// One read from the client and one checked write to the database.
    fn pass_up(&mut self, behind: &Behind) -> Result<(), Closed> {
        if self.up.is_empty() {
            match self.up.append(|space| self.client.try_read(space)) {
                Ok(Some(0)) | Err(_) => return Err(Closed::ClientLeft),
                Ok(_) => {}
            }
        }
        if !self.up.is_empty() {
            let (permit, route, upstream) = (&self.permit, &behind.route, &behind.upstream);
            let written = self
                .up
                .write(PIPE_BYTES, |bytes| checked(permit, route, bytes, |bytes| upstream.try_write(bytes)))
                .map_err(|error| blame(&error, route, Closed::DatabaseLeft))?;
            if let Follows::Session(session) = &mut self.follows {
                session.sent(written);
            }
        }
        Ok(())
    }

    /// One read from the database and one checked write to the client.
    fn pass_down(&mut self, behind: &mut Behind) -> Result<(), Closed> {
        if behind.down.is_empty() {
            match behind.down.append(|space| behind.upstream.try_read(space)) {
                Ok(Some(0)) | Err(_) => return Err(Closed::DatabaseLeft),
                Ok(_) => {}
            }
            let heard = behind.overheard.hear(behind.down.bytes());
            if heard.unconfirmed {
                return Err(Closed::Unconfirmed);
            }
            if heard.tables {
                self.permit.note_tables(&behind.route);
            }
        }
        if behind.down.is_empty() || !self.permit.acknowledges(&behind.route) {
            return Ok(());
        }
        let most = match &self.follows {
            Follows::Answers(_) => PIPE_BYTES,
            Follows::Session(session) => session.deliverable(behind.down.bytes()),
        };
        if most == 0 {
            // The database's last word to a session that goes on elsewhere.
            return Err(Closed::DatabaseLeft);
        }
        let (permit, route, client) = (&self.permit, &behind.route, &self.client);
        let written = behind
            .down
            .write(most, |bytes| checked(permit, route, bytes, |bytes| client.try_write(bytes)))
            .map_err(|error| blame(&error, route, Closed::ClientLeft))?;
        match &mut self.follows {
            Follows::Session(session) => session.given(written),
            Follows::Answers(frames) => {
                if let Some(key) = keys::passing(frames, written) {
                    behind.remembered = Some(behind.keys.remember(key.clone(), behind.route.door(), key));
                }
            }
        }
        Ok(())
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
    use crate::{
        Coverage,
        gate::{acknowledge::Acknowledge, upstream::Doors},
    };

    const DEADLINE_MS: u64 = 100;
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A session under way whose idle timer never fires: what stops a byte here is the check before its write.
    struct Session {
        app: TcpStream,
        database: UnixStream,
        now_ms: Arc<AtomicU64>,
        plans: watch::Sender<Plan>,
        acknowledge: watch::Sender<Acknowledge>,
        coverage: Coverage,
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
        let coverage = Coverage::new();
        let (acknowledge, acknowledged) = watch::channel(Acknowledge::Open);
        let (permit, keeper) = Permit::new(receiver, acknowledged, coverage.clone(), clock);
        let follows = Follows::Answers(Frames::default());
        let mut relay = Relay { client, permit, follows, up: Pipe::new() };
        let behind = Behind {
            upstream,
            route: Route::Writer(Epoch(1)),
            down: Pipe::new(),
            overheard: Overheard::default(),
            remembered: None,
            keys: Keys::default(),
        };
        let closed = tokio::spawn(async move {
            let closed = relay.run(behind, &CancellationToken::new()).await;
            drop(keeper);
            relay.end(closed).await
        });
        Session { app, database, now_ms, plans, acknowledge, coverage, closed, _directory: directory }
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
        assert_eq!(heard, Closed::RightLapsed.farewell(None).unwrap().bytes());
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
        assert_eq!(session.heard().await, Closed::RightLapsed.farewell(None).unwrap().bytes());
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

    #[tokio::test]
    async fn the_answer_to_a_commit_that_made_a_table_waits_until_the_table_is_covered() {
        const MADE: &[u8] = b"C\0\0\0\x11CREATE TABLE\0";
        let mut session = session().await;
        session.coverage.demand(true);
        session.database.write_all(MADE).await.unwrap();
        assert!(timeout(Duration::from_millis(50), session.app.read_u8()).await.is_err(), "it was held");
        session.coverage.cover(session.coverage.noted());
        let mut heard = [0; MADE.len()];
        session.app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, MADE);
    }

    #[tokio::test]
    async fn a_held_acknowledgement_waits_and_passes_when_it_may_but_never_at_the_deadline() {
        let mut session = session().await;
        session.acknowledge.send_replace(Acknowledge::Until(Moment::ZERO));
        session.acknowledge().await;
        let early = timeout(Duration::from_millis(50), session.app.read_u8()).await;
        assert!(early.is_err(), "it was held");
        session.acknowledge.send_replace(Acknowledge::Open);
        let mut heard = [0; COMMITTED.len()];
        session.app.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, COMMITTED);

        session.acknowledge.send_replace(Acknowledge::Held);
        session.acknowledge().await;
        session.now_ms.store(DEADLINE_MS, Ordering::SeqCst);
        session.acknowledge.send_replace(Acknowledge::Open);
        assert_eq!(session.heard().await, Closed::RightLapsed.farewell(None).unwrap().bytes());
    }
}
