//! Finds out what a database that crashed had committed, from its log on disk: a peer that has all of it can go on at
//! once, and nobody has to wait for the recovery.
//!
//! A database killed with SIGKILL answers nothing, but what it acknowledged is in its log (PostgreSQL, chapter 30.1).
//! `pg_waldump` reads that without a server. It is asked only after the gate is shut, as sessions of a dead
//! postmaster may go on for a moment: what they commit then, nobody is told.

use std::{collections::HashMap, process::Stdio, sync::Arc, time::Duration};

use isles_model::{Fact, Lsn, Plan, Writes, config::DatabaseFiles};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{error::within, run::World};

/// How long the reading may take; a recovery in place is then likely to be quicker.
const READ_MAX: Duration = Duration::from_millis(500);
/// The longest line of `pg_waldump` that is looked at, in bytes; a commit with more subtransactions than fit is still
/// seen to be one.
const LINE_MAX: usize = 16 << 10;
/// The database number of the catalogues that all databases share, roles among them.
const SHARED: &str = "0";

/// What was known of a writer's database when it answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footing {
    /// Where its log ended at the last look but one.
    pub(crate) end: Lsn,
    /// The number that the next transaction was to get at the last look, so that records of that one and later ones
    /// all come after `end`.
    pub(crate) next_transaction: u32,
}

/// Waits for a writer's database to die, and reports where its commits end, until told to stop. Where the agent cannot
/// read the files, there is nothing to do.
pub(crate) async fn run(
    world: Arc<World>,
    mut plans: watch::Receiver<Plan>,
    mut died: watch::Receiver<Option<Footing>>,
    facts: mpsc::Sender<Fact>,
    stop: CancellationToken,
) {
    let Some(files) = world.config.database.files.clone() else { return };
    loop {
        let footing = *died.borrow_and_update();
        if let Some(footing) = footing {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = died.changed() => if changed.is_err() { return } else { continue },
                found = last_commit(&files, &mut plans, footing) => if let Some(position) = found {
                    info!(%position, "Read where the commits of the database that died end.");
                    if facts.send(Fact::CommitsEnd { position }).await.is_err() {
                        return;
                    }
                },
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = died.changed() => if changed.is_err() { return },
        }
    }
}

async fn last_commit(
    files: &DatabaseFiles,
    plans: &mut watch::Receiver<Plan>,
    footing: Footing,
) -> Option<Lsn> {
    let shut = |plan: &Plan| !matches!(plan.writes, Writes::Here { .. });
    plans.wait_for(shut).await.ok()?;
    match within(READ_MAX, "reading the log on disk", async { Ok(read(files, footing).await) }).await {
        Ok(Ok(position)) => Some(position),
        Ok(Err(error)) => {
            debug!(error = %error, "The log on disk could not be read.");
            None
        }
        Err(error) => {
            debug!(error = %error, "The log on disk could not be read.");
            None
        }
    }
}

async fn read(files: &DatabaseFiles, footing: Footing) -> std::io::Result<Lsn> {
    let mut child = Command::new(&files.pg_waldump)
        .arg("--path")
        .arg(files.data_dir.join("pg_wal"))
        .arg("--start")
        .arg(footing.end.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Because it always ends with a complaint (the log does), what it says there tells nothing.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().expect("asked for above");
    let mut lines = BufReader::new(output);
    let mut commits = Commits::after(footing);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await? > 0 {
        line.truncate(LINE_MAX);
        commits.see(&String::from_utf8_lossy(&line));
        line.clear();
    }
    child.wait().await?;
    Ok(commits.end())
}

/// The commits of a log, record by record as `pg_waldump` lists them.
struct Commits {
    footing: Footing,
    /// Whether a transaction has touched a relation of any database.
    touched: HashMap<u32, bool>,
    last: Option<Lsn>,
}

impl Commits {
    fn after(footing: Footing) -> Self {
        Self { footing, touched: HashMap::new(), last: None }
    }

    /// Looks at one record. A commit that changed only roles is no one's loss (the end of the app's own right to log in
    /// moves several times a second); in doubt a commit counts.
    fn see(&mut self, record: &str) {
        let Some((header, description)) = record.split_once(", desc: ") else { return };
        let Some(transaction) = field(header, "tx:").and_then(|text| text.parse::<u32>().ok()) else {
            return;
        };
        let commits = header.starts_with("rmgr: Transaction") && description.starts_with("COMMIT");
        if !commits {
            let touches = touches_a_database(description);
            *self.touched.entry(transaction).or_default() |= touches;
            return;
        }
        let plain = description.starts_with("COMMIT ")
            && !description.contains("subxacts")
            && record.len() < LINE_MAX;
        // Transaction numbers wrap: a later one is less than half the circle ahead.
        let began_after = transaction.wrapping_sub(self.footing.next_transaction) < u32::MAX / 2;
        let only_roles = self.touched.remove(&transaction) == Some(false);
        if plain && began_after && only_roles {
            return;
        }
        let begins = field(header, "lsn:").and_then(|text| text.parse::<Lsn>().ok());
        // A commit without a position cannot be placed, so nothing is proven any more.
        self.last = self.last.max(Some(begins.map_or(Lsn(u64::MAX), |lsn| Lsn(lsn.0.saturating_add(1)))));
    }

    fn end(&self) -> Lsn {
        self.last.unwrap_or(self.footing.end)
    }
}

fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(name)?;
    rest.trim_start().split([',', ' ']).next()
}

