//! What a lab can do only if it was started for it: move a database's wall clock, fill a database's disk.
//!
//! Clocks: `libfaketime` in PostgreSQL alone, told by a file. Disks: a `tmpfs` for each database, in the supervisor's
//! own mount namespace, so that none outlives the lab; a full one is one whose limit is what it holds.

use std::{ffi::CString, fs, io, path::Path, path::PathBuf};

use isles_model::RegionName;
use rustix::{
    fs::statvfs,
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
};

use super::{error::LabError, lab::Lab, serve::unknown};
use crate::{
    blueprint::Blueprint,
    control::Rigs,
    processes::{make_dir, unprivileged_account},
};

/// Where Debian, Fedora, Arch and Homebrew's Linux put the library, below a directory of libraries.
const FAKETIME: [&str; 2] = ["faketime/libfaketimeMT.so.1", "faketime/libfaketime.so.1"];
/// Directories of libraries.
const LIBRARIES: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
/// How long PostgreSQL goes by the last look at the file, in seconds.
const CLOCK_LOOK_EVERY_S: u32 = 1;
/// The room of a database's disk, in bytes. Memory is used only for what is written.
const DISK_BYTES: u64 = 1 << 30;

/// Why a lab cannot be started for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRig {
    /// The library is not installed.
    #[error("movable clocks need libfaketime, which is not installed")]
    Faketime,
    /// Only root may mount.
    #[error("small disks need root: each is a file system of its own")]
    Root,
    /// The databases of an earlier run lie elsewhere.
    #[error("kept databases cannot be put on small disks")]
    Kept,
}

impl NoRig {
    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Faketime => "sudo apt-get install libfaketime (or scripts/install-dependencies.sh)",
            Self::Root => "run it as root, in a container for instance; every other drill needs no root",
            Self::Kept => "give them up with `isles down`, then try again",
        }
    }
}

/// Whether this machine can do it.
///
/// # Errors
/// What is missing.
pub fn check(rigs: Rigs) -> Result<(), NoRig> {
    if rigs.movable_clocks && faketime().is_none() {
        return Err(NoRig::Faketime);
    }
    if rigs.small_disks && !rustix::process::geteuid().is_root() {
        return Err(NoRig::Root);
    }
    Ok(())
}

fn faketime() -> Option<PathBuf> {
    let mut places =
        FAKETIME.iter().flat_map(|name| LIBRARIES.iter().map(move |dir| Path::new(dir).join(name)));
    places.find(|path| path.is_file())
}

/// Makes what the wishes ask for, before any process is started.
pub(crate) fn prepare(blueprint: &Blueprint) -> Result<(), LabError> {
    check(blueprint.rigs)?;
    if blueprint.rigs.small_disks && blueprint.kept {
        return Err(NoRig::Kept.into());
    }
    let account = unprivileged_account();
    for region in &blueprint.regions {
        let dir = blueprint.layout.region(&region.name);
        let failed = |source| LabError::File { path: dir.clone(), source };
        make_dir(&dir, 0o711, None).map_err(failed)?;
        if blueprint.rigs.movable_clocks {
            write_clock(&clock_file(blueprint, &region.name), 0).map_err(failed)?;
        }
        if blueprint.rigs.small_disks {
            make_dir(&region.data_dir, 0o700, account.as_ref()).map_err(failed)?;
            mount_disk(&region.data_dir).map_err(failed)?;
        }
    }
    Ok(())
}

/// Takes the disks away; what was on them is gone.
pub(crate) fn remove(lab: &Lab) {
    if !lab.blueprint.rigs.small_disks {
        return;
    }
    for region in &lab.blueprint.regions {
        if let Err(error) = unmount(&region.data_dir, UnmountFlags::DETACH) {
            tracing::warn!(region = %region.name, %error, "A database's disk could not be taken away.");
        }
    }
}

/// What PostgreSQL's environment needs for its clock to be moved; empty where it cannot be.
pub(crate) fn clock_environment(blueprint: &Blueprint, region: &RegionName) -> Vec<(String, String)> {
    let Some(library) = faketime().filter(|_| blueprint.rigs.movable_clocks) else { return Vec::new() };
    let file = clock_file(blueprint, region).display().to_string();
    let pairs = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file),
        ("FAKETIME_CACHE_DURATION", CLOCK_LOOK_EVERY_S.to_string()),
        // Because the monotonic clock measures lengths of time, and no fault makes those wrong.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Sets a region's database's wall clock off.
pub(crate) fn set_clock(lab: &Lab, region: &RegionName, ahead_ms: i64) -> Result<(), String> {
    if !lab.blueprint.rigs.movable_clocks {
        return Err(
            "this lab was not started with movable clocks: isles down, then isles up --with movable-clocks"
                .into(),
        );
    }
    known(lab, region)?;
    write_clock(&clock_file(&lab.blueprint, region), ahead_ms).map_err(|error| error.to_string())
}

/// Fills a region's database's disk, or frees it.
pub(crate) fn fill_disk(lab: &Lab, region: &RegionName, full: bool) -> Result<(), String> {
    if !lab.blueprint.rigs.small_disks {
        return Err(
            "this lab was not started with small disks: isles down, then isles up --with small-disks".into(),
        );
    }
    known(lab, region)?;
    let dir = lab.blueprint.regions.iter().find(|one| one.name == *region).map(|one| &one.data_dir);
    let dir = dir.ok_or_else(|| unknown(lab, region))?;
    let limit = if full { used(dir).map_err(|error| error.to_string())? } else { DISK_BYTES };
    resize_disk(dir, limit).map_err(|error| format!("the disk of {region} could not be resized: {error}"))
}

fn known(lab: &Lab, region: &RegionName) -> Result<(), String> {
    let known = lab.blueprint.regions.iter().any(|one| one.name == *region);
    if known { Ok(()) } else { Err(unknown(lab, region)) }
}

fn clock_file(blueprint: &Blueprint, region: &RegionName) -> PathBuf {
    blueprint.layout.region(region).join("clock")
}

/// Seconds with a sign, as libfaketime reads them; in one step, so that nobody reads half of it.
fn write_clock(path: &Path, ahead_ms: i64) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let beside = path.with_extension("new");
    fs::write(&beside, format!("{:+.3}\n", ahead_ms as f64 / 1e3))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644))?;
    fs::rename(beside, path)
}

fn mount_disk(dir: &Path) -> io::Result<()> {
    let options = CString::new(format!("size={DISK_BYTES},mode=0700")).map_err(io::Error::other)?;
    mount("isles", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?;
    Ok(())
}

fn resize_disk(dir: &Path, bytes: u64) -> io::Result<()> {
    let options = CString::new(format!("size={bytes}")).map_err(io::Error::other)?;
    mount_remount(dir, MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?;
    Ok(())
}

/// What a disk holds, in bytes; at least a page, because a limit of 0 is none.
fn used(dir: &Path) -> io::Result<u64> {
    let disk = statvfs(dir)?;
    Ok((disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize).max(disk.f_frsize))
}
