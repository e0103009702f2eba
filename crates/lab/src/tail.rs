//! Shows the end of a process's log to a person, and finds in it what a person must know.

use std::path::Path;

/// How much of a log's end is looked at, in bytes.
const TAIL_BYTES_MAX: u64 = 8192;

/// The last lines of a log that say something, at most `lines_max`, each with a mark before it.
pub fn tail(log: &Path, lines_max: usize) -> String {
    let text = end_of(log);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(lines_max));
    last.map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

/// Whether the end of a log says that a disk is full (`ENOSPC`, in the words of the C library).
pub fn says_disk_full(log: &Path) -> bool {
    end_of(log).contains(DISK_FULL)
}

/// How the C library names a full disk.
pub const DISK_FULL: &str = "No space left on device";

fn end_of(log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(log) {
        let length = file.metadata().map_or(0, |found| found.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)));
        let _ = file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines_that_say_something() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app.log");
        std::fs::write(&log, "one\n\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "  | two\n  | three");
        assert_eq!(tail(&dir.path().join("none"), 2), "");
        assert!(!says_disk_full(&log));
        std::fs::write(&log, "PANIC:  could not write to file: No space left on device\n").unwrap();
        assert!(says_disk_full(&log));
    }
}
