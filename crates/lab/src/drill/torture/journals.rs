//! Keeps every journal that the agents begin, also those that a restarted agent would throw away.
//!
//! A second name for the file costs nothing and goes on growing with it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;

use crate::drill::{ground::Ground, record::Record};

/// The names of an agent's newest journal and of the one before it, in its data directory.
const JOURNALS: [&str; 2] = ["journal.1.jsonl", "journal.jsonl"];
/// How often new journals are looked for: an agent takes longer to start and end twice.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The most journals that are kept of one region.
const KEPT_MAX: usize = 500;

/// Starts a keeper for every region; the journals are put into `dir`.
pub(super) fn start(ground: &Ground, record: &Arc<Record>, dir: &Path, tasks: &mut JoinSet<()>) {
    for place in &ground.places {
        let Some(from) = place.ledger.parent().map(Path::to_owned) else { continue };
        let (region, dir, record) = (place.region.to_string(), dir.to_owned(), Arc::clone(record));
        tasks.spawn(async move {
            let mut kept = BTreeSet::new();
            let mut begun = record.now();
            while record.pause(begun, LOOK_EVERY).await {
                begun = record.now();
                keep_new(&from, &dir, &region, &mut kept);
            }
        });
    }
}

fn keep_new(from: &Path, dir: &Path, region: &str, kept: &mut BTreeSet<u64>) {
    for path in JOURNALS.map(|name| from.join(name)) {
        let Ok(found) = fs::metadata(&path) else { continue };
        if kept.len() >= KEPT_MAX || kept.contains(&found.ino()) {
            continue;
        }
        let name = dir.join(format!("{region}-{:03}.jsonl", kept.len() + 1));
        if let Err(error) = fs::create_dir_all(dir).and_then(|()| fs::hard_link(&path, &name)) {
            tracing::warn!(journal = %path.display(), %error, "A journal could not be kept.");
        }
        kept.insert(found.ino());
    }
}

/// Moves what was kept to where it stays, in order.
///
/// # Errors
/// Those of copying.
pub(super) fn collect(from: &Path, to: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    let Ok(entries) = fs::read_dir(from) else { return Ok(journals) };
    fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        let path = to.join(entry.file_name());
        fs::copy(entry.path(), &path)?;
        journals.push(path);
    }
    let _ = fs::remove_dir_all(from);
    journals.sort();
    Ok(journals)
}
