//! Finds a way for a new session, holding it while no region may write.

use std::time::Duration;

use isles_model::Because;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};

use super::{
    answer::{CANNOT_CONNECT_NOW, NOT_THE_WRITER, Refusal, TOO_MANY_CONNECTIONS},
    opening::Startup,
    permit::{Permit, Route},
    pipe::Pipe,
    relay::Closed,
    upstream::{DialError, Doors, Upstream, dial},
};

/// The first pause before a refused way is tried again under an unchanged plan; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(25);
/// The longest such pause.
const RETRY_LONGEST: Duration = Duration::from_millis(200);

/// A way that was found: the route, the connection, and the database's first answer.
pub(super) struct Admitted {
    pub(super) route: Route,
    pub(super) upstream: Upstream,
    pub(super) down: Pipe,
}

/// Why a session was not admitted; without a refusal there is nobody left to tell.
pub(super) struct Turned {
    pub(super) closed: Closed,
    pub(super) refusal: Option<Refusal>,
}

/// How patient a write gate is.
pub(super) struct Patience<'a> {
    pub(super) hold: Duration,
    pub(super) places: &'a Semaphore,
}

/// For an app that may write: to the writer, wherever it is, waiting for one up to `patience`.
pub(super) async fn to_writer(
    client: &TcpStream,
    startup: &Startup,
    doors: &Doors,
    permit: &mut Permit,
    patience: Patience<'_>,
) -> Result<Admitted, Turned> {
    let end = Instant::now() + patience.hold;
    let mut place = None;
    let mut pause = RETRY_FIRST;
    loop {
        let why = match permit.route() {
            Ok(route) => match attempt(client, startup, doors, permit, route).await? {
                Attempt::Admitted(admitted) => return Ok(*admitted),
                Attempt::Turned => {
                    pause = RETRY_FIRST;
                    continue;
                }
                Attempt::NotNow(why) => why,
            },
            Err(because) => Why::Nowhere(because),
        };
        if place.is_none() {
            place = Some(
                patience.places.try_acquire().map_err(|_| full("too many connections wait for a writer"))?,
            );
        }
        let retry = async {
            match why {
                Why::Nowhere(_) => std::future::pending().await,
                Why::Dial(_) => sleep(pause).await,
            }
        };
        tokio::select! {
            () = permit.turned() => pause = RETRY_FIRST,
            () = retry => pause = (pause * 2).min(RETRY_LONGEST),
            () = sleep_until(end) => return Err(held_too_long(&why, patience.hold)),
            () = left(client) => return Err(Turned { closed: Closed::ClientLeft, refusal: None }),
        }
    }
}

/// For another region's write gate: into the local database, only while it is the writer, and never waiting.
pub(super) async fn from_peer(startup: &Startup, doors: &Doors, permit: &Permit) -> Result<Admitted, Turned> {
    let Ok(route @ Route::Writer(_)) = permit.route() else { return Err(not_the_writer()) };
    let (upstream, down) =
        dial(doors, &route.door(), startup).await.map_err(|error| database_down(&error))?;
    Ok(Admitted { route, upstream, down })
}

/// For an app that reads: into the local database, whoever writes.
pub(super) async fn to_reader(startup: &Startup, doors: &Doors) -> Result<Admitted, Turned> {
    let route = Route::Reader;
    let (upstream, down) =
        dial(doors, &route.door(), startup).await.map_err(|error| database_down(&error))?;
    Ok(Admitted { route, upstream, down })
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

/// Dials along `route` until it answers, the plan turns away from it, or the client leaves.
async fn attempt(
    client: &TcpStream,
    startup: &Startup,
    doors: &Doors,
    permit: &mut Permit,
    route: Route,
) -> Result<Attempt, Turned> {
    let door = route.door();
    let mut dialling = std::pin::pin!(dial(doors, &door, startup));
    let mut leaving = std::pin::pin!(left(client));
    loop {
        tokio::select! {
            dialled = &mut dialling => return Ok(match dialled {
                Ok((upstream, down)) => Attempt::Admitted(Box::new(Admitted { route, upstream, down })),
                Err(error) => Attempt::NotNow(Why::Dial(error)),
            }),
            () = permit.turned() => {
                if permit.route().as_ref() != Ok(&route) {
                    return Ok(Attempt::Turned);
                }
            }
            () = &mut leaving => return Err(Turned { closed: Closed::ClientLeft, refusal: None }),
        }
    }
}

/// Waits until the client hangs up. A client that talks before it is asked has not.
async fn left(client: &TcpStream) {
    match client.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

/// A refusal because a named limit is reached.
pub(super) fn full(message: &str) -> Turned {
    let hint = "Lower the app's pool size or raise the gate's limit.";
    let refusal = Refusal { code: TOO_MANY_CONNECTIONS, message: message.to_owned(), hint };
    Turned { closed: Closed::Full, refusal: Some(refusal) }
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
    Turned { closed, refusal: Some(Refusal { code: CANNOT_CONNECT_NOW, message, hint }) }
}

fn not_the_writer() -> Turned {
    let refusal = Refusal {
        code: NOT_THE_WRITER,
        message: "this region does not hold the right to write".to_owned(),
        hint: "Only write gates of other regions come here; an app uses its own region's write gate.",
    };
    Turned { closed: Closed::NotTheWriter, refusal: Some(refusal) }
}

fn database_down(error: &DialError) -> Turned {
    let hint = "`isles status` shows the state of this region's database.";
    let refusal = Refusal { code: CANNOT_CONNECT_NOW, message: error.to_string(), hint };
    Turned { closed: Closed::DatabaseDown, refusal: Some(refusal) }
}
