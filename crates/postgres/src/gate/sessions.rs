//! One gate's sessions from the first byte to the last: counted, bounded, each in a task of its own.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use isles_model::{Meter, Metric};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span};

use super::{
    GateLimits,
    admit::{self, Admitted, Patience, Turned, Visitor},
    answer::{ADMIN_SHUTDOWN, INVALID_AUTHORIZATION, PROTOCOL_VIOLATION, Refusal},
    authenticate::{Credential, Denied, Guard, random},
    frame::Frames,
    keys::Keys,
    opening::{self, CancelKey, Opening, Startup},
    overheard::Overheard,
    permit::Permit,
    pipe::Pipe,
    relay::{Behind, Closed, Follows, Relay, refuse},
    session_state::SessionState,
    upstream::{self, Doors},
};

/// Clients beyond the limit that are told so at one time; further ones are hung up on.
const REFUSED_AT_ONCE_MAX: usize = 64;

/// Which gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// For an app that writes.
    Write,
    /// For an app that reads.
    Read,
    /// For other regions' write gates.
    Peer,
}

impl Kind {
    /// The label value in metrics and logs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Peer => "peer",
        }
    }
}

/// One gate.
pub(super) struct Gate(Arc<Inner>);

/// What the three gates of a region have in common.
#[derive(Clone)]
pub(super) struct House {
    pub(super) guard: Guard,
    /// Every role that may come through some gate.
    pub(super) roles: BTreeSet<String>,
    /// The one that may come through the read gate.
    pub(super) reader: String,
    pub(super) doors: Doors,
    pub(super) permit: Permit,
    pub(super) keys: Keys,
    pub(super) meter: Meter,
}

struct Inner {
    kind: Kind,
    house: House,
    hold: Duration,
    limits: GateLimits,
    open: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    held: Semaphore,
    counted: Mutex<usize>,
}

impl Gate {
    /// A gate with no session.
    pub(super) fn new(kind: Kind, house: &House, (hold, limits): (Duration, GateLimits)) -> Self {
        Self(Arc::new(Inner {
            kind,
            house: house.clone(),
            hold,
            limits,
            open: Arc::new(Semaphore::new(limits.sessions)),
            refusals: Arc::new(Semaphore::new(REFUSED_AT_ONCE_MAX)),
            held: Semaphore::new(limits.held),
            counted: Mutex::new(0),
        }))
    }

    /// Which one it is.
    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Takes one connection and returns at once.
    pub(super) fn take(&self, client: TcpStream, tracker: &TaskTracker, stop: &CancellationToken) {
        let inner = Arc::clone(&self.0);
        let stop = stop.clone();
        let span = info_span!("database session", gate = inner.kind.word());
        if let Ok(place) = Arc::clone(&inner.open).try_acquire_owned() {
            let session = async move {
                inner.count(1);
                let closed = inner.session(client, &stop).await;
                inner.count(-1);
                inner.closed(closed);
                drop(place);
            };
            tracker.spawn(session.instrument(span));
        } else if let Ok(place) = Arc::clone(&inner.refusals).try_acquire_owned() {
            let refusing = async move {
                inner.refuse_full(client).await;
                drop(place);
            };
            tracker.spawn(refusing.instrument(span));
        } else {
            inner.closed(Closed::Full);
        }
    }
}

impl Inner {
    async fn session(&self, mut client: TcpStream, stop: &CancellationToken) -> Closed {
        if upstream::prepare(&client).is_err() {
            return Closed::ClientLeft;
        }
        let opening = tokio::select! {
            () = stop.cancelled() => return Closed::Stopping,
            opening = timeout(self.limits.opening, opening::read(&mut client)) => opening,
        };
        let startup = match opening {
            Ok(Ok(Opening::Session(startup))) => startup,
            Ok(Ok(Opening::Cancel(key))) => {
                self.cancel(&key).await;
                return Closed::ClientLeft;
            }
            Ok(Err(error)) => {
                debug!(%error, "Refused a connection that does not speak PostgreSQL.");
                let hint = "This port speaks PostgreSQL's protocol 3.";
                let refusal = Refusal { code: PROTOCOL_VIOLATION, message: error.to_string(), hint };
                refuse(client, &refusal.bytes()).await;
                return Closed::BadOpening;
            }
            Err(_) => return Closed::BadOpening,
        };
        let ended = match self.kind {
            Kind::Peer => self.pass_through(client, &startup, stop).await,
            Kind::Write | Kind::Read => self.host(client, startup, stop).await,
        };
        match ended {
            Ok(closed) => closed,
            Err((client, turned)) => {
                if let Some(last_word) = turned.last_word {
                    refuse(client, &last_word).await;
                }
                turned.closed
            }
        }
    }

