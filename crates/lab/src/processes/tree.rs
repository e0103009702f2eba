//! Finds everything a process has started, however it hid (PostgreSQL's backends leave the process group), and
//! signals or ends it. Reads `/proc`; Linux only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long ended processes may take to disappear. The kernel needs microseconds; a machine under load more.
const GONE_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long to wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One process as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// When it started, in clock ticks since boot: tells it from a later process with the same number.
    pub started: u64,
    /// It has ended and waits for its parent to notice.
    pub zombie: bool,
}

/// All processes that can be seen.
pub fn processes() -> BTreeMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(process).map(|process| (process.pid, process)).collect()
}

/// One process, if it exists.
pub fn process(pid: u32) -> Option<Process> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat` (proc(5)): the name in parentheses may itself hold spaces and parentheses.
fn parse_stat(pid: u32, line: &str) -> Option<Process> {
    let after_name = line.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, started, zombie: matches!(state, "Z" | "X") })
}

/// The processes below `roots`, the roots not included, parents before children.
pub fn below(roots: &[u32], all: &BTreeMap<u32, Process>) -> Vec<Process> {
    let mut seen: BTreeSet<u32> = roots.iter().copied().collect();
    let mut level: Vec<u32> = roots.to_vec();
    let mut found = Vec::new();
    while !level.is_empty() {
        let children = all.values().filter(|process| level.contains(&process.parent));
        let next: Vec<Process> = children.filter(|process| seen.insert(process.pid)).copied().collect();
        level = next.iter().map(|process| process.pid).collect();
        found.extend(next);
    }
    found
}

/// Sends a signal to the processes and everything below them, in as short a time as can be.
pub fn signal_trees(roots: &[u32], signal: Signal) -> Vec<Process> {
    let all = processes();
    let mut targets: Vec<Process> = roots.iter().filter_map(|pid| all.get(pid)).copied().collect();
    targets.extend(below(roots, &all));
    for target in &targets {
        send(target.pid, signal);
    }
    targets
}

/// Sends a signal to everything below a process, not to itself.
pub fn signal_below(root: u32, signal: Signal) {
    for target in below(&[root], &processes()) {
        send(target.pid, signal);
    }
}

/// Kills everything below a process that is also their sub-reaper, until nothing is left.
pub fn kill_below(root: u32) {
    let until = Instant::now() + GONE_WAIT_MAX;
    loop {
        let left: Vec<Process> =
            below(&[root], &processes()).into_iter().filter(|process| !process.zombie).collect();
        if left.is_empty() || Instant::now() > until {
            return;
        }
        for target in left {
            send(target.pid, Signal::KILL);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether a process that was seen before still runs (a zombie does not).
pub fn runs(seen: &Process) -> bool {
    process(seen.pid).is_some_and(|now| now.started == seen.started && !now.zombie)
}

/// Kills the trees and waits until none of what was found runs any more. Says whether that came about.
pub async fn kill_trees(roots: &[u32]) -> bool {
    let until = Instant::now() + GONE_WAIT_MAX;
    let mut found = signal_trees(roots, Signal::KILL);
    loop {
        found.retain(runs);
        if found.is_empty() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        for process in &found {
            send(process.pid, Signal::KILL);
        }
    }
}

/// Sends a signal to one process; one that has gone already is not an error.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Takes an ended child of this process off the kernel's list; one that still runs is left alone.
pub fn reap(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_confuse_the_reader() {
        let line = "42 (a) R (b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 1 1";
        let expect = Process { pid: 42, parent: 7, started: 98765, zombie: false };
        assert_eq!(parse_stat(42, line), Some(expect));
        assert_eq!(parse_stat(42, "42 (a"), None);
    }

    #[test]
    fn descendants_are_found_through_every_generation() {
        let one = |pid, parent| (pid, Process { pid, parent, started: 1, zombie: false });
        let all = BTreeMap::from([one(1, 0), one(2, 1), one(3, 2), one(4, 3), one(5, 1)]);
        let found: Vec<u32> = below(&[2], &all).iter().map(|process| process.pid).collect();
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn the_own_process_is_seen_with_its_start() {
        let own = process(std::process::id()).unwrap();
        assert!(runs(&own));
        assert!(!runs(&Process { started: own.started + 1, ..own }));
    }
}
