//! One region's database cluster: copied from a prepared template, configured, started, waited for.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use isles_model::config::{DatabaseConfig, DatabaseFiles};
use rustix::process::Signal;
use tokio_postgres::{NoTls, error::SqlState};

use super::{ADMIN_USER, Programs};
use crate::processes::{Account, Launch, Leash, make_dir};

/// Changes whenever a template is made differently, so that an old one is not used again.
const TEMPLATE_RECIPE: u32 = 2;
/// How long a server may take to answer. Recovery after SIGKILL is part of it.
pub(super) const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two attempts to connect.
const CONNECT_EVERY: Duration = Duration::from_millis(20);

/// Why a cluster could not be prepared or reached.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// `initdb` failed.
    #[error("initdb failed: {said}")]
    Initdb {
        /// What it said last.
        said: String,
    },
    /// A file could not be made.
    #[error("cannot prepare the database in {}", path.display())]
    Prepare {
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What was kept is another version's.
    #[error("the kept database in {} was made by PostgreSQL {found}, not {wanted}", path.display())]
    OtherVersion {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// What would start.
        wanted: u32,
    },
    /// It does not answer.
    #[error("PostgreSQL did not answer within {} s", READY_WAIT_MAX.as_secs())]
    Silent(#[source] Option<tokio_postgres::Error>),
    /// The application's database could not be made.
    #[error("cannot create the database")]
    Create(#[source] tokio_postgres::Error),
}

/// An empty, initialised data directory that clusters are copied from: `initdb` takes a second, a copy a tenth.
#[derive(Debug, Clone)]
pub struct Template {
    dir: PathBuf,
}

impl Template {
    /// Uses the template in `cache`, making it first where there is none. `scratch` is a directory on the way to
    /// which `account` can pass.
    ///
    /// # Errors
    /// When `initdb` fails or the file system does.
    pub fn ensure(
        programs: &Programs,
        cache: &Path,
        scratch: &Path,
        account: Option<&Account>,
    ) -> Result<Self, ClusterError> {
        let dir = cache.join(format!("postgres-{}-{TEMPLATE_RECIPE}", programs.version));
        if dir.join("PG_VERSION").is_file() {
            return Ok(Self { dir });
        }
        let fresh = scratch.join("initdb");
        let failed = |source| ClusterError::Prepare { path: fresh.clone(), source };
        let _ = fs::remove_dir_all(&fresh);
        make_dir(&fresh, 0o700, account).map_err(failed)?;
        initdb(programs, &fresh, account)?;
        if Self::publish(&fresh, &dir).is_err() {
            // Because a home directory may be read-only: the template then serves this lab alone.
            return Ok(Self { dir: fresh });
        }
        let _ = fs::remove_dir_all(&fresh);
        Ok(Self { dir })
    }

    /// Puts a finished template into the cache in one step, so that nobody copies half of one.
    fn publish(fresh: &Path, dir: &Path) -> io::Result<()> {
        let cache = dir.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(cache)?;
        let beside = cache.join(format!(".new-{}", std::process::id()));
        let done = copy_tree(fresh, &beside, None).and_then(|()| match fs::rename(&beside, dir) {
            Err(_) if dir.join("PG_VERSION").is_file() => Ok(()),
            done => done,
        });
        let _ = fs::remove_dir_all(&beside);
        done
    }
}

/// Whether somebody else was first; while both are at it, the catalogue's index says so (PostgreSQL, appendix A).
fn exists_already(code: &SqlState) -> bool {
    *code == SqlState::DUPLICATE_DATABASE || *code == SqlState::UNIQUE_VIOLATION
}

fn initdb(programs: &Programs, dir: &Path, account: Option<&Account>) -> Result<(), ClusterError> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(programs.program("initdb"));
    command.args(["--username", ADMIN_USER, "--encoding", "UTF8", "--locale", "C.UTF-8", "--auth", "trust"]);
    command
        .args(["--no-sync", "--no-instructions", "--wal-segsize=4", "--pgdata"])
        .arg(dir)
        .current_dir(dir)
        .stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    let output = command
        .output()
        .map_err(|source| ClusterError::Prepare { path: programs.program("initdb"), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ClusterError::Initdb { said })
}

/// Copies a directory tree and hands it to `owner`. Shares blocks where the file system can.
fn copy_tree(from: &Path, to: &Path, owner: Option<&Account>) -> io::Result<()> {
    make_dir(to, 0o700, owner)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target)?;
            if let Some(account) = owner {
                chown(&target, Some(account.uid), Some(account.gid))?;
            }
        }
    }
    Ok(())
}

/// One region's cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The programs it runs with.
    pub programs: Programs,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its roles, socket and port, as the agent is told them.
    pub access: DatabaseConfig,
    /// As whom it runs.
    pub account: Option<Account>,
    /// Its log.
    pub log: PathBuf,
}

