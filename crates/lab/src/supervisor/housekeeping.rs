//! Keeps a long-running lab small and clean: logs within a limit, no orphaned processes, no zombies.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::lab::Lab;
use crate::processes::tree;

/// A log that has grown beyond this is moved aside (`app-0.log.1`) and begun anew, in bytes.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Moves logs aside that have grown too long. Writers append, so they go on at the new beginning.
pub(crate) fn trim_logs(lab: &Lab) {
    for part in &lab.parts {
        let log = part.state().log;
        if fs::metadata(&log).is_ok_and(|found| found.len() > LOG_BYTES_MAX)
            && let Err(error) = begin_anew(&log)
        {
            tracing::warn!(log = %log.display(), %error, "A long log could not be moved aside.");
        }
    }
}

fn begin_anew(log: &Path) -> io::Result<()> {
    fs::copy(log, log.with_extension("log.1"))?;
    fs::OpenOptions::new().write(true).open(log)?.set_len(0)
}

/// Reaps and ends processes that lost their parent in a drill and were handed to this one. `seen` remembers those of
/// the last look: one that is still there has lost its parent for good, and is not just being started.
pub(crate) fn sweep_orphans(lab: &Lab, seen: &mut BTreeSet<u32>) {
    let own = std::process::id();
    let kept: BTreeSet<u32> = lab.parts.iter().filter_map(|part| part.state().pid).collect();
    let all = tree::processes();
    let orphans: Vec<tree::Process> = all
        .values()
        .filter(|process| process.parent == own && !kept.contains(&process.pid))
        .copied()
        .collect();
    for orphan in &orphans {
        if seen.contains(&orphan.pid) {
            tree::send(orphan.pid, rustix::process::Signal::KILL);
            tree::reap(orphan.pid);
        }
    }
    *seen = orphans.iter().map(|orphan| orphan.pid).collect();
}
