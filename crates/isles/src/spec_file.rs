//! Opens the spec that `--file` names.

use std::{fs, io, path::PathBuf};

use isles_model::spec::{self, Checked, SPEC_BYTES_MAX, SpecErrors};

use crate::{cli::Global, outcome::Failure};

/// Why a spec could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
struct ReadSpec {
    path: PathBuf,
    source: io::Error,
}

/// Reads and checks the spec. Its warnings are for `isles check` to show.
///
/// # Errors
/// The file cannot be read, or the spec has mistakes: then all of them, each with its place.
pub(crate) fn load(global: &Global) -> Result<Checked, Failure> {
    check(global)?.map_err(Failure::diagnostic)
}

/// The same, with the spec's mistakes apart from the file's troubles.
pub(crate) fn check(global: &Global) -> Result<Result<Checked, SpecErrors>, Failure> {
    let text = read(global)?;
    Ok(spec::load(&global.file.display().to_string(), &text))
}

fn read(global: &Global) -> Result<String, Failure> {
    let failed = |source: io::Error| {
        let help = match source.kind() {
            io::ErrorKind::NotFound => "Write one with `isles init`, or name another file with `--file`.",
            _ => "",
        };
        Failure::with_help(ReadSpec { path: global.file.clone(), source }, help)
    };
    let length = fs::metadata(&global.file).map_err(failed)?.len();
    if length > SPEC_BYTES_MAX as u64 {
        let message =
            format!("{} has {length} bytes; a spec has at most {SPEC_BYTES_MAX}", global.file.display());
        return Err(Failure::message(message, "Is this the right file?"));
    }
    fs::read_to_string(&global.file).map_err(failed)
}
