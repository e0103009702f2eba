//! Finds PostgreSQL's programs: in PATH, and where distributions keep the ones that are not in PATH.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest major version that the replication works with.
pub const VERSION_MIN: u32 = 15;
/// Where distributions put server programs of several versions: `DIR/VERSION/bin`, or `DIR/bin` itself.
const PLACES: [&str; 6] = [
    "/usr/lib/postgresql",
    "/usr/pgsql",
    "/usr/lib64/pgsql",
    "/opt/homebrew/opt",
    "/usr/local/opt",
    "/usr/local/pgsql",
];

/// The server's and the client's programs of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The directory they are in.
    pub bin: PathBuf,
    /// The whole version as the server says it: `15.18`.
    pub version: String,
    /// Its first number.
    pub major: u32,
}

/// Why there is no PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PostgresMissing {
    /// None at all.
    #[error("PostgreSQL's server is not installed (looked for `postgres` and `initdb` in PATH and {})", PLACES.join(", "))]
    NotFound,
    /// Only old ones.
    #[error("PostgreSQL {version} is too old; {VERSION_MIN} or newer is needed")]
    TooOld {
        /// The newest that was found.
        version: String,
    },
}

impl Programs {
    /// One of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The installation to use: of the major version `wanted` if there is one, else the newest.
    ///
    /// # Errors
    /// When there is none, or only ones that are too old.
    pub fn find(path: &OsStr, wanted: Option<u32>) -> Result<Self, PostgresMissing> {
        Self::best_of(&places(path), wanted)
    }

    fn best_of(places: &[PathBuf], wanted: Option<u32>) -> Result<Self, PostgresMissing> {
        let mut found: Vec<Self> = places.iter().filter_map(|bin| Self::at(bin)).collect();
        found.sort_by_key(|programs| (Some(programs.major) == wanted, programs.major));
        match found.pop() {
            Some(programs) if programs.major >= VERSION_MIN => Ok(programs),
            Some(old) => Err(PostgresMissing::TooOld { version: old.version }),
            None => Err(PostgresMissing::NotFound),
        }
    }

    fn at(bin: &Path) -> Option<Self> {
        if !bin.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = version_in(&said)?;
        let major = version.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()?;
        Some(Self { bin: bin.to_owned(), major, version })
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` -> `15.18`.
fn version_in(said: &str) -> Option<String> {
    let after = said.split("(PostgreSQL) ").nth(1)?;
    Some(after.split_ascii_whitespace().next()?.to_owned())
}

fn places(path: &OsStr) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::split_paths(path).collect();
    for place in PLACES {
        places.push(Path::new(place).join("bin"));
        let versions = std::fs::read_dir(place).into_iter().flatten().flatten();
        let installations = versions.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("postgresql")
        });
        places.extend(installations.map(|entry| entry.path().join("bin")));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_distributions_print_it() {
        assert_eq!(
            version_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(),
            Some("15.18")
        );
        assert_eq!(version_in("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18beta1"));
        assert_eq!(version_in("MySQL"), None);
    }

    /// A directory with programs that only say a version.
    fn installation(version: &str) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
        for name in ["postgres", "initdb"] {
            std::fs::write(dir.path().join(name), &script).unwrap();
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    #[test]
    fn the_newest_version_is_taken_unless_another_is_wanted_and_old_ones_are_refused() {
        let dirs = ["14.9", "17.2", "16.1"].map(installation);
        let places: Vec<PathBuf> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        assert_eq!(Programs::best_of(&places, None).unwrap().version, "17.2");
        assert_eq!(Programs::best_of(&places, Some(16)).unwrap().version, "16.1");
        assert_eq!(Programs::best_of(&places, Some(18)).unwrap().version, "17.2");
        let old = Programs::best_of(&places[..1], None).unwrap_err();
        assert_eq!(old.to_string(), "PostgreSQL 14.9 is too old; 15 or newer is needed");
        assert!(matches!(Programs::best_of(&[], None), Err(PostgresMissing::NotFound)));
    }

    #[test]
    fn a_place_without_a_server_is_not_an_installation() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Programs::at(empty.path()), None);
    }
}
