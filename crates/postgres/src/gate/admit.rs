//! Finds a way for a session, holding it while no region may write.

use std::time::Duration;

use isles_model::Because;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until},
};

use super::{
    answer::{ADMIN_SHUTDOWN, CANNOT_CONNECT_NOW, NOT_THE_WRITER, Refusal, TOO_MANY_CONNECTIONS},
    authenticate::Credential,
    login::{Greeting, log_in},
    opening::Startup,
    permit::{Permit, Route},
    pipe::Pipe,
    relay::Closed,
    repoint::restore,
    session_state::SessionState,
    talk::Talk,
    upstream::{DialError, Doors, Upstream, dial},
};

/// The first pause before a refused way is tried again under an unchanged plan; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(25);
/// The longest such pause while a client waits.
const RETRY_LONGEST: Duration = Duration::from_millis(200);
/// The longest such pause while no client waits: hundreds of idle sessions are not to press a database that starts.
const RETRY_IDLE_LONGEST: Duration = Duration::from_secs(2);
/// Terminate: a client that says so wants nothing more.
const TERMINATE: u8 = b'X';

/// A way that was found: the route, and a database that is ready for the session.
pub(super) struct Admitted {
    pub(super) route: Route,
    pub(super) talk: Talk,
    pub(super) greeting: Greeting,
}

/// Why a session was not admitted, and the last word to its client; without one there is nobody left to tell.
pub(super) struct Turned {
    pub(super) closed: Closed,
    pub(super) last_word: Option<Vec<u8>>,
}

/// Whose session it is, and where it may be led.
#[derive(Clone, Copy)]
pub(super) struct Visitor<'a> {
    pub(super) client: &'a TcpStream,
    pub(super) startup: &'a Startup,
    pub(super) credential: &'a Credential,
    pub(super) doors: &'a Doors,
    /// Into the local database, whoever writes; otherwise to the writer, wherever it is.
    pub(super) reads: bool,
    /// What the new backend must be made like, for a session that has lost one.
    pub(super) session: Option<&'a SessionState>,
}

/// How patient a gate is.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) hold: Duration,
    pub(super) places: &'a Semaphore,
    /// Whether the client waits from the beginning; otherwise it waits from its next message on.
    pub(super) asked: bool,
}

/// To where the session belongs, waiting for it up to `patience`.
pub(super) async fn seek(
    visitor: &Visitor<'_>,
    permit: &mut Permit,
    patience: Patience<'_>,
) -> Result<Admitted, Turned> {
    let mut wait = Wait { patience, end: None, place: None };
    let mut pause = RETRY_FIRST;
    if patience.asked {
        wait.begin();
    }
    loop {
        let route = if visitor.reads { Ok(Route::Reader) } else { permit.route() };
        let why = match route {
            Ok(route) => match attempt(visitor, permit, route, wait.end.is_some()).await? {
                Attempt::Admitted(admitted) => return Ok(*admitted),
                Attempt::Turned => {
                    pause = RETRY_FIRST;
                    continue;
                }
                Attempt::NotNow(why) => why,
            },
            Err(because) => Why::Nowhere(because),
        };
        wait.take_place()?;
        let retry = async {
            match why {
                Why::Nowhere(_) => std::future::pending().await,
                Why::Dial(_) => sleep(pause).await,
            }
        };
        tokio::select! {
            () = permit.turned() => pause = RETRY_FIRST,
            () = retry => pause = (pause * 2).min(wait.longest_pause()),
            () = wait.ended() => return Err(held_too_long(&why, patience.hold)),
            heard = hear(visitor.client, wait.end.is_none()) => match heard {
                Heard::Left => return Err(Turned { closed: Closed::ClientLeft, last_word: None }),
                Heard::Asks => {
                    wait.begin();
                    pause = RETRY_FIRST;
                }
            },
        }
    }
}

/// For another region's write gate: into the local database, only while it is the writer, and never waiting.
pub(super) async fn from_peer(
    startup: &Startup,
    doors: &Doors,
    permit: &Permit,
) -> Result<(Route, Upstream, Pipe), Turned> {
    let Ok(route @ Route::Writer(_)) = permit.route() else { return Err(not_the_writer()) };
    let (upstream, down) =
        dial(doors, &route.door(), startup).await.map_err(|error| database_down(&error))?;
    Ok((route, upstream, down))
}

/// For an app that reads: into the local database, whoever writes.
pub(super) async fn to_reader(visitor: &Visitor<'_>) -> Result<Admitted, Turned> {
    enter(visitor, Route::Reader).await.map_err(|error| match error {
        DialError::Refused(last_word) => refused_by_database(last_word),
        error => database_down(&error),
    })
}

/// A client's wait for a writer: it has an end, and takes one of a bounded number of places.
struct Wait<'a> {
    patience: Patience<'a>,
    end: Option<Instant>,
    place: Option<SemaphorePermit<'a>>,
}