/// Whether a record names a relation that belongs to one database (`rel TABLESPACE/DATABASE/FILE`).
fn touches_a_database(description: &str) -> bool {
    description.split("rel ").skip(1).any(|named| named.split('/').nth(1) != Some(SHARED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOOTING: Footing = Footing { end: Lsn(0x0154_A000), next_transaction: 735 };

    fn end(records: &[&str]) -> Lsn {
        let mut commits = Commits::after(FOOTING);
        for record in records {
            commits.see(record);
        }
        commits.end()
    }

    fn insert(transaction: u32, relation: &str) -> String {
        format!(
            "rmgr: Heap        len (rec/tot):     59/    59, tx:        {transaction}, lsn: 0/0154A2D0, prev 0/0154A298, desc: INSERT off 2 flags 0x00, blkref #0: rel {relation} blk 0"
        )
    }

    fn commit(transaction: u32, lsn: &str, what: &str) -> String {
        format!(
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        {transaction}, lsn: {lsn}, prev 0/0154A2D0, desc: {what}"
        )
    }

    #[test]
    fn the_last_commit_that_changed_more_than_roles_counts() {
        let records = [
            insert(735, "1663/5/16385"),
            commit(735, "0/0154A310", "COMMIT 2026-11-23 01:00:00.000000 UTC"),
            insert(736, "1664/0/1260"),
            commit(736, "0/0154A400", "COMMIT 2026-11-23 01:00:00.100000 UTC"),
            insert(737, "1663/5/16385"),
            commit(737, "0/0154A500", "ABORT 2026-11-23 01:00:00.100000 UTC"),
        ];
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        assert_eq!(end(&records), Lsn(0x0154_A311));
        assert_eq!(end(&records[2..4]), FOOTING.end);
        assert_eq!(end(&[]), FOOTING.end);
    }

    #[test]
    fn a_commit_that_may_have_touched_rows_counts() {
        let at = Lsn(0x0154_A401);
        let began_before =
            [insert(734, "1664/0/1260"), commit(734, "0/0154A400", "COMMIT 2026-11-23 01:00:00 UTC")];
        let unseen = [commit(736, "0/0154A400", "COMMIT 2026-11-23 01:00:00 UTC")];
        let nested = [
            insert(736, "1664/0/1260"),
            commit(736, "0/0154A400", "COMMIT 2026-11-23 01:00:00 UTC; subxacts: 737 738"),
        ];
        let prepared = [
            insert(736, "1664/0/1260"),
            commit(736, "0/0154A400", "COMMIT_PREPARED 735: 2026-11-23 01:00:00 UTC"),
        ];
        for records in [&began_before[..], &unseen, &nested, &prepared] {
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            assert_eq!(end(&records), at, "{records:?}");
        }
    }

    #[test]
    fn what_cannot_be_understood_proves_nothing() {
        assert_eq!(end(&["pg_waldump: error", "", ", desc: COMMIT", "tx: x, desc: COMMIT"]), FOOTING.end);
        assert_eq!(end(&[&commit(736, "nowhere", "COMMIT 2026")]), Lsn(u64::MAX));
        assert!(touches_a_database("INSERT, blkref #0: rel oddly"));
        assert!(!touches_a_database("INSERT, blkref #0: rel 1664/0/1260 blk 0"));
    }
}
