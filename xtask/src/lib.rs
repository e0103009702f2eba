//! The repository's own chores: what CI does, and whether the documents say what is true.

use std::path::PathBuf;

pub mod steps;
pub mod tidy;

/// The repository's root.
pub fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| own.clone(), PathBuf::from)
}
