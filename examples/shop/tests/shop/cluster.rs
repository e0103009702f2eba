//! A PostgreSQL of the test's own: a temporary directory, a port from the OS, gone with the test.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

/// How long a test waits for a fact. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    dir: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Starts a server with an empty database `shop`.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("shop-test-").tempdir().unwrap();
        // As root the server runs as another user, who has to create its directory in here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut cluster = Self { dir, port: free_port(), server: None };
        let initdb = program("initdb")
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"])
            .arg(cluster.dir.path().join("data"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(initdb.success());
        cluster.run().await;
        cluster.connect("postgres").await.unwrap().batch_execute("CREATE DATABASE shop").await.unwrap();
        cluster
    }

    /// Starts the server, on the same port as before.
    pub(crate) async fn run(&mut self) {
        let server = program("postgres")
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        eventually("the server answers", async || self.connect("postgres").await.is_some()).await;
    }

    /// Stops the server at once, as a crash does.
    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = Pid::from_child(&server);
            kill_process(pid, Signal::QUIT).unwrap();
            server.wait().unwrap();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, database: &str) -> tokio_postgres::Config {
        url(self.port, database)
    }

    pub(crate) async fn connect(&self, database: &str) -> Option<Client> {
        let (client, connection) = self.url(database).connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// One number from the database `shop`.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        self.connect("shop").await.unwrap().query_one(query, &[]).await.unwrap().get(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

pub(crate) fn url(port: u16, database: &str) -> tokio_postgres::Config {
    format!("postgres://postgres@127.0.0.1:{port}/{database}").parse().unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for a fact.
pub(crate) async fn eventually(fact: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < until, "waited in vain: {fact}");
        sleep(Duration::from_millis(25)).await;
    }
}

/// A program of PostgreSQL; as root it runs as the user `postgres`, because the server refuses root.
fn program(name: &str) -> Command {
    let path = bin_dir().map_or_else(|| PathBuf::from(name), |dir| dir.join(name));
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir("/");
    command
}

/// `PG_BIN`, or where Debian puts the newest version, or wherever `PATH` leads.
fn bin_dir() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("PG_BIN") {
        return Some(dir.into());
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()))
        .map(|path| path.join("bin"))
}
