//! Clients in every region that append to lists, swap registers and read, through `DATABASE_URL`, as fast as is worth
//! while, and note what each try came to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isles_model::Moment;
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;

use super::{
    check::Final,
    history::{Op, Outcome, TRIES_MAX, What},
};
use crate::drill::{
    error::DrillError,
    ground::{Ground, Place},
    record::{Numbers, Record},
    session::{Login, Session, SessionError},
};

/// Clients in each region.
const CLIENTS: u32 = 3;
/// From the begin of one try of a client to the next.
const PACE: Duration = Duration::from_millis(60);
/// How long a client waits before it gives a try up, besides the round trips that it takes.
const TRY_WAIT: Duration = Duration::from_millis(2000);
/// Round trips of a try at most: connecting, five messages of SCRAM authentication, the statement.
const TRY_ROUND_TRIPS: u32 = 8;
/// Lists that are appended to at a time …
const LISTS: u64 = 4;
/// … until each has about so many elements; then others are begun, so that what is read back stays short.
const ELEMENTS: u64 = 24;
/// Registers.
const REGISTERS: u64 = 3;
/// How long one statement about the tables may take.
const STATEMENT_MAX: Duration = Duration::from_secs(20);
/// How long the regions may take to hold the same rows.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The tables of one torture and what its clients have lived through.
pub(super) struct Workload {
    lists: String,
    registers: String,
    numbers: Numbers,
    appends: AtomicU64,
    ops: Mutex<Vec<Op>>,
}

