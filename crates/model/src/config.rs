//! Where one agent finds its world: addresses, credentials, directories. The lab writes it, production writes it,
//! the agent reads it; nothing else tells the two apart.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{RegionName, Topology};

/// The whole configuration of one region's agent (a JSON file, mode 0600: it holds passwords).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The region it is the agent of.
    pub region: RegionName,
    /// The checked spec.
    pub topology: Topology,
    /// Where it keeps its journal (`journal.jsonl`) and ledger (`ledger.jsonl`). It creates the directory.
    pub data_dir: PathBuf,
    /// What it listens on.
    pub listen: Listen,
    /// The lease store.
    pub etcd: EtcdConfig,
    /// This region's PostgreSQL.
    pub database: DatabaseConfig,
    /// This region's app instances.
    pub instances: Vec<SocketAddr>,
    /// How the other regions are reached from here (in the lab: through the WAN relay).
    pub peers: BTreeMap<RegionName, Peer>,
    /// Shared by all agents of one application; proves to a peer that a request comes from an agent.
    pub peer_secret: String,
}

/// What an agent listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// HTTP for users and for other regions' edges.
    pub edge: SocketAddr,
    /// PostgreSQL for the app's `DATABASE_URL`: leads to the writer, wherever it is.
    pub write_gate: SocketAddr,
    /// PostgreSQL for the app's `DATABASE_READ_URL`: leads to the local database.
    pub read_gate: SocketAddr,
    /// PostgreSQL for other regions' write gates: leads to the local database, only while it is the writer.
    pub peer_gate: SocketAddr,
    /// HTTP for peers' probes, `isles status` and Prometheus.
    pub control: SocketAddr,
}

/// The lease store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// Client URLs, this region's own member first: `http://…` or `https://…`.
    pub endpoints: Vec<String>,
    /// The key is `<prefix>/writer`.
    pub prefix: String,
    /// TLS files (PEM), where the endpoints are https.
    pub tls: Option<TlsFiles>,
}

impl DatabaseFiles {
    /// What [`Self::admitted`] holds while nobody may log in as the app: a name that no role has, because an included
    /// file without any name would be no list at all.
    pub const NOBODY: &str = "\"isles: nobody\"\n";
}

/// PEM files for a TLS client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The authorities to trust.
    pub ca: PathBuf,
    /// The own certificate chain, where the server asks for one.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// This region's PostgreSQL and its roles.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The directory of its Unix socket (mode 0700). No one but the agent goes in there.
    pub socket_dir: PathBuf,
    /// The port: the suffix of the socket, and the TCP port that takes only [`Self::replication_user`].
    pub port: u16,
    /// The application's database.
    pub name: String,
    /// A superuser; reaches the database through the socket, without a password.
    pub admin_user: String,
    /// Owns the application's tables; may log in only in the region that may write.
    pub app_user: String,
    /// Its password.
    pub app_password: String,
    /// Reads everything, writes nothing, everywhere.
    pub read_user: String,
    /// Its password.
    pub read_password: String,
    /// Streams and copies between regions over TCP.
    pub replication_user: String,
    /// Its password.
    pub replication_password: String,
    /// The `pg_dump` that goes with the server.
    pub pg_dump: PathBuf,
    /// Its files, where the agent can read them: it then knows what a database that crashed had committed, and can
    /// end one that outlives its right. `None`: on another machine, or another user's.
    #[serde(default)]
    pub files: Option<DatabaseFiles>,
}

/// The files of a database on the agent's own machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseFiles {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The `pg_waldump` that goes with the server.
    pub pg_waldump: PathBuf,
    /// Names who may log in as the app: `pg_hba.conf` includes it as `@FILE`. The agent writes it.
    pub admitted: PathBuf,
}

/// How another region is reached from this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its agent's control port.
    pub control: SocketAddr,
    /// Its edge.
    pub edge: SocketAddr,
    /// Its peer gate.
    pub peer_gate: SocketAddr,
    /// Its PostgreSQL, for replication.
    pub database: SocketAddr,
    /// The round trip expected (planning table); the measured one replaces it.
    pub rtt: std::time::Duration,
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("region", &self.region)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("socket_dir", &self.socket_dir)
            .field("port", &self.port)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
