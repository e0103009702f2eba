//! Remembers on disk which processes a lab has started, so that `isles down` can end them after the supervisor itself
//! was lost. A number alone is not trusted: a process counts only with the start time that was written down.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::tree::{self, Process};

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    pid: u32,
    started: u64,
}

/// The growing list of started processes.
#[derive(Debug)]
pub struct Record {
    file: File,
}

impl Record {
    /// Starts an empty record.
    ///
    /// # Errors
    /// Those of creating the file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }

    /// Adds a process; one that has ended already is left out.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add(&mut self, pid: u32) -> io::Result<()> {
        let Some(Process { started, .. }) = tree::process(pid) else { return Ok(()) };
        let mut line = serde_json::to_vec(&Line { pid, started })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// The recorded processes that still run.
pub fn survivors(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let seen = lines.map(|line| Process { pid: line.pid, parent: 0, started: line.started, zombie: false });
    seen.filter(tree::runs).map(|process| process.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_with_the_recorded_start_time_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("processes.jsonl");
        let own = std::process::id();
        Record::create(&path).unwrap().add(own).unwrap();
        assert_eq!(survivors(&path), [own]);
        fs::write(&path, format!("{{\"pid\":{own},\"started\":1}}\n")).unwrap();
        assert!(survivors(&path).is_empty());
    }
}
