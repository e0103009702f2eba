//! One host of the peers' network: its processes are whatever lives in its namespace, however they came there.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use isles_lab::processes::{self, Account, tree};
use rustix::process::Signal;

use crate::{
    error::BenchError,
    network::{HOSTS, Network, Place, empty, inhabitants},
    session::Login,
};

/// PostgreSQL's programs.
pub(crate) const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";
/// How often signals are sent again to what was forked meanwhile.
const SIGNAL_ROUNDS: usize = 5;
/// How long a program that does one thing may take.
const ONCE_WAIT_MAX: Duration = Duration::from_secs(60);

/// A program and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Its name; also its log's.
    pub(crate) name: &'static str,
    /// Its file.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
}

impl Program {
    /// From one line: the path, then arguments without spaces in them.
    pub(crate) fn of(name: &'static str, line: &str) -> Self {
        let mut words = line.split_whitespace();
        let path = words.next().unwrap_or_default().into();
        Self { name, path, args: words.map(OsString::from).collect() }
    }
}

/// One host.
pub(crate) struct Host {
    /// Where it is on the network.
    pub(crate) place: Place,
    /// Its directory, the account's own.
    pub(crate) dir: PathBuf,
    account: Account,
    /// What runs on it from boot.
    services: Vec<Program>,
}

impl Host {
    /// A host without processes at every place of a network; makes their directories below `parent`.
    pub(crate) fn all(network: &Network, parent: &Path) -> Result<[Self; HOSTS], BenchError> {
        let [first, second, third] = network.places().map(|place| Self::new(place, parent));
        Ok([first?, second?, third?])
    }

    fn new(place: Place, parent: &Path) -> Result<Self, BenchError> {
        let dir = parent.join(format!("host-{}", place.index + 1));
        let account = processes::unprivileged_account().ok_or(BenchError::NotRoot)?;
        let failed = |source| BenchError::File { path: dir.clone(), source };
        processes::make_dir(&dir, 0o700, Some(&account)).map_err(failed)?;
        Ok(Self { place, dir, account, services: Vec::new() })
    }

    /// An address of this host.
    pub(crate) fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.place.address), port)
    }

    /// PostgreSQL's superuser, who is trusted on this network.
    pub(crate) fn superuser(&self, port: u16) -> Login {
        Login {
            address: self.socket(port),
            user: "postgres".to_owned(),
            password: None,
            database: "postgres".to_owned(),
        }
    }

    /// A file of this host, the account's own.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, BenchError> {
        let path = self.dir.join(name);
        let written = fs::write(&path, text)
            .and_then(|()| std::os::unix::fs::chown(&path, Some(self.account.uid), Some(self.account.gid)));
        written.map_err(|source| BenchError::File { path: path.clone(), source })?;
        Ok(path)
    }

    /// Starts a program now and whenever the host is started again.
    pub(crate) fn serve(&mut self, program: Program) -> Result<(), BenchError> {
        self.start(&program)?;
        self.services.push(program);
        Ok(())
    }

    /// Has a program started whenever the host is started again.
    pub(crate) fn serve_later(&mut self, program: Program) {
        self.services.push(program);
    }

    /// Starts a program.
    pub(crate) fn start(&self, program: &Program) -> Result<(), BenchError> {
        let mut command = self.command(program)?;
        let failed = |source| BenchError::Start { program: program.name.to_owned(), source };
        // It is found again by its namespace, and reaped by the runtime.
        command.spawn().map(drop).map_err(failed)
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&self, program: &Program) -> Result<(), BenchError> {
        let mut command = self.command(program)?;
        let failed = |source| BenchError::Start { program: program.name.to_owned(), source };
        let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
        let ended = tokio::time::timeout(ONCE_WAIT_MAX, child.wait()).await;
        let said = match ended {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done within {} s", ONCE_WAIT_MAX.as_secs()),
        };
        let log = fs::read_to_string(self.log(program.name)).unwrap_or_default();
        let end = log.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
        let words: Vec<_> = program.args.iter().map(|word| word.to_string_lossy()).collect();
        let program = format!("{} {}", program.path.display(), words.join(" "));
        Err(BenchError::Failed { program, said: format!("{said}: {}", end.join(" | ")) })
    }

    /// Starts everything that runs from boot.
    pub(crate) fn boot(&self) -> Result<(), BenchError> {
        self.services.iter().try_for_each(|program| self.start(program))
    }

    /// Sends a signal to all processes of the host, and to those that they fork meanwhile.
    pub(crate) fn signal(&self, signal: Signal) {
        let mut seen = Vec::new();
        for _ in 0..SIGNAL_ROUNDS {
            let fresh: Vec<u32> =
                inhabitants(&self.place.namespace).into_iter().filter(|pid| !seen.contains(pid)).collect();
            if fresh.is_empty() {
                return;
            }
            for pid in &fresh {
                tree::send(*pid, signal);
            }
            seen.extend(fresh);
        }
    }

    /// Kills all its processes and waits until they are gone.
    pub(crate) fn kill(&self) {
        empty(&self.place.namespace);
    }

    /// Kills PostgreSQL, the postmaster first, and nothing else.
    pub(crate) fn kill_postgres(&self) {
        let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        for pid in inhabitants(&self.place.namespace) {
            if name(&pid).trim() == "postgres" {
                tree::send(pid, Signal::KILL);
            }
        }
    }

    /// Where a program's output goes.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The program inside the namespace, as the account, with nothing of this process's environment.
    fn command(&self, program: &Program) -> Result<tokio::process::Command, BenchError> {
        let path = self.log(program.name);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let log = opened.map_err(|source| BenchError::File { path: path.clone(), source })?;
        let error_log = log.try_clone().map_err(|source| BenchError::File { path, source })?;
        let mut net = OsString::from("--net=");
        net.push(&self.place.namespace);
        let mut command = tokio::process::Command::new("nsenter");
        command.arg(net).args(["--", "setpriv", "--clear-groups", "--pdeathsig", "KILL"]);
        command.args(["--reuid", &self.account.uid.to_string(), "--regid", &self.account.gid.to_string()]);
        command.arg("--").arg(&program.path).args(&program.args);
        command.env_clear().env("PATH", format!("{POSTGRES_BIN}:/usr/bin:/bin")).env("HOME", &self.dir);
        command.env("LC_ALL", "C.UTF-8").env("USER", &self.account.name);
        command.env("PG_REGRESS_SOCK_DIR", &self.dir).env("PGHOST", &self.dir);
        command.current_dir(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log).stderr(error_log);
        Ok(command)
    }
}
