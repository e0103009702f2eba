//! Finds what a lab needs on this machine, and says how to get what is missing.

use std::{ffi::OsStr, path::Path};

use serde::Serialize;

use crate::{
    etcd::{Etcd, EtcdMissing},
    postgres::{PostgresMissing, Programs},
    processes::unprivileged_account,
};

/// How many files a lab of five regions opens, with room to spare.
const OPEN_FILES_MIN: u64 = 1024;

/// Why a lab cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// No usable PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] PostgresMissing),
    /// No usable etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdMissing),
    /// Root, and nobody to run PostgreSQL as.
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as")]
    Account,
    /// Not Linux.
    #[error("the lab needs Linux: it follows processes through /proc")]
    NotLinux,
}

impl Missing {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Postgres(_) => {
                "Debian, Ubuntu: sudo apt install postgresql   (a newer one: sudo apt install postgresql-common && sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh)\nFedora: sudo dnf install postgresql-server\nmacOS: the lab needs Linux, for example `limactl start`; there as on Ubuntu"
            }
            Self::Etcd(_) => {
                "Debian, Ubuntu: sudo apt install etcd-server   (before Debian 12, Ubuntu 23.04: etcd)\nFedora: sudo dnf install etcd\nmacOS: the lab needs Linux, for example `limactl start`; there as on Ubuntu"
            }
            Self::Account => "run isles as an ordinary user, or create one: useradd --system postgres",
            Self::NotLinux => "run it in a Linux virtual machine or container, for example `limactl start`",
        }
    }
}

/// The programs of a lab.
///
/// # Errors
/// The first that is missing.
pub fn find(path: &OsStr, postgres_wanted: Option<u32>) -> Result<(Programs, Etcd), Missing> {
    if !Path::new("/proc/self/stat").exists() {
        return Err(Missing::NotLinux);
    }
    let programs = Programs::find(path, postgres_wanted)?;
    let etcd = Etcd::find(path)?;
    if rustix::process::geteuid().is_root() && unprivileged_account().is_none() {
        return Err(Missing::Account);
    }
    Ok((programs, etcd))
}

/// One thing that `isles doctor` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// What.
    pub what: &'static str,
    /// What was found, in words.
    pub found: String,
    /// Whether it will do.
    pub good: bool,
    /// What to do when it will not.
    pub remedy: Option<String>,
}

impl Examined {
    fn good(what: &'static str, found: String) -> Self {
        Self { what, found, good: true, remedy: None }
    }

    fn bad(what: &'static str, found: String, remedy: impl Into<String>) -> Self {
        Self { what, found, good: false, remedy: Some(remedy.into()) }
    }

    fn missing(what: &'static str, missing: &Missing) -> Self {
        Self::bad(what, missing.to_string(), missing.remedy())
    }
}

/// Looks at everything that a lab needs. `path` is PATH's value, `temp` where labs are put.
pub fn examine(path: &OsStr, temp: &Path) -> Vec<Examined> {
    vec![
        examine_postgres(path),
        examine_psql(path),
        examine_etcd(path),
        examine_user(),
        examine_files(),
        examine_temp(temp),
    ]
}

fn examine_postgres(path: &OsStr) -> Examined {
    match Programs::find(path, None) {
        Ok(programs) => {
            Examined::good("postgres", format!("{} in {}", programs.version, programs.bin.display()))
        }
        Err(missing) => Examined::missing("postgres", &missing.into()),
    }
}

fn examine_psql(path: &OsStr) -> Examined {
    let of_server = Programs::find(path, None).ok().map(|programs| programs.program("psql"));
    let in_path = std::env::split_paths(path).map(|dir| dir.join("psql"));
    match of_server.into_iter().chain(in_path).find(|place| place.is_file()) {
        Some(place) => Examined::good("psql", place.display().to_string()),
        None => Examined::bad(
            "psql",
            "not found; `isles psql` will not work".into(),
            "Debian, Ubuntu: sudo apt install postgresql-client\nFedora: sudo dnf install postgresql",
        ),
    }
}

fn examine_etcd(path: &OsStr) -> Examined {
    match Etcd::find(path) {
        Ok(etcd) => Examined::good("etcd", format!("{} at {}", etcd.version, etcd.program.display())),
        Err(missing) => Examined::missing("etcd", &missing.into()),
    }
}

fn examine_user() -> Examined {
    if !Path::new("/proc/self/stat").exists() {
        return Examined::missing("user", &Missing::NotLinux);
    }
    match unprivileged_account() {
        Some(account) => Examined::good("user", format!("root; PostgreSQL will run as {}", account.name)),
        None if rustix::process::geteuid().is_root() => Examined::missing("user", &Missing::Account),
        None => Examined::good("user", format!("uid {}", rustix::process::geteuid().as_raw())),
    }
}

fn examine_files() -> Examined {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let found = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("{limit} open files"));
    if limit.is_none_or(|limit| limit >= OPEN_FILES_MIN) {
        Examined::good("ulimit", found)
    } else {
        Examined::bad("ulimit", found, format!("ulimit -n {OPEN_FILES_MIN}"))
    }
}

fn examine_temp(temp: &Path) -> Examined {
    let found = rustix::fs::statvfs(temp);
    let free_mib = found.map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize) >> 20);
    let said = format!("{free_mib} MiB free in {}", temp.display());
    if free_mib >= 1024 {
        Examined::good("space", said)
    } else {
        Examined::bad("space", said, "free a GiB, or set TMPDIR to a directory that has it")
    }
}
