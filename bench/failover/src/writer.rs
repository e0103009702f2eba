//! The writer loop, the same for every system: a process that knows all entry points and writes numbered rows through
//! whichever takes them, as a pool with several hosts does.
//!
//! Every entry point has a line of its own, so that a silent one delays no other. A line keeps its session while it
//! answers; a standby's session is kept and asked again until it takes writes.

use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::task::JoinSet;

use crate::{
    error::BenchError,
    history::Acknowledged,
    session::{Login, Session},
    stamp::Stamp,
    table,
};

/// How long a new session may take.
const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// How long one write may take.
const WRITE_WAIT: Duration = Duration::from_secs(1);
/// From the begin of a write that succeeded to the begin of the next one on the same line.
const PACE: Duration = Duration::from_millis(10);
/// From a failure to the next try on the same line.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// The environment variable with the password.
pub(crate) const PASSWORD: &str = "FAILOVER_BENCH_PASSWORD";

/// What the writer is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An entry point; may be given several times.
    #[arg(long = "entry", required = true)]
    entries: Vec<SocketAddr>,
    #[arg(long)]
    user: String,
    #[arg(long)]
    database: String,
    /// Where acknowledged writes are listed.
    #[arg(long)]
    log: PathBuf,
    /// The first row's number.
    #[arg(long)]
    first: u64,
}

/// Writes until it is killed, at the latest when the process that started it ends.
pub(crate) async fn run(args: Args) -> Result<(), BenchError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| BenchError::Tie(errno.into()))?;
    let failed = |source| BenchError::File { path: args.log.clone(), source };
    let log = Arc::new(File::create(&args.log).map_err(failed)?);
    let numbers = Arc::new(AtomicU64::new(args.first));
    let password = std::env::var(PASSWORD).ok();
    let mut lines = JoinSet::new();
    for (entry, address) in args.entries.iter().enumerate() {
        let login = Login {
            address: *address,
            user: args.user.clone(),
            password: password.clone(),
            database: args.database.clone(),
        };
        let line = Line { entry, login, numbers: Arc::clone(&numbers), log: Arc::clone(&log) };
        lines.spawn(line.run());
    }
    while lines.join_next().await.is_some() {}
    Ok(())
}

/// One entry point's line.
struct Line {
    entry: usize,
    login: Login,
    numbers: Arc<AtomicU64>,
    log: Arc<File>,
}

impl Line {
    async fn run(self) {
        loop {
            if let Ok(session) = Session::open(&self.login, CONNECT_WAIT).await {
                self.write_on(&session).await;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Writes until the session fails.
    async fn write_on(&self, session: &Session) {
        loop {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let sent = Stamp::now();
            match session.send(&table::insert(number), WRITE_WAIT).await {
                Ok(_) => {
                    let at = Stamp::now();
                    self.note(Acknowledged { number, sent, at, entry: self.entry });
                    tokio::time::sleep(PACE.saturating_sub(at.since(sent))).await;
                }
                Err(error) if error.is_read_only() => tokio::time::sleep(RETRY_AFTER).await,
                Err(_) => return,
            }
        }
    }

    /// One system call a line, so that a line is whole or missing.
    fn note(&self, write: Acknowledged) {
        // An acknowledgement that cannot be written down cannot be counted either.
        let _ = (&*self.log).write_all(write.line().as_bytes());
    }
}
