//! One gate's sessions from the first byte to the last: counted, bounded, each in a task of its own.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use isles_model::{Meter, Metric};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span};

use super::{
    GateLimits,
    admit::{self, Admitted, Patience, Turned},
    answer::{INVALID_AUTHORIZATION, PROTOCOL_VIOLATION, Refusal},
    keys::Keys,
    opening::{self, Opening, Startup},
    permit::Permit,
    relay::{Closed, Relay, refuse},
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

struct Inner {
    kind: Kind,
    roles: BTreeSet<String>,
    doors: Doors,
    permit: Permit,
    keys: Keys,
    meter: Meter,
    hold: Duration,
    limits: GateLimits,
    open: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    held: Semaphore,
    counted: Mutex<usize>,
}

impl Gate {
    /// A gate with no session.
    pub(super) fn new(
        kind: Kind,
        roles: &BTreeSet<String>,
        doors: &Doors,
        permit: &Permit,
        keys: &Keys,
        meter: &Meter,
        (hold, limits): (Duration, GateLimits),
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            roles: roles.clone(),
            doors: doors.clone(),
            permit: permit.clone(),
            keys: keys.clone(),
            meter: meter.clone(),
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
                refuse(client, &Refusal { code: PROTOCOL_VIOLATION, message: error.to_string(), hint }).await;
                return Closed::BadOpening;
            }
            Err(_) => return Closed::BadOpening,
        };
        if !self.admits_role(&startup) {
            let hint =
                "Use the roles of DATABASE_URL and DATABASE_READ_URL; `isles psql` is for administration.";
            let message = "this role may not come through the gate".to_owned();
            refuse(client, &Refusal { code: INVALID_AUTHORIZATION, message, hint }).await;
            return Closed::RoleRefused;
        }
        let mut permit = self.permit.clone();
        let admitted = tokio::select! {
            () = stop.cancelled() => return Closed::Stopping,
            admitted = self.admit(&client, &startup, &mut permit) => admitted,
        };
        match admitted {
            Ok(Admitted { route, upstream, down }) => {
                let keys = self.keys.clone();
                Relay { client, upstream, route, permit, keys, down }.run(stop).await
            }
            Err(Turned { closed, refusal }) => {
                if let Some(refusal) = refusal {
                    refuse(client, &refusal).await;
                }
                closed
            }
        }
    }

    async fn admit(
        &self,
        client: &TcpStream,
        startup: &Startup,
        permit: &mut Permit,
    ) -> Result<Admitted, Turned> {
        match self.kind {
            Kind::Write => {
                let patience = Patience { hold: self.hold, places: &self.held };
                admit::to_writer(client, startup, &self.doors, permit, patience).await
            }
            Kind::Read => admit::to_reader(startup, &self.doors).await,
            Kind::Peer => admit::from_peer(startup, &self.doors, permit).await,
        }
    }

    fn admits_role(&self, startup: &Startup) -> bool {
        let mut named = startup.users().peekable();
        let known = |user: &[u8]| std::str::from_utf8(user).is_ok_and(|user| self.roles.contains(user));
        named.peek().is_some() && named.all(known)
    }

    /// A key nobody knows is passed over in silence, as PostgreSQL does.
    async fn cancel(&self, key: &opening::CancelKey) {
        if let Some(door) = self.keys.find(key)
            && let Err(error) = upstream::cancel(&self.doors, &door, key).await
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
        } else if let Some(refusal) = admit::full("too many connections at this gate").refusal {
            refuse(client, &refusal).await;
        }
        self.closed(Closed::Full);
    }

    fn count(&self, change: isize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted = counted.saturating_add_signed(change);
        // Counts stay far below 2^53.
        self.meter.set(Metric::GateConnections, &[self.kind.word()], *counted as f64);
    }

    fn closed(&self, why: Closed) {
        self.meter.add(Metric::GateClosed, &[why.word()], 1);
    }
}
