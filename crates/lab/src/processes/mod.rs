//! Starts the lab's programs so that none of them can outlive it, and ends them, with all they have started.
//!
//! Every child is started through `isles __exec`, which asks the kernel to signal it when the supervisor dies,
//! even of SIGKILL. The kernel ties that to the *thread* that spawned: spawn from one that lives as long as the lab.

pub mod exec;
pub mod record;
pub mod tree;

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::Signal;

/// The running program itself, as the kernel knows it. Because PostgreSQL's user may not be able to walk the path
/// that leads to the `isles` program (a home directory of mode 0700), while this name needs no walk.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The user that a child runs as, when that is not the supervisor's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// What becomes of a child when the supervisor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leash {
    /// The kernel sends it this signal. For programs that take their own children along.
    Signal(Signal),
    /// A small guard process above it ends it with all its descendants. For a user's shell command.
    Guard,
}

impl Leash {
    /// The names of the signals that `isles __exec --death-signal` knows.
    pub fn signal_named(name: &str) -> Option<Signal> {
        match name {
            "SIGTERM" => Some(Signal::TERM),
            "SIGINT" => Some(Signal::INT),
            "SIGQUIT" => Some(Signal::QUIT),
            "SIGKILL" => Some(Signal::KILL),
            _ => None,
        }
    }

    fn arguments(self) -> Vec<OsString> {
        match self {
            Self::Guard => vec!["--guard".into()],
            Self::Signal(signal) => vec!["--death-signal".into(), signal_name(signal).into()],
        }
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "SIGTERM",
        Signal::INT => "SIGINT",
        Signal::QUIT => "SIGQUIT",
        _ => "SIGKILL",
    }
}

/// One program to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Variables that begin so are taken out of the environment first (`PG`, `ETCD_`).
    pub env_without: &'static [&'static str],
    /// Where it starts.
    pub cwd: PathBuf,
    /// Where its output goes, appended.
    pub log: PathBuf,
    /// As whom.
    pub account: Option<Account>,
    /// What becomes of it when the supervisor dies.
    pub leash: Leash,
}

impl Launch {
    /// Starts it in a process group of its own. The caller's thread must live as long as the child should.
    pub fn spawn(&self) -> io::Result<tokio::process::Child> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        let mut command = std::process::Command::new(OWN_PROGRAM);
        command.arg("__exec").args(self.leash.arguments());
        command.arg("--parent").arg(std::process::id().to_string());
        command.arg("--").arg(&self.program).args(&self.args);
        for (name, _) in std::env::vars_os() {
            if self.env_without.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.cwd).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        tokio::process::Command::from(command).spawn()
    }
}

/// The user that PostgreSQL runs as: the supervisor's own, unless that is root, whom PostgreSQL refuses.
pub fn unprivileged_account() -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().find_map(|name| account_in(&users, name))
}

fn account_in(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (user == name).then_some(())?;
        Some(Account { name: user.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

/// Makes a directory and hands it to an account.
///
/// # Errors
/// Those of creating it and of changing its owner and mode.
pub fn make_dir(path: &Path, mode: u32, owner: Option<&Account>) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    owner.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let users =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:P,,,:/var:/bin/sh\n";
        let expect = Account { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(account_in(users, "postgres"), Some(expect));
        assert_eq!(account_in(users, "nobody"), None);
    }
}
