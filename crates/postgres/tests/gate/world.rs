//! A real PostgreSQL, gates in front of it, and a lease clock that the test turns by hand.
#![allow(clippy::unwrap_used, reason = "a world that cannot be set up fails the test")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isles_model::{
    Because, Epoch, EpochSecret, Moment, Plan, RegionName, Writes,
    metric::{Count, Metric},
};
use isles_postgres::gate::{self, Account, Acknowledge, GateConfig, GateLimits};
use tokio::{net::TcpListener, sync::watch};
use tokio_postgres::{Client, Config, Connection, Error, NoTls, Socket, tls::NoTlsStream};
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What the agents of this test share.
pub(crate) const SECRET: &str = "shared by the agents of this test";
pub(crate) const PASSWORD: &str = "only for this test";

/// One throw-away PostgreSQL that listens on a Unix socket and nowhere else.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    owner: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let owner = unprivileged();
        if let Some((user, group)) = owner {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let mut cluster = Self { directory, owner, server: None };
        let made = cluster
            .tool("initdb")
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(cluster.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let access = "local all postgres trust\nlocal all all scram-sha-256\n";
        std::fs::write(cluster.data().join("pg_hba.conf"), access).unwrap();
        cluster.run().await;
        let admin = cluster.admin().await;
        let roles = format!(
            "CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}';
             CREATE TABLE t (n bigint); GRANT ALL ON t TO app; GRANT SELECT ON t TO reader"
        );
        admin.batch_execute(&roles).await.unwrap();
        cluster.expect(1).await;
        cluster
    }

    /// Sets the credential of an epoch, as the fence does when it opens.
    pub(crate) async fn expect(&self, epoch: u64) {
        let password = EpochSecret::new(SECRET).app_password(Epoch(epoch));
        let admin = self.admin().await;
        admin.batch_execute(&format!("ALTER ROLE app PASSWORD '{password}'")).await.unwrap();
    }

    /// Ends every session of the app's role, as the fence does.
    pub(crate) async fn end_sessions(&self) {
        let admin = self.admin().await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        admin.execute(end, &[]).await.unwrap();
    }

    /// A session that goes past the gates, as whoever knows this password of the app's role.
    pub(crate) async fn past_the_gates(&self, password: &str) -> Result<Client, Error> {
        let mut config = Config::new();
        config.host_path(self.directory.path()).user("app").password(password).dbname("postgres");
        config.connect(NoTls).await.map(attend)
    }

    pub(crate) async fn run(&mut self) {
        let mut server = self.tool("postgres");
        server.arg("-D").arg(self.data()).args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        server.arg("-c").arg(format!("unix_socket_directories={}", self.directory.path().display()));
        self.server = Some(server.spawn().unwrap());
        self.admin().await;
    }

    /// Stops it as a crash would.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = rustix::process::Pid::from_child(&server);
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
            server.wait().unwrap();
        }
    }

    /// A superuser's session that goes past the gates.
    pub(crate) async fn admin(&self) -> Client {
        let mut config = Config::new();
        config.host_path(self.directory.path()).user("postgres").dbname("postgres");
        until("the database answers", async || config.connect(NoTls).await.ok().map(attend)).await
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(tools().join(name));
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The newest PostgreSQL that Debian's packages installed, or the one on the path.
pub(crate) fn tools() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    newest.map_or_else(PathBuf::new, |version| {
        Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin")
    })
}

/// PostgreSQL refuses to run as root: then the numbers of user `postgres`.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("PostgreSQL's packages make the user");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().unwrap());
    Some((numbers.next().unwrap(), numbers.next().unwrap()))
}

/// The three gates of one region.
pub(crate) struct Region {
    pub(crate) write: SocketAddr,
    pub(crate) read: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) plans: watch::Sender<Plan>,
    pub(crate) acknowledge: watch::Sender<Acknowledge>,
    pub(crate) meter: Arc<Counted>,
    now_ms: Arc<AtomicU64>,
    stop: CancellationToken,
}

/// What differs between the gates of these tests.
pub(crate) struct Terms {
    pub(crate) hold: Duration,
    pub(crate) limits: GateLimits,
    pub(crate) peers: BTreeMap<RegionName, SocketAddr>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { hold: PATIENCE, limits: GateLimits::default(), peers: BTreeMap::new() }
    }
}