impl Cluster {
    /// Makes the data directory unless one was kept, and writes the configuration.
    ///
    /// # Errors
    /// When the file system fails (a full disk), or what was kept is another version's.
    pub fn prepare(&self, template: Option<&Template>) -> Result<(), ClusterError> {
        let failed = |source| ClusterError::Prepare { path: self.data_dir.clone(), source };
        let version = fs::read_to_string(self.data_dir.join("PG_VERSION")).ok();
        match (version, template) {
            (Some(found), _) if found.trim() != self.programs.major.to_string() => {
                return Err(ClusterError::OtherVersion {
                    path: self.data_dir.clone(),
                    found: found.trim().to_owned(),
                    wanted: self.programs.major,
                });
            }
            (None, Some(template)) => {
                copy_tree(&template.dir, &self.data_dir, self.account.as_ref()).map_err(failed)?;
            }
            (Some(_), _) | (None, None) => {}
        }
        make_dir(&self.access.socket_dir, 0o700, self.account.as_ref()).map_err(failed)?;
        self.write("postgresql.conf", &self.settings()).map_err(failed)?;
        if let Some(files) = &self.access.files {
            fs::write(&files.admitted, DatabaseFiles::NOBODY).map_err(failed)?;
        }
        self.write("pg_hba.conf", &self.doors()).map_err(failed)
    }

    /// Whether a data directory from an earlier run is there.
    pub fn was_kept(&self) -> bool {
        self.data_dir.join("PG_VERSION").is_file()
    }

    /// How to start the server.
    pub fn launch(&self) -> Launch {
        Launch {
            program: self.programs.program("postgres"),
            args: vec![OsString::from("-D"), self.data_dir.clone().into()],
            env: Vec::new(),
            env_without: &["PG"],
            cwd: self.data_dir.clone(),
            log: self.log.clone(),
            account: self.account.clone(),
            leash: Leash::Signal(Signal::QUIT),
        }
    }

    /// Waits until the server answers, and creates the application's database if it is not there.
    ///
    /// # Errors
    /// When it does not answer in [`READY_WAIT_MAX`], or refuses to create the database.
    pub async fn wait_ready(&self) -> Result<(), ClusterError> {
        let until = Instant::now() + READY_WAIT_MAX;
        let client = loop {
            match self.connect("postgres").await {
                Ok(client) => break client,
                Err(error) if Instant::now() > until => return Err(ClusterError::Silent(Some(error))),
                Err(_) => tokio::time::sleep(CONNECT_EVERY).await,
            }
        };
        let name = &self.access.name;
        let known = client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[name]).await;
        if known.map_err(ClusterError::Create)?.is_none() {
            // Because a topology's names are DNS labels with underscores, quoting them is all that is needed.
            let create = format!("CREATE DATABASE \"{name}\"");
            match client.batch_execute(&create).await {
                // Because the agent makes a database that it misses, and may be first.
                Err(error) if error.code().is_some_and(exists_already) => {}
                created => created.map_err(ClusterError::Create)?,
            }
        }
        Ok(())
    }

    /// Connects as the superuser through the socket.
    async fn connect(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&self.access.socket_dir)
            .port(self.access.port)
            .user(&self.access.admin_user)
            .dbname(database)
            .application_name("isles lab")
            .connect_timeout(Duration::from_secs(2))
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.data_dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.account.as_ref().map_or(Ok(()), |account| chown(&path, Some(account.uid), Some(account.gid)))
    }

    /// The server's settings (PostgreSQL, chapter 20). Durable as in production; small, because several share a machine.
    fn settings(&self) -> String {
        format!(
            "# Written by isles at each start.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 32MB
dynamic_shared_memory_type = posix
huge_pages = off
jit = off
fsync = on
synchronous_commit = on
wal_level = logical
track_commit_timestamp = on
max_wal_size = 512MB
max_wal_senders = 32
max_replication_slots = 64
max_slot_wal_keep_size = 2GB
max_worker_processes = 48
max_logical_replication_workers = 32
max_sync_workers_per_subscription = 12
wal_retrieve_retry_interval = 500ms
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
password_encryption = 'scram-sha-256'
log_destination = 'stderr'
log_line_prefix = '%m [%p] %q%u@%d '
log_error_verbosity = terse
",
            port = self.access.port,
            socket = self.access.socket_dir.display(),
        )
    }

    /// Who may come in (PostgreSQL, chapter 21.1); whoever is not named is refused.
    fn doors(&self) -> String {
        let DatabaseConfig { name, admin_user, app_user, read_user, replication_user, .. } = &self.access;
        let admitted = match &self.access.files {
            Some(files) => format!("@{}", files.admitted.display()),
            None => format!("\"{app_user}\""),
        };
        format!(
            "# Written by isles at each start.
local all \"{admin_user}\" trust
local \"{name}\" \"{read_user}\" scram-sha-256
local \"{name}\" {admitted} scram-sha-256
host \"{name}\" \"{replication_user}\" 127.0.0.1/32 scram-sha-256
"
        )
    }
}
