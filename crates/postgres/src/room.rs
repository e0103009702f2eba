//! Finds out that a database answers but can write nothing: its disk is full or broken, or was made read-only.
//!
//! PostgreSQL goes on answering then, and every write fails; the writer is reported down, so that a region with room can
//! take over. What shows it is a write that failed: one of the fence's, which come several times a second, or a trial,
//! made when the disk is nearly full. It counts as mended only after trials have succeeded for a while: a disk that
//! is full again at once must not move the right back and forth.

use std::{path::Path, sync::Arc, time::Duration};

use isles_model::config::DatabaseFiles;
use rustix::fs::statvfs;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    error::{DatabaseError, Doing, within},
    link::{Link, Purpose},
    run::World,
};

/// Between two looks at how much room the disk has, and between two trials.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a trial may take.
const TRIAL_MAX: Duration = Duration::from_secs(2);
/// With less room than this, in bytes, writes are tried: PostgreSQL's log grows by so much at a time.
const LOW_BYTES: u64 = 16 << 20;
/// How long writes must have succeeded before a database that could not write counts as mended.
const STEADY: Duration = Duration::from_secs(5);
/// What fails when there is no room is a new page, so that the trial makes some, in a table of nobody's; and it commits.
const TRIAL: &str = "BEGIN; CREATE TEMPORARY TABLE isles_room (filler text) ON COMMIT DROP;
 INSERT INTO isles_room SELECT repeat('x', 1900) FROM generate_series(1, 32); COMMIT";

/// Whether the own database can write, as far as is known.
pub(crate) struct Room {
    lost: watch::Sender<bool>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { lost: watch::channel(false).0 }
    }

    /// It has been seen to write nothing, and not to write again for a while.
    pub(crate) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Every change of [`Self::is_lost`].
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.lost.subscribe()
    }

    /// Takes note of a failed write.
    pub(crate) fn learn(&self, error: &DatabaseError) {
        if denies_writing(error) && !self.lost.send_replace(true) {
            warn!(error = %error, "The database answers but can write nothing.");
        }
    }
}

/// Watches the room until told to stop.
pub(crate) async fn run(world: Arc<World>, stop: CancellationToken) {
    let mut changes = world.room.changes();
    let mut steady: Option<Instant> = None;
    loop {
        let lost = *changes.borrow_and_update();
        let low = world.config.database.files.as_ref().is_some_and(is_low);
        if lost || low {
            match trial(&world).await {
                Ok(()) if low => steady = None,
                Ok(()) => {
                    let since = *steady.get_or_insert_with(Instant::now);
                    if lost && since.elapsed() >= STEADY && world.room.lost.send_replace(false) {
                        info!("The database can write again.");
                        world.changed.notify_waiters();
                    }
                }
                Err(error) => {
                    steady = None;
                    world.room.learn(&error);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => world.changed.notify_waiters(),
            () = sleep(LOOK_EVERY) => {}
        }
        if !world.room.is_lost() {
            steady = None;
        }
    }
}

async fn trial(world: &World) -> Result<(), DatabaseError> {
    const DOING: &str = "trying to write";
    let trial = async {
        let link = Link::cluster(&world.config.database, Purpose::Room).await?;
        link.batch_execute(TRIAL).await.doing(DOING)
    };
    within(TRIAL_MAX, DOING, trial).await
}

/// Whether the disk of the files, or that of the log if it is another, is nearly full.
fn is_low(files: &DatabaseFiles) -> bool {
    let free = |dir: &Path| statvfs(dir).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let dirs = [files.data_dir.clone(), files.data_dir.join("pg_wal")];
    dirs.iter().filter_map(|dir| free(dir)).any(|bytes| bytes < LOW_BYTES)
}

/// Errors that every write would meet (PostgreSQL, appendix A).
fn denies_writing(error: &DatabaseError) -> bool {
    let DatabaseError::Query { source, .. } = error else { return false };
    let denials = [SqlState::DISK_FULL, SqlState::IO_ERROR, SqlState::READ_ONLY_SQL_TRANSACTION];
    source.code().is_some_and(|code| denials.contains(code))
}
