//! Keeps every report beside the spec, in `.isles/reports/`, so that drills of different days can be compared.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Distance, Report, Settings};

/// The most reports that are listed: the newest.
const LISTED_MAX: usize = 200;

/// Why a report cannot be kept or found again.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It cannot be written.
    #[error("cannot keep the report in {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory or a file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A report as it is kept: what was printed, and what the printed object leaves out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// When the drill ended (RFC 3339, UTC).
    pub at: String,
    /// The application.
    pub app: String,
    /// The version of Isles that drilled.
    pub isles: String,
    /// What the result depends on.
    #[serde(default)]
    pub settings: Settings,
    /// Distances, asked and measured.
    pub distances: Vec<Distance>,
    /// The printed object.
    pub report: Report,
}

/// Keeps a report as JSON and as text; gives the path of the JSON.
///
/// # Errors
/// When it cannot be written.
pub fn keep(dir: &Path, report: &Report) -> Result<PathBuf, KeptError> {
    let at = rfc3339(SystemTime::now());
    let name = format!("{}-{}", at.replace([':', '-'], ""), report.scenario);
    let kept = Kept {
        at,
        app: report.app.clone(),
        isles: env!("CARGO_PKG_VERSION").to_owned(),
        settings: report.settings.clone(),
        distances: report.distances.clone(),
        report: report.clone(),
    };
    let json = dir.join(format!("{name}.json"));
    let failed = |source| KeptError::Write { path: json.clone(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let text = serde_json::to_string_pretty(&kept).map_err(|error| failed(error.into()))?;
    fs::write(&json, format!("{text}\n")).map_err(failed)?;
    fs::write(dir.join(format!("{name}.txt")), report.to_string()).map_err(failed)?;
    Ok(json)
}

/// The kept reports, oldest first, at most the newest 200. Files of another kind are passed over; no directory: none.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Kept>, KeptError> {
    let failed = |source| KeptError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let newest = paths.split_off(paths.len().saturating_sub(LISTED_MAX));
    let read = |path: &PathBuf| serde_json::from_slice::<Kept>(&fs::read(path).ok()?).ok();
    let restore = |mut kept: Kept| {
        kept.report.app = kept.app.clone();
        kept.report.distances = kept.distances.clone();
        kept.report.settings = kept.settings.clone();
        kept
    };
    Ok(newest.iter().filter_map(read).map(restore).collect())
}

/// The present second as the names of reports have it: they sort by time.
pub fn stamp() -> String {
    rfc3339(SystemTime::now()).replace([':', '-'], "")
}

/// A time as RFC 3339 writes it, in UTC, to the second.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, date) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
fn civil(day: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01 in eras of 400 years, so that the leap day ends a year.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, month, date)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_826_554), "2000-02-29T12:15:54Z");
        assert_eq!(at(1_704_067_199), "2023-12-31T23:59:59Z");
        assert_eq!(at(1_704_067_200), "2024-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let reports = dir.path().join("reports");
        assert!(list(&reports).unwrap().is_empty());
        let report = Report {
            scenario: "database-crash".into(),
            pattern: isles_model::topology::Pattern::ReadReplicas,
            regions: 3,
            verdict: super::super::Verdict::Pass,
            because: Vec::new(),
            runs: Vec::new(),
            summary: None,
            objectives: super::super::Objectives { rto_ms: 15000, rpo_writes: None },
            app: "shop".into(),
            settings: Settings::default(),
            distances: Vec::new(),
        };
        let path = keep(&reports, &report).unwrap();
        assert!(path.with_extension("txt").is_file());
        fs::write(reports.join("other.json"), "{}").unwrap();
        let found = list(&reports).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].report, report);
    }
}