    /// Another region's write gate: it proves to the database itself who it is.
    async fn pass_through(
        &self,
        client: TcpStream,
        startup: &Startup,
        stop: &CancellationToken,
    ) -> Result<Closed, (TcpStream, Turned)> {
        if !startup.user().is_some_and(|user| self.house.roles.contains(user)) {
            return Err((client, role_refused()));
        }
        let admitted = tokio::select! {
            () = stop.cancelled() => return Ok(Closed::Stopping),
            admitted = admit::from_peer(startup, &self.house.doors, &self.house.permit) => admitted,
        };
        let (route, upstream, down) = match admitted {
            Ok(admitted) => admitted,
            Err(turned) => return Err((client, turned)),
        };
        let permit = self.house.permit.clone();
        let keys = self.house.keys.clone();
        let follows = Follows::Answers(Frames::default());
        let mut relay = Relay { client, permit, follows, up: Pipe::new() };
        let overheard = Overheard::after(down.bytes());
        let behind = Behind { upstream, route, down, overheard, remembered: None, keys };
        let closed = relay.run(behind, stop).await;
        Ok(relay.end(closed).await)
    }

    /// An app: it proves to the gate who it is, and the gate goes on.
    async fn host(
        &self,
        mut client: TcpStream,
        mut startup: Startup,
        stop: &CancellationToken,
    ) -> Result<Closed, (TcpStream, Turned)> {
        let proving = timeout(self.limits.opening, self.prove(&mut client, &mut startup));
        let credential = tokio::select! {
            () = stop.cancelled() => return Ok(Closed::Stopping),
            proved = proving => match proved {
                Ok(Ok(credential)) => credential,
                Ok(Err(turned)) => return Err((client, turned)),
                Err(_) => return Ok(Closed::BadOpening),
            },
        };
        let mut permit = self.house.permit.clone();
        let visitor = Visitor {
            client: &client,
            startup: &startup,
            credential: &credential,
            doors: &self.house.doors,
            reads: self.kind == Kind::Read,
            session: None,
        };
        let admitted = tokio::select! {
            () = stop.cancelled() => return Ok(Closed::Stopping),
            admitted = self.admit(&visitor, &mut permit) => admitted,
        };
        let mut admitted = match admitted {
            Ok(admitted) => admitted,
            Err(turned) => return Err((client, turned)),
        };
        let Ok(random) = random() else { return Ok(Closed::DatabaseDown) };
        let key = CancelKey::of_random(random);
        let session = SessionState::new(admitted.greeting.reported.clone(), startup.is_replication());
        let follows = Follows::Session(Box::new(session));
        let mut relay = Relay { client, permit, follows, up: Pipe::new() };
        let mut word = admitted.greeting.bytes(&key);
        loop {
            let Ok(behind) = self.behind(admitted, &key, &word) else { return Ok(Closed::DatabaseLeft) };
            let closed = relay.run(behind, stop).await;
            if !closed.is_of_the_way() || !relay.can_move() {
                return Ok(relay.end(closed).await);
            }
            admitted = match self.lead_on(&mut relay, &startup, &credential, stop).await {
                Ok(admitted) => admitted,
                Err(turned) => return Err((relay.client, turned)),
            };
            word = relay.move_to(&admitted.greeting);
        }
    }

    /// Finds another database for an idle session and makes it like the one that it had.
    async fn lead_on(
        &self,
        relay: &mut Relay,
        startup: &Startup,
        credential: &Credential,
        stop: &CancellationToken,
    ) -> Result<Admitted, Turned> {
        let session = match &relay.follows {
            Follows::Session(session) => Some(&**session),
            Follows::Answers(_) => None,
        };
        let visitor = Visitor {
            client: &relay.client,
            startup,
            credential,
            doors: &self.house.doors,
            reads: self.kind == Kind::Read,
            session,
        };
        let patience = Patience { hold: self.hold, places: &self.held, asked: !relay.up.is_empty() };
        let begun = Instant::now();
        tokio::select! {
            () = stop.cancelled() => Err(stopping()),
            admitted = admit::seek(&visitor, &mut relay.permit, patience) => {
                if admitted.is_ok() {
                    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    debug!(elapsed_ms, "An idle session goes on with another database.");
                }
                admitted
            }
        }
    }

