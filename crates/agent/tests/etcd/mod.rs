//! Real etcd members for tests: started on free ports, killed and removed at the end.

#![allow(dead_code)] // Because each test binary uses its own part of this.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use isles_agent::lease::Etcd;
use isles_model::config::{EtcdConfig, TlsFiles};

/// Long enough for a loaded machine; a passing test does not wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One real etcd member, killed and removed at the end of the test.
pub(crate) struct Member {
    process: Child,
    pub(crate) url: String,
    tls: Option<TlsFiles>,
    _data: tempfile::TempDir,
}

impl Member {
    /// A cluster of one.
    pub(crate) async fn start() -> Self {
        Self::start_with("http", &[], None).await
    }

    /// A cluster of one with flags of its own.
    pub(crate) async fn start_with(scheme: &str, more: &[&str], tls: Option<TlsFiles>) -> Self {
        let peer = format!("http://{}", free());
        let member = Self::spawn("one", scheme, &peer, &format!("one={peer}"), more, tls);
        member.answers().await;
        member
    }

    /// A cluster with a member of each name.
    pub(crate) async fn start_cluster(names: &[&str]) -> Vec<Self> {
        let peers: Vec<String> = names.iter().map(|_| format!("http://{}", free())).collect();
        let all: Vec<String> =
            names.iter().zip(&peers).map(|(name, peer)| format!("{name}={peer}")).collect();
        let spawn =
            |(name, peer): (&&str, &String)| Self::spawn(name, "http", peer, &all.join(","), &[], None);
        let members: Vec<Self> = names.iter().zip(&peers).map(spawn).collect();
        for member in &members {
            member.answers().await;
        }
        members
    }

    fn spawn(name: &str, scheme: &str, peer: &str, all: &str, more: &[&str], tls: Option<TlsFiles>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let url = format!("{scheme}://{}", free());
        let process = Command::new("etcd")
            .args(["--data-dir", data.path().to_str().unwrap(), "--name", name, "--log-level", "error"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", all])
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed by `make test`");
        Self { process, url, tls, _data: data }
    }

    async fn answers(&self) {
        let store = self.store();
        let answered = async {
            while store.read().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("etcd answers");
    }

    /// A client of this member alone.
    pub(crate) fn store(&self) -> Etcd {
        store(std::slice::from_ref(&self.url), self.tls.clone())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client of these members, the first preferred.
pub(crate) fn store(endpoints: &[String], tls: Option<TlsFiles>) -> Etcd {
    Etcd::new(&EtcdConfig { endpoints: endpoints.to_vec(), prefix: "/isles/test".into(), tls }).unwrap()
}

fn free() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
