//! Where a lab keeps its files: one directory per spec, on a path short enough for Unix sockets, easy to find again
//! and easy to take away.
//!
//! ```text
//! /tmp/isles-UID/HASH/          mode 0711: PostgreSQL's user must be able to pass
//!   lock  control.sock  processes.jsonl  kept.json  supervisor.log
//!   REGION/  agent.json  agent/  etcd/  pg/  s/  log/{postgres,etcd,agent,app-0}.log
//! .isles/                       beside the spec: lab.json says where the lab is; reports/ stays
//! ```

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use isles_model::RegionName;
use sha2::{Digest as _, Sha256};

use crate::{control::Part, processes};

/// The longest path of a Unix socket, in bytes (unix(7): 108 with the closing zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// What a region adds to the lab's directory on the way to its PostgreSQL socket, besides its name.
const SOCKET_SUFFIX_BYTES: usize = "//s/.s.PGSQL.65535.lock".len();

/// Why a lab's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The spec is not there.
    #[error("cannot read {}", path.display())]
    Spec {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else made it.
    #[error("{} belongs to another user (uid {owner})", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It cannot be made.
    #[error("cannot make the lab's directory {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another supervisor has it.
    #[error("a lab of this spec runs already")]
    Busy,
}

/// The places of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The spec, as an absolute path.
    pub spec: PathBuf,
    /// The lab's directory.
    pub dir: PathBuf,
}

impl Layout {
    /// The layout of a spec's lab below `temp` (`/tmp`). Makes nothing.
    ///
    /// # Errors
    /// When the spec does not exist.
    pub fn of(spec: &Path, temp: &Path) -> Result<Self, LayoutError> {
        let absolute = |source| LayoutError::Spec { path: spec.to_owned(), source };
        let spec = spec.canonicalize().map_err(absolute)?;
        let digest = Sha256::digest(spec.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let user = format!("isles-{}", rustix::process::geteuid().as_raw());
        let fits = temp.as_os_str().len() + user.len() + name.len() + 2 + 63 + SOCKET_SUFFIX_BYTES
            <= SOCKET_PATH_BYTES_MAX;
        let temp = if fits { temp } else { Path::new("/tmp") };
        Ok(Self { dir: temp.join(user).join(name), spec })
    }

    /// Makes the lab's directory, refusing one that another user has put there.
    ///
    /// # Errors
    /// When it belongs to somebody else or cannot be made.
    pub fn make(&self) -> Result<(), LayoutError> {
        let parent = self.dir.parent().unwrap_or(Path::new("/tmp"));
        self.refuse_foreign()?;
        for path in [parent, &self.dir] {
            let make = |source| LayoutError::Make { path: path.to_owned(), source };
            processes::make_dir(path, 0o711, None).map_err(make)?;
        }
        Ok(())
    }

    /// Refuses a directory that another user has put where the lab's would be: what is written in it must not be
    /// believed. One that is not there is fine.
    ///
    /// # Errors
    /// [`LayoutError::Foreign`].
    pub fn refuse_foreign(&self) -> Result<(), LayoutError> {
        let own = rustix::process::geteuid().as_raw();
        for path in self.dir.parent().into_iter().chain([self.dir.as_path()]) {
            if let Ok(found) = fs::symlink_metadata(path)
                && (found.uid() != own || !found.is_dir())
            {
                return Err(LayoutError::Foreign { path: path.to_owned(), owner: found.uid() });
            }
        }
        Ok(())
    }

    /// Takes the lab for this process; the kernel gives it back when the process ends.
    ///
    /// # Errors
    /// [`LayoutError::Busy`] when another supervisor has it.
    pub fn lock(&self) -> Result<File, LayoutError> {
        let path = self.dir.join("lock");
        let make = |source| LayoutError::Make { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(make)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(LayoutError::Busy),
            Err(fs::TryLockError::Error(source)) => Err(make(source)),
        }
    }

    /// Whether a supervisor has the lab now.
    pub fn is_locked(&self) -> bool {
        // Because asking must not make the file again that a stopping lab has just removed.
        let Ok(file) = File::open(self.dir.join("lock")) else { return false };
        matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The record of started processes.
    pub fn process_record(&self) -> PathBuf {
        self.dir.join("processes.jsonl")
    }

    /// Ports and passwords, for an `isles up` after `isles down --keep`. Holds passwords: mode 0600.
    pub fn kept(&self) -> PathBuf {
        self.dir.join("kept.json")
    }

    /// What a supervisor in the background has to say.
    pub fn supervisor_log(&self) -> PathBuf {
        self.dir.join("supervisor.log")
    }

    /// One region's directory.
    pub fn region(&self, region: &RegionName) -> PathBuf {
        self.dir.join(region.as_str())
    }

    /// One part's log.
    pub fn log(&self, region: &RegionName, part: Part) -> PathBuf {
        self.region(region).join("log").join(format!("{part}.log"))
    }

    /// The directory beside the spec.
    pub fn beside_spec(&self) -> PathBuf {
        self.spec.parent().unwrap_or(Path::new("/")).join(".isles")
    }

    /// Leaves a note beside the spec that says where the lab is. A spec in a directory that cannot be written to
    /// runs all the same.
    pub fn point_to_lab(&self) {
        let note = serde_json::json!({ "lab": self.dir, "control": self.control_socket() });
        let dir = self.beside_spec();
        if fs::create_dir_all(&dir)
            .and_then(|()| fs::write(dir.join("lab.json"), format!("{note}\n")))
            .is_err()
        {
            tracing::warn!(dir = %dir.display(), "The note that says where the lab is could not be left.");
        }
    }

    /// Takes away the lab's directory and the note; reports stay. With `keep`, the databases stay too.
    ///
    /// # Errors
    /// Those of removing.
    pub fn remove(&self, keep: bool) -> io::Result<()> {
        let beside = self.beside_spec();
        let _ = fs::remove_file(beside.join("lab.json"));
        let _ = fs::remove_dir(&beside);
        if keep {
            for path in [self.control_socket(), self.process_record()] {
                let _ = fs::remove_file(path);
            }
            return Ok(());
        }
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            // Because whoever sees no lock takes the lab for gone, the lock goes last.
            if entry.file_name() != "lock" {
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        let _ = fs::remove_file(self.dir.join("lock"));
        match fs::remove_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(parent) = self.dir.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_can_be_taken_once_and_leaves_nothing_behind() {
        let temp = tempfile::tempdir_in("/tmp").unwrap();
        let spec = temp.path().join("isles.yaml");
        fs::write(&spec, "name: shop\n").unwrap();
        let layout = Layout::of(&spec, temp.path()).unwrap();
        layout.make().unwrap();
        layout.point_to_lab();
        let lock = layout.lock().unwrap();
        assert!(matches!(layout.lock(), Err(LayoutError::Busy)));
        assert!(layout.is_locked());
        drop(lock);
        assert!(!layout.is_locked());
        layout.remove(false).unwrap();
        let left: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["isles.yaml"]);
    }

    #[test]
    fn a_socket_path_stays_short_even_where_the_temporary_directory_is_long() {
        let temp = tempfile::tempdir_in("/tmp").unwrap();
        let spec = temp.path().join("isles.yaml");
        fs::write(&spec, "").unwrap();
        let long = PathBuf::from(format!("/{}", "long/".repeat(20)));
        assert!(Layout::of(&spec, &long).unwrap().dir.starts_with("/tmp"));
    }
}
