//! Keeps the writes that only one region held when it lost the right to write, so that a person can put them
//! back.
//!
//! JSON lines, mode 0600, each line one changed row. Appended and synced before the rows themselves are given up;
//! writing a transaction again changes nothing. At [`LEDGER_BYTES_MAX`] nothing more is taken: the region stays
//! fenced with its rows, and says so, until somebody moves the file away.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use isles_model::{Epoch, Lsn, RegionName};
use serde::{Deserialize, Serialize};

use crate::error::DatabaseError;

/// The largest ledger, in bytes.
pub const LEDGER_BYTES_MAX: u64 = 1 << 30;
/// The longest line read, in bytes: PostgreSQL's largest value and its escapes.
const LINE_BYTES_MAX: u64 = 4 << 30;

/// What was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteKind {
    /// It was added.
    Insert,
    /// It was changed.
    Update,
    /// It was removed.
    Delete,
    /// All of the table's rows were removed.
    Truncate,
}

/// Values by column name, as PostgreSQL writes them as text; `None` is NULL.
pub type RowValues = BTreeMap<String, Option<String>>;

/// One changed row that no later writer has: one line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoneWrite {
    /// The epoch it was written under.
    pub epoch: Epoch,
    /// The region that wrote it.
    pub region: RegionName,
    /// The end of its transaction in that region's log.
    #[serde(with = "lsn_text")]
    pub commit_lsn: Lsn,
    /// When its transaction committed by that region's clock (RFC 3339, UTC).
    pub committed_at: String,
    /// Its place in its transaction, from 0.
    pub index: u64,
    /// `schema.table`.
    pub table: String,
    /// What was done.
    pub kind: WriteKind,
    /// The old key (or the old row of a table without one), where it was sent.
    pub old: Option<RowValues>,
    /// The row afterwards; a large value that was not changed is left out.
    pub new: Option<RowValues>,
}

/// Reads a ledger from its beginning; a line cut short by a crash ends it. No file is an empty ledger.
pub fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<LoneWrite, DatabaseError>> + use<>, DatabaseError> {
    let lines = match File::open(path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => return Err(DatabaseError::Ledger { path: path.to_owned(), source }),
    };
    let mut reader = Reader { path: path.to_owned(), lines, at: 0 };
    Ok(std::iter::from_fn(move || reader.next_write().transpose()))
}

/// How many writes a ledger holds.
pub fn count(path: &Path) -> Result<u64, DatabaseError> {
    read(path)?.try_fold(0, |sum: u64, write| write.map(|_| sum + 1))
}

/// Brings a shared count up to date, without holding up the caller's thread. An unreadable ledger leaves it as it is:
/// whoever next writes to the ledger will say why.
pub(crate) async fn tally(path: &Path, count_shown: &AtomicU64) {
    let path = path.to_owned();
    if let Ok(Ok(held)) = tokio::task::spawn_blocking(move || count(&path)).await {
        count_shown.store(held, Ordering::Relaxed);
    }
}

struct Reader {
    path: PathBuf,
    lines: Option<BufReader<File>>,
    /// Bytes of whole lines read so far.
    at: u64,
}

impl Reader {
    fn next_write(&mut self) -> Result<Option<LoneWrite>, DatabaseError> {
        let Some(lines) = self.lines.as_mut() else { return Ok(None) };
        let failed = |source| DatabaseError::Ledger { path: self.path.clone(), source };
        let mut line = Vec::new();
        std::io::Read::take(&mut *lines, LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            self.lines = None;
            return Ok(None);
        }
        let write = serde_json::from_slice(&line).map_err(|error| failed(error.into()));
        if write.is_err() {
            self.lines = None;
        }
        self.at += line.len() as u64;
        write.map(Some)
    }
}

/// A ledger open for adding to.
pub(crate) struct Ledger {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    /// The last write recorded for each epoch and region.
    last: BTreeMap<(Epoch, RegionName), (Lsn, u64)>,
}