impl Region {
    pub(crate) async fn start(socket: PathBuf, terms: Terms) -> Self {
        let (write, read, peer) = (listener().await, listener().await, listener().await);
        let addresses = [&write, &read, &peer].map(|listener| listener.local_addr().unwrap());
        let (plans, receiver) = watch::channel(Plan::starting());
        let (acknowledge, acknowledged) = watch::channel(Acknowledge::Open);
        let now_ms = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now_ms);
        let stop = CancellationToken::new();
        let meter = Arc::new(Counted::default());
        let config = GateConfig {
            region: name("here"),
            write,
            read,
            peer,
            socket,
            peers: terms.peers,
            app: Account { name: "app".into(), password: PASSWORD.into() },
            secret: EpochSecret::new(SECRET),
            reader: Account { name: "reader".into(), password: PASSWORD.into() },
            acknowledge: acknowledged,
            coverage: isles_postgres::Coverage::new(),
            hold: terms.hold,
            limits: terms.limits,
        };
        let clock = Arc::new(move || Moment(Duration::from_millis(clock.load(Ordering::SeqCst))));
        tokio::spawn(gate::run(config, receiver, clock, meter.clone(), stop.clone()));
        Self {
            write: addresses[0],
            read: addresses[1],
            peer: addresses[2],
            plans,
            acknowledge,
            meter,
            now_ms,
            stop,
        }
    }

    pub(crate) fn turn_clock_to(&self, ms: u64) {
        self.now_ms.store(ms, Ordering::SeqCst);
    }

    pub(crate) fn write_here(&self, epoch: u64, until_ms: u64) {
        let epoch = Epoch(epoch);
        self.plan(epoch, Writes::Here { epoch, until: Moment(Duration::from_millis(until_ms)) });
    }

    pub(crate) fn write_at(&self, region: &str, epoch: u64) {
        let epoch = Epoch(epoch);
        self.plan(epoch, Writes::At { region: name(region), epoch });
    }

    pub(crate) fn write_nowhere(&self, epoch: u64) {
        self.plan(Epoch(epoch), Writes::Nowhere { because: Because::WaitingForLeaseEnd });
    }

    /// Waits until so many sessions are open at the write gate.
    pub(crate) async fn open(&self, sessions: f64) {
        let count = async || (self.meter.value(Metric::GateConnections, "write") == sessions).then_some(());
        until("the write gate counts as many sessions", count).await;
    }

    /// Waits until at least so many sessions ended for this reason.
    pub(crate) async fn closed(&self, reason: &str, sessions: f64) {
        let count = async || (self.meter.value(Metric::GateClosed, reason) >= sessions).then_some(());
        until(reason, count).await;
    }

    fn plan(&self, epoch: Epoch, writes: Writes) {
        self.plans.send_replace(Plan { epoch, writes, ..Plan::starting() });
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) fn name(region: &str) -> RegionName {
    region.parse().unwrap()
}

/// A client's settings for a gate.
pub(crate) fn app(gate: SocketAddr) -> Config {
    let mut config = Config::new();
    config.host(gate.ip().to_string()).port(gate.port()).user("app").password(PASSWORD).dbname("postgres");
    config
}

/// A reading client's settings for a gate.
pub(crate) fn reader(gate: SocketAddr) -> Config {
    let mut config = app(gate);
    config.user("reader");
    config
}

/// A client whose connection is looked after.
pub(crate) fn attend((client, connection): (Client, Connection<Socket, NoTlsStream>)) -> Client {
    tokio::spawn(connection);
    client
}

pub(crate) async fn connect(gate: SocketAddr) -> Client {
    attend(app(gate).connect(NoTls).await.unwrap())
}

/// The SQLSTATE with which a gate or a database said no.
pub(crate) fn code(error: &Error) -> String {
    error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned())
}

/// Waits for a fact.
pub(crate) async fn until<T>(fact: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {fact}"))
}

/// Remembers counts by metric and labels.
#[derive(Default)]
pub(crate) struct Counted(std::sync::Mutex<BTreeMap<(&'static str, String), f64>>);

impl Counted {
    pub(crate) fn value(&self, metric: Metric, label: &str) -> f64 {
        self.0.lock().unwrap().get(&(metric.name(), label.to_owned())).copied().unwrap_or(0.0)
    }
}

impl Count for Counted {
    fn add(&self, metric: Metric, labels: &[&str], amount: u64) {
        *self.0.lock().unwrap().entry((metric.name(), labels.join(","))).or_default() += amount as f64;
    }

    fn set(&self, metric: Metric, labels: &[&str], value: f64) {
        self.0.lock().unwrap().insert((metric.name(), labels.join(",")), value);
    }

    fn seconds(&self, _: Metric, _: &[&str], _: f64) {}
}
