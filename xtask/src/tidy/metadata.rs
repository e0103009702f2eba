//! What cargo knows of the workspace and of what it is built from. Asks no network.

use std::{path::Path, process::Command};

use serde::Deserialize;

use super::LookError;

/// One package.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    /// Where it was downloaded from; nothing for the workspace's own.
    pub(super) source: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// `dev`, `build`, or nothing.
    pub(super) kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The workspace's own packages.
pub(super) fn workspace(root: &Path) -> Result<Vec<Package>, LookError> {
    ask(root, &["--no-deps"])
}

/// Those and everything they are built from on this platform.
pub(super) fn with_dependencies(root: &Path) -> Result<Vec<Package>, LookError> {
    let platform = format!("{}-unknown-{}-gnu", std::env::consts::ARCH, std::env::consts::OS);
    let platform = if std::env::consts::OS == "macos" {
        format!("{}-apple-darwin", std::env::consts::ARCH)
    } else {
        platform
    };
    ask(root, &["--filter-platform", &platform])
}

fn ask(root: &Path, more: &[&str]) -> Result<Vec<Package>, LookError> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--offline", "--format-version", "1"]).args(more).current_dir(root);
    let asked = cargo.output().map_err(LookError::Cargo)?;
    if !asked.status.success() {
        return Err(LookError::Metadata(String::from_utf8_lossy(&asked.stderr).trim().to_owned()));
    }
    Ok(serde_json::from_slice::<Metadata>(&asked.stdout)?.packages)
}
