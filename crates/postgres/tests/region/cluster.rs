//! A real PostgreSQL cluster of a test's own: made from one initdb, on a free port, stopped and removed at the end.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use isles_model::config::{DatabaseConfig, DatabaseFiles};

const BIN: &str = "/usr/lib/postgresql/15/bin";
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_permissions = 0700
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
max_logical_replication_workers = 12
max_sync_workers_per_subscription = 4
max_worker_processes = 24
max_connections = 60
max_slot_wal_keep_size = 256MB
wal_retrieve_retry_interval = 200ms
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
shared_buffers = 16MB
autovacuum_naptime = 60s
log_min_messages = warning
";

/// The account that may run PostgreSQL when the tests run as root, which PostgreSQL refuses.
fn account() -> Option<(u32, u32)> {
    static ACCOUNT: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *ACCOUNT.get_or_init(|| {
        let number = |flag: &str| -> Option<u32> {
            let out = Command::new("id").args([flag, "postgres"]).output().ok()?;
            String::from_utf8(out.stdout).ok()?.trim().parse().ok()
        };
        let me = Command::new("id").arg("-u").output().ok()?;
        if me.stdout != b"0\n" {
            return None;
        }
        Some((number("-u")?, number("-g")?))
    })
}

fn as_account(program: &str) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = account() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn give_away(path: &Path) {
    if let Some((uid, gid)) = account() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// A data directory made once and kept for the next run; each cluster starts from a copy of it.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let kept = std::env::temp_dir().join("isles-test-initdb-15");
        if !kept.exists() {
            let dir = tempfile::Builder::new().prefix("isles-initdb").tempdir().unwrap();
            give_away(dir.path());
            let done = as_account(&format!("{BIN}/initdb"))
                .args(["-U", "isles", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-A", "trust", "-D"])
                .arg(dir.path().join("data"))
                .output()
                .unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            // Another test may have been faster: then its directory serves.
            if std::fs::rename(dir.path(), &kept).is_ok() {
                let _ = dir.keep();
            }
        }
        kept
    })
}

pub struct Cluster {
    dir: tempfile::TempDir,
    pub port: u16,
    server: Option<Child>,
}

impl Cluster {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("isl").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        give_away(dir.path());
        let copied = as_account("cp")
            .arg("-r")
            .arg(template().join("data"))
            .arg(dir.path().join("data"))
            .status()
            .unwrap();
        assert!(copied.success());
        let admitted = dir.path().join("admitted");
        std::fs::write(&admitted, DatabaseFiles::NOBODY).unwrap();
        let hba = format!(
            "local all isles trust\nlocal shop reader scram-sha-256\nlocal shop @{} scram-sha-256\n\
             host shop streamer 127.0.0.1/32 scram-sha-256\n",
            admitted.display()
        );
        std::fs::write(dir.path().join("data/pg_hba.conf"), hba).unwrap();
        let mut cluster = Self { dir, port: 0, server: None };
        for _ in 0..5 {
            cluster.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            cluster.launch();
            if cluster.is_ready() {
                return cluster;
            }
            cluster.kill();
        }
        panic!("PostgreSQL did not start: {}", cluster.log());
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn launch(&mut self) {
        let settings = format!("{SETTINGS}\nport = {}\n", self.port);
        std::fs::write(self.data().join("postgresql.auto.conf"), settings).unwrap();
        let log =
            std::fs::File::options().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let server = as_account(&format!("{BIN}/postgres"))
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
    }

    pub fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if self.server.as_mut().is_none_or(|server| server.try_wait().unwrap().is_some()) {
                return false;
            }
            let socket = self.dir.path().to_str().unwrap().to_owned();
            let ready = as_account(&format!("{BIN}/pg_isready"))
                .args(["-q", "-h", &socket, "-p", &self.port.to_string()])
                .status()
                .unwrap();
            if ready.success() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// SIGKILL to the postmaster; its children notice and end.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// What `pg_dump` says of the app's schema.
    pub fn schema(&self) -> String {
        let done = as_account(&format!("{BIN}/pg_dump"))
            .args([
                "--schema-only",
                "--no-publications",
                "--no-subscriptions",
                "-N",
                "isles",
                "-U",
                "isles",
                "-h",
            ])
            .arg(self.dir.path())
            .args(["-p", &self.port.to_string(), "shop"])
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn config(&self) -> DatabaseConfig {
        DatabaseConfig {
            socket_dir: self.dir.path().to_owned(),
            port: self.port,
            name: "shop".into(),
            admin_user: "isles".into(),
            app_user: "app".into(),
            app_password: "app's \\ secret".into(),
            read_user: "reader".into(),
            read_password: "reader secret".into(),
            replication_user: "streamer".into(),
            replication_password: "stream'er \\ secret".into(),
            pg_dump: format!("{BIN}/pg_dump").into(),
            files: Some(DatabaseFiles {
                data_dir: self.data(),
                pg_waldump: format!("{BIN}/pg_waldump").into(),
                admitted: self.file("admitted"),
            }),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}