impl Workload {
    /// Tables of this name, which begins as all tables of drills do.
    pub(super) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            lists: format!("{name}_lists"),
            registers: format!("{name}_registers"),
            numbers: Numbers::default(),
            appends: AtomicU64::new(0),
            ops: Mutex::default(),
        })
    }

    /// All tries so far.
    pub(super) fn ops(&self) -> MutexGuard<'_, Vec<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the tables in the writer's region.
    pub(super) async fn make(&self, place: &Place) -> Result<(), DrillError> {
        let Self { lists, registers, .. } = self;
        let sql = format!(
            "CREATE TABLE {lists} (list bigint PRIMARY KEY, elements bigint[] NOT NULL); \
             CREATE TABLE {registers} (register bigint PRIMARY KEY, value bigint NOT NULL, previous bigint NOT NULL); \
             INSERT INTO {registers} SELECT register, 0, 0 FROM generate_series(1, {REGISTERS}) register"
        );
        as_app(place, "make", &sql).await.map(drop)
    }

    /// Waits until every region's reader finds all registers.
    pub(super) async fn until_replicated(&self, ground: &Ground) -> Result<(), DrillError> {
        let sql = format!("SELECT register FROM {}", self.registers);
        for place in &ground.places {
            let until = tokio::time::Instant::now() + SETTLE_WAIT_MAX;
            while !as_reader(place, &sql).await.is_ok_and(|rows| rows.len() as u64 == REGISTERS) {
                if tokio::time::Instant::now() > until {
                    let region = place.region.clone();
                    return Err(DrillError::NotReplicated { region, within: SETTLE_WAIT_MAX });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Starts the clients of every region.
    pub(super) fn start(
        self: &Arc<Self>,
        ground: &Ground,
        record: &Arc<Record>,
        seed: u64,
        tasks: &mut JoinSet<()>,
    ) {
        let within = TRY_WAIT + ground.farthest() * TRY_ROUND_TRIPS;
        for (index, place) in (0_u32..).zip(&ground.places) {
            for number in 1..=CLIENTS {
                let client = index * 100 + number;
                let rng = fastrand::Rng::with_seed(seed ^ u64::from(client) << 32);
                let line = Line { login: place.app_through_gate(), session: None };
                let client = Client { number: client, place: place.clone(), line, rng };
                tasks.spawn(client.work(Arc::clone(self), Arc::clone(record), within));
            }
        }
    }

    /// The statement of a try.
    fn sql(&self, what: &What) -> String {
        let Self { lists, registers, .. } = self;
        match what {
            What::Append { list, element, .. } => format!(
                "INSERT INTO {lists} AS l (list, elements) VALUES ({list}, ARRAY[{element}]::bigint[]) \
                 ON CONFLICT (list) DO UPDATE SET elements = l.elements || excluded.elements \
                 RETURNING array_to_string(elements, ','), current_setting('port')"
            ),
            What::Read { list, .. } => format!(
                "SELECT array_to_string(elements, ','), current_setting('port') FROM {lists} WHERE list = {list}"
            ),
            What::Swap { register, new, .. } => format!(
                "UPDATE {registers} SET value = {new}, previous = value WHERE register = {register} \
                 RETURNING previous::text, current_setting('port')"
            ),
        }
    }

    /// What the writer has in the end.
    pub(super) async fn last(&self, place: &Place) -> Result<Final, DrillError> {
        let rows = as_app(place, "read", &self.all_rows()).await?;
        let mut last = Final::default();
        for row in &rows {
            let mut parts = row.split('|');
            let (kind, number, rest) = (parts.next(), parts.next(), parts.next());
            let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
            match (kind, rest) {
                (Some("list"), Some(elements)) => drop(last.lists.insert(number, numbers(elements))),
                (Some("register"), Some(value)) => {
                    last.registers.extend(value.parse().ok().map(|value| (number, value)));
                }
                _ => {}
            }
        }
        Ok(last)
    }

    /// How many rows differ between the writer and the other regions, once they have had time to settle.
    pub(super) async fn divergent_rows(&self, ground: &Ground, writer: &Place) -> Result<usize, DrillError> {
        let sql = self.all_rows();
        let kept: BTreeSet<String> = as_app(writer, "read", &sql).await?.into_iter().collect();
        let mut divergent = BTreeMap::new();
        let until = tokio::time::Instant::now() + SETTLE_WAIT_MAX;
        for place in &ground.places {
            loop {
                let rows: Option<BTreeSet<String>> =
                    as_reader(place, &sql).await.ok().map(|rows| rows.into_iter().collect());
                let differ = rows.map_or(kept.len(), |rows| rows.symmetric_difference(&kept).count());
                divergent.insert(place.region.clone(), differ);
                if differ == 0 || tokio::time::Instant::now() > until {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(divergent.values().sum())
    }

    fn all_rows(&self) -> String {
        let Self { lists, registers, .. } = self;
        format!(
            "SELECT 'list|' || list || '|' || array_to_string(elements, ',') FROM {lists} UNION ALL \
             SELECT 'register|' || register || '|' || value FROM {registers}"
        )
    }
}

struct Client {
    number: u32,
    place: Place,
    line: Line,
    rng: fastrand::Rng,
}

impl Client {
    async fn work(mut self, workload: Arc<Workload>, record: Arc<Record>, within: Duration) {
        let mut begun = record.now();
        let mut pace = PACE * (self.number % CLIENTS) / CLIENTS;
        while record.pause(begun, pace).await {
            (begun, pace) = (record.now(), PACE);
            let mut what = self.draw(&workload);
            let tried = self.line.attempt(&workload.sql(&what), within).await;
            let (outcome, server) = match tried {
                Tried::Answered(answer, server) => {
                    fill(&mut what, &answer);
                    (Outcome::Ok, server)
                }
                Tried::Unknown => (Outcome::Unknown, None),
                Tried::Unsent => (Outcome::Unsent, None),
            };
            let (begun_us, ended_us) = (micros(begun), micros(record.now()));
            let via = self.place.region.clone();
            let op = Op { client: self.number, via, begun_us, ended_us, outcome, server, what };
            let mut ops = workload.ops();
            ops.push(op);
            if ops.len() >= TRIES_MAX {
                record.stop.cancel();
            }
        }
    }

    fn draw(&mut self, workload: &Workload) -> What {
        let appends = workload.appends.load(Ordering::Relaxed);
        let list = appends / (LISTS * ELEMENTS) * LISTS + self.rng.u64(..LISTS);
        match self.rng.u8(..20) {
            0..=9 => {
                workload.appends.fetch_add(1, Ordering::Relaxed);
                What::Append { list, element: workload.numbers.next(), seen: Vec::new() }
            }
            10..=14 => What::Read { list, seen: Vec::new() },
            _ => What::Swap { register: 1 + self.rng.u64(..REGISTERS), new: workload.numbers.next(), old: 0 },
        }
    }
}

fn fill(what: &mut What, answer: &str) {
    match what {
        What::Append { seen, .. } | What::Read { seen, .. } => *seen = numbers(answer),
        What::Swap { old, .. } => *old = answer.parse().unwrap_or(0),
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

fn micros(moment: Moment) -> u64 {
    u64::try_from(moment.0.as_micros()).unwrap_or(u64::MAX)
}

/// What came of a try.
enum Tried {
    /// What the database said, and its port.
    Answered(String, Option<u16>),
    /// It may have been carried out.
    Unknown,
    /// There was no session to send it on.
    Unsent,
}

/// A session that is opened when it is needed, as a connection pool does.
struct Line {
    login: Login,
    session: Option<Session>,
}

impl Line {
    async fn attempt(&mut self, sql: &str, within: Duration) -> Tried {
        // Because a pool throws a session away after an error, the next try opens a new one.
        let session = match self.session.take().filter(|session| !session.is_closed()) {
            Some(open) => open,
            None => match Session::open(&self.login, within).await {
                Ok(new) => new,
                Err(_) => return Tried::Unsent,
            },
        };
        let Ok(messages) = session.send(sql, within).await else { return Tried::Unknown };
        self.session = Some(session);
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |index| row.and_then(|row| row.try_get(index).ok().flatten()).unwrap_or_default();
        Tried::Answered(text(0).to_owned(), text(1).parse().ok())
    }
}

async fn as_app(place: &Place, doing: &'static str, sql: &str) -> Result<Vec<String>, DrillError> {
    let table = |source| DrillError::Table { doing, region: place.region.clone(), source };
    let session = Session::open(&place.app_through_gate(), STATEMENT_MAX).await.map_err(table)?;
    session.column(sql, STATEMENT_MAX).await.map_err(table)
}

async fn as_reader(place: &Place, sql: &str) -> Result<Vec<String>, SessionError> {
    Session::open(&place.reader_through_gate(), STATEMENT_MAX).await?.column(sql, STATEMENT_MAX).await
}