    /// The database's end of a session, which begins with `word` to the client.
    fn behind(&self, admitted: Admitted, key: &CancelKey, word: &[u8]) -> std::io::Result<Behind> {
        let Admitted { route, talk, greeting } = admitted;
        let keys = self.house.keys.clone();
        let remembered = greeting.key.map(|theirs| keys.remember(key.clone(), route.door(), theirs));
        let (upstream, unread) = talk.into_parts();
        let mut down = Pipe::new();
        down.say(word)?;
        down.say(&unread)?;
        Ok(Behind { upstream, route, down, overheard: Overheard::after(&unread), remembered, keys })
    }

    async fn prove(&self, client: &mut TcpStream, startup: &mut Startup) -> Result<Credential, Turned> {
        if let Some(negotiated) = startup.negotiate()
            && client.write_all(&negotiated).await.is_err()
        {
            return Err(Turned { closed: Closed::ClientLeft, last_word: None });
        }
        let Some(user) = startup.user() else { return Err(role_refused()) };
        let credential = self.house.guard.authenticate(client, user).await.map_err(|denied| {
            debug!(error = %denied, "A client did not prove who it is.");
            let closed = match denied {
                Denied::Left(_) => Closed::ClientLeft,
                Denied::Malformed(_) | Denied::Rejected => Closed::NotAuthenticated,
            };
            Turned { closed, last_word: denied.refusal(user).map(|refusal| refusal.bytes()) }
        })?;
        if self.kind == Kind::Read && user != self.house.reader {
            return Err(role_refused());
        }
        Ok(credential)
    }

    async fn admit(&self, visitor: &Visitor<'_>, permit: &mut Permit) -> Result<Admitted, Turned> {
        match self.kind {
            Kind::Read => admit::to_reader(visitor).await,
            Kind::Write | Kind::Peer => {
                let patience = Patience { hold: self.hold, places: &self.held, asked: true };
                admit::seek(visitor, permit, patience).await
            }
        }
    }

    /// A key nobody knows is passed over in silence, as PostgreSQL does.
    async fn cancel(&self, key: &CancelKey) {
        if let Some((door, theirs)) = self.house.keys.find(key)
            && let Err(error) = upstream::cancel(&self.house.doors, &door, &theirs).await
        {
            debug!(%error, "Could not pass a cancel request on.");
        }
    }

    /// The client is let finish its opening first: a reset would take the reason away from it.
    async fn refuse_full(&self, mut client: TcpStream) {
        let opening =
            timeout(self.limits.opening.min(Duration::from_secs(1)), opening::read(&mut client)).await;
        if let Ok(Ok(Opening::Cancel(key))) = &opening {
            self.cancel(key).await;
        } else if let Some(last_word) = admit::full("too many connections at this gate").last_word {
            refuse(client, &last_word).await;
        }
        self.closed(Closed::Full);
    }

    fn count(&self, change: isize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted = counted.saturating_add_signed(change);
        // Counts stay far below 2^53.
        self.house.meter.set(Metric::GateConnections, &[self.kind.word()], *counted as f64);
    }

    fn closed(&self, why: Closed) {
        self.house.meter.add(Metric::GateClosed, &[why.word()], 1);
    }
}

fn stopping() -> Turned {
    let message = "the region's agent is stopping".to_owned();
    let refusal = Refusal { code: ADMIN_SHUTDOWN, message, hint: "Reconnect in a moment." };
    Turned { closed: Closed::Stopping, last_word: Some(refusal.bytes()) }
}

fn role_refused() -> Turned {
    let hint = "The app's role comes through the write gate, the role that reads through the read gate too.";
    let message = "this role may not come through this gate".to_owned();
    let refusal = Refusal { code: INVALID_AUTHORIZATION, message, hint };
    Turned { closed: Closed::RoleRefused, last_word: Some(refusal.bytes()) }
}
