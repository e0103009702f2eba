//! Writes a first isles.yaml from what the project's directory already says.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use isles_model::spec::init::{Directory, FirstSpec, first_spec};
use serde_json::json;

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
};

/// The most that is read of one of the project's files; what follows is left out.
const PROJECT_FILE_BYTES_MAX: u64 = 256 * 1024;

/// The arguments of `isles init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Replace a spec that is already there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Why no spec was written.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{0} is already there")]
    Exists(PathBuf),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// Writes the spec beside the project's files and says what is still to be decided.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let directory = match global.file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let first = first_spec(&ProjectDirectory(directory));
    match write(&global.file, args.force, &first.text) {
        Ok(()) => {}
        Err(error @ InitError::Exists(_)) => {
            let help = "Look at it with `isles check`, or replace it with `isles init --force`.";
            return Err(Failure::refused(error.to_string(), help));
        }
        Err(error @ InitError::Write { .. }) => return Err(Failure::new(error)),
    }
    if global.json {
        let file = global.file.display().to_string();
        say(&json!({"file": file, "sources": first.sources, "open_questions": first.open_questions})
            .to_string());
    } else if !global.quiet {
        say(&summary(&global.file, &first));
    }
    Ok(Exit::Done)
}

fn write(path: &Path, replace: bool, text: &str) -> Result<(), InitError> {
    let mut options = OpenOptions::new();
    options.write(true);
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned()),
        _ => InitError::Write { path: path.to_owned(), source },
    };
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn summary(path: &Path, first: &FirstSpec) -> String {
    let from = match first.sources.as_slice() {
        [] => "nothing else was found here".to_owned(),
        sources => format!("from {}", sources.join(", ")),
    };
    let mut lines = vec![format!("Wrote {} ({from}).", path.display())];
    if !first.open_questions.is_empty() {
        lines.push("Please look at:".to_owned());
        lines.extend(first.open_questions.iter().map(|question| format!("  - {question}")));
    }
    lines.push("Next: isles check".to_owned());
    lines.join("\n")
}

struct ProjectDirectory<'a>(&'a Path);

impl Directory for ProjectDirectory<'_> {
    fn name(&self) -> Option<String> {
        let whole = fs::canonicalize(self.0).ok()?;
        Some(whole.file_name()?.to_string_lossy().into_owned())
    }

    fn read(&self, file: &str) -> Option<String> {
        let path = self.0.join(file);
        // Because a named pipe would never end, only a regular file is opened.
        if !fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(PROJECT_FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