impl Ledger {
    /// Opens or makes it, and cuts a line off that a crash has left unfinished.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let failed = |source| DatabaseError::Ledger { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut reader = Reader {
            path: path.to_owned(),
            lines: Some(BufReader::new(file.try_clone().map_err(failed)?)),
            at: 0,
        };
        let mut last = BTreeMap::new();
        while let Some(write) = reader.next_write()? {
            let place = (write.commit_lsn, write.index);
            let known = last.entry((write.epoch, write.region)).or_insert(place);
            *known = place.max(*known);
        }
        file.set_len(reader.at).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), bytes: reader.at, last })
    }

    /// How far a region's writes of an epoch are recorded.
    pub(crate) fn recorded(&self, epoch: Epoch, region: &RegionName) -> Option<Lsn> {
        self.last.get(&(epoch, region.clone())).map(|(lsn, _)| *lsn)
    }

    /// Adds a write unless it is there already. Says whether it was added.
    pub(crate) fn add(&mut self, write: &LoneWrite) -> Result<bool, DatabaseError> {
        let place = (write.commit_lsn, write.index);
        let key = (write.epoch, write.region.clone());
        if self.last.get(&key).is_some_and(|last| place <= *last) {
            return Ok(false);
        }
        let failed = |source| DatabaseError::Ledger { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(write).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        if self.bytes > LEDGER_BYTES_MAX {
            return Err(DatabaseError::Refused(format!(
                "the ledger {} is full: move it away, and the rest will be kept",
                self.path.display()
            )));
        }
        self.file.write_all(&line).map_err(failed)?;
        self.last.insert(key, place);
        Ok(true)
    }

    /// Returns once everything added is on disk.
    pub(crate) fn sync(&mut self) -> Result<(), DatabaseError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|source| DatabaseError::Ledger { path: self.path.clone(), source })
    }
}

/// Microseconds since 2000-01-01 UTC as RFC 3339.
pub fn rfc3339(since_2000_us: i64) -> String {
    const DAY_US: i64 = 86_400_000_000;
    let (days, in_day) = (since_2000_us.div_euclid(DAY_US), since_2000_us.rem_euclid(DAY_US));
    // Civil date from days, after Howard Hinnant's `civil_from_days`: years begin in March.
    let shifted = days + 730_425;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = in_day / 1_000_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        in_day % 1_000_000
    )
}

mod lsn_text {
    use isles_model::Lsn;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Lsn, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(lsn: u64, index: u64) -> LoneWrite {
        LoneWrite {
            epoch: Epoch(1),
            region: "eu".parse().unwrap(),
            commit_lsn: Lsn(lsn),
            committed_at: rfc3339(0),
            index,
            table: "public.item".into(),
            kind: WriteKind::Insert,
            old: None,
            new: Some([("id".to_owned(), Some("5".to_owned()))].into()),
        }
    }

    #[test]
    fn writing_again_after_a_crash_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        assert!(ledger.add(&write(10, 0)).unwrap());
        assert!(ledger.add(&write(10, 1)).unwrap());
        ledger.sync().unwrap();
        drop(ledger);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"epoch\":1,\"reg").unwrap();
        assert_eq!(count(&path).unwrap(), 2);

        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.recorded(Epoch(1), &"eu".parse().unwrap()), Some(Lsn(10)));
        assert!(!ledger.add(&write(10, 1)).unwrap());
        assert!(ledger.add(&write(12, 0)).unwrap());
        ledger.sync().unwrap();
        let all: Vec<_> = read(&path).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(all, [write(10, 0), write(10, 1), write(12, 0)]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn commit_times_read_as_dates() {
        assert_eq!(rfc3339(0), "2000-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(-1), "1999-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(825_552_000_000_000 + 3_723_000_001), "2026-02-28T01:02:03.000001Z");
    }
}
