//! Clients that do what every app does: write through `DATABASE_URL` and read through `DATABASE_READ_URL`, in every
//! region, with numbered rows, so that a lost acknowledgement can be named.

use std::{sync::Arc, time::Duration};

use isles_model::Moment;
use tokio::task::JoinSet;

use super::{
    ground::{Ground, Place},
    history::{Outcome, Read, Reader, Write},
    record::Record,
    session::{Login, Session, SessionError},
};

/// Writers in each region.
const WRITERS: u32 = 3;
/// From the begin of one write of a writer to the next; the writers of a region together try every 10 ms.
const WRITE_PACE: Duration = Duration::from_millis(30);
/// From the begin of one read of a region's reader to the next.
const READ_PACE: Duration = Duration::from_millis(20);
/// How long a client waits before it gives a try up, besides the round trips that it takes.
const TRY_WAIT: Duration = Duration::from_millis(1000);
/// Round trips of a try at most: connecting, five messages of SCRAM authentication, the statement.
const TRY_ROUND_TRIPS: u32 = 8;

/// Starts the writers and readers of every region.
pub(super) fn start(ground: &Ground, record: &Arc<Record>, tasks: &mut JoinSet<()>) {
    let within = TRY_WAIT + ground.farthest() * TRY_ROUND_TRIPS;
    for place in &ground.places {
        for client in 1..=WRITERS {
            tasks.spawn(write_on(place.clone(), client, within, Arc::clone(record)));
        }
        tasks.spawn(read_on(place.clone(), within, Arc::clone(record)));
    }
}

async fn write_on(place: Place, client: u32, within: Duration, record: Arc<Record>) {
    let mut line = Line { login: place.app_through_gate(), session: None };
    // The writers of a region take turns.
    let mut begun = record.now();
    let mut pace = WRITE_PACE * client / WRITERS;
    while record.turn(begun, pace).await {
        (begun, pace) = (record.now(), WRITE_PACE);
        let number = record.numbers.next();
        let outcome = line.attempt(&record.table.insert(number, client, &place.region), within).await;
        let write = Write { number, via: place.region.clone(), begun, ended: record.now(), outcome };
        record.history().writes.push(write);
    }
}

async fn read_on(place: Place, within: Duration, record: Arc<Record>) {
    let mut line = Line { login: place.reader_through_gate(), session: None };
    let sql = record.table.read();
    let mut begun: Moment = record.now();
    while record.turn(begun, READ_PACE).await {
        begun = record.now();
        let outcome = line.attempt(&sql, within).await;
        let reader = Reader::App(place.region.clone());
        record.history().reads.push(Read { reader, begun, ended: record.now(), outcome });
    }
}

/// A session that is opened when it is needed, as a connection pool does.
struct Line {
    login: Login,
    session: Option<Session>,
}

impl Line {
    async fn attempt(&mut self, sql: &str, within: Duration) -> Outcome {
        let tried = tokio::time::timeout(within, self.send(sql, within)).await;
        match tried {
            Ok(Ok(())) => Outcome::Succeeded,
            // Because a pool throws a session away after an error, the next try opens a new one.
            Ok(Err(_)) | Err(_) => {
                self.session = None;
                Outcome::Failed
            }
        }
    }

    async fn send(&mut self, sql: &str, within: Duration) -> Result<(), SessionError> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = Some(Session::open(&self.login, within).await?);
        }
        let session = self.session.as_ref().expect("opened above");
        session.send(sql, within).await.map(drop)
    }
}