impl Wait<'_> {
    fn begin(&mut self) {
        self.end.get_or_insert_with(|| Instant::now() + self.patience.hold);
    }

    fn take_place(&mut self) -> Result<(), Turned> {
        if self.end.is_some() && self.place.is_none() {
            let place = self.patience.places.try_acquire();
            self.place = Some(place.map_err(|_| full("too many connections wait for a writer"))?);
        }
        Ok(())
    }

    fn longest_pause(&self) -> Duration {
        if self.end.is_some() { RETRY_LONGEST } else { RETRY_IDLE_LONGEST }
    }

    async fn ended(&self) {
        match self.end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}

/// Why a session still waits.
enum Why {
    Nowhere(Because),
    Dial(DialError),
}

enum Attempt {
    Admitted(Box<Admitted>),
    /// The plan turned meanwhile: look again at once.
    Turned,
    NotNow(Why),
}

/// Enters along `route` until it is open, the plan turns away from it, or the client leaves.
async fn attempt(
    visitor: &Visitor<'_>,
    permit: &mut Permit,
    route: Route,
    asked: bool,
) -> Result<Attempt, Turned> {
    let mut entering = std::pin::pin!(enter(visitor, route.clone()));
    let mut hearing = std::pin::pin!(hear(visitor.client, !asked));
    let mut listens = true;
    loop {
        tokio::select! {
            entered = &mut entering => return match entered {
                Ok(admitted) => Ok(Attempt::Admitted(Box::new(admitted))),
                // A session that is open already waits until the new database takes it, which may be full of others.
                Err(DialError::Refused(last_word)) if visitor.session.is_none() => {
                    Err(refused_by_database(last_word))
                }
                Err(DialError::Unlike) => Err(unlike()),
                Err(error) => Ok(Attempt::NotNow(Why::Dial(error))),
            },
            () = permit.turned() => {
                if !visitor.reads && permit.route().as_ref() != Ok(&route) {
                    return Ok(Attempt::Turned);
                }
            }
            heard = &mut hearing, if listens => match heard {
                Heard::Left => return Err(Turned { closed: Closed::ClientLeft, last_word: None }),
                Heard::Asks => listens = false,
            },
        }
    }
}

async fn enter(visitor: &Visitor<'_>, route: Route) -> Result<Admitted, DialError> {
    let password = visitor.credential.password(&route).ok_or(DialError::NoCredential)?;
    let (mut talk, mut greeting) = log_in(visitor.doors, &route.door(), visitor.startup, &password).await?;
    if let Some(session) = visitor.session {
        restore(&mut talk, session, &mut greeting.reported).await?;
    }
    Ok(Admitted { route, talk, greeting })
}

/// What is heard of a client while nothing is read from it.
enum Heard {
    Left,
    Asks,
}

/// Waits until the client hangs up or, where that is of interest, says something.
async fn hear(client: &TcpStream, asking_matters: bool) -> Heard {
    let mut first = [0];
    match client.peek(&mut first).await {
        Ok(0) | Err(_) => Heard::Left,
        Ok(_) if !asking_matters => std::future::pending().await,
        Ok(_) if first == [TERMINATE] => Heard::Left,
        Ok(_) => Heard::Asks,
    }
}

fn refused_by_database(last_word: Vec<u8>) -> Turned {
    Turned { closed: Closed::DatabaseRefused, last_word: Some(last_word) }
}

fn turned(closed: Closed, refusal: &Refusal) -> Turned {
    Turned { closed, last_word: Some(refusal.bytes()) }
}

/// A refusal because a named limit is reached.
pub(super) fn full(message: &str) -> Turned {
    let hint = "Lower the app's pool size or raise the gate's limit.";
    let refusal = Refusal { code: TOO_MANY_CONNECTIONS, message: message.to_owned(), hint };
    turned(Closed::Full, &refusal)
}

fn held_too_long(why: &Why, hold: Duration) -> Turned {
    let seconds = hold.as_secs_f32();
    let (closed, message) = match why {
        Why::Nowhere(because) => {
            (Closed::HeldTooLong, format!("no region may write ({because}); held for {seconds} s"))
        }
        Why::Dial(error) => (Closed::DatabaseDown, format!("{error}; held for {seconds} s")),
    };
    let hint = "`isles status` shows which region may write and why; connect again later.";
    turned(closed, &Refusal { code: CANNOT_CONNECT_NOW, message, hint })
}

fn unlike() -> Turned {
    let refusal = Refusal {
        code: ADMIN_SHUTDOWN,
        message: "the session could not be restored at the region that writes now".to_owned(),
        hint: "Reconnect: the gate leads to the new writer.",
    };
    turned(Closed::Unlike, &refusal)
}

fn not_the_writer() -> Turned {
    let refusal = Refusal {
        code: NOT_THE_WRITER,
        message: "this region does not hold the right to write".to_owned(),
        hint: "Only write gates of other regions come here; an app uses its own region's write gate.",
    };
    turned(Closed::NotTheWriter, &refusal)
}

fn database_down(error: &DialError) -> Turned {
    let hint = "`isles status` shows the state of this region's database.";
    let refusal = Refusal { code: CANNOT_CONNECT_NOW, message: error.to_string(), hint };
    turned(Closed::DatabaseDown, &refusal)
}
