//! Opens sessions: with the region's own database over its Unix socket, with a peer's over TCP.

use std::{future::poll_fn, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use isles_model::{RegionName, config::DatabaseConfig};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use crate::error::{DatabaseError, Doing, within};

/// How long opening a session with the own database may take.
const CONNECT_OWN_MAX: Duration = Duration::from_secs(2);
/// How long opening a session with a peer's database may take: six round trips over the slowest planned link.
const CONNECT_PEER_MAX: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before a peer's session counts as lost.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Name of the database every cluster has; the app's own may be missing while it is rebuilt.
pub(crate) const MAINTENANCE_DATABASE: &str = "postgres";

/// What a session is for; shows as `application_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Observes and reports.
    Probe,
    /// Opens and shuts the door for the app's role.
    Fence,
    /// Brings the database to what was ordered.
    Reconcile,
    /// Reads a writer's log position.
    Measure,
    /// Lets commits wait for other regions.
    Standbys,
    /// Tries whether anything can be written.
    Room,
    /// Asks which tables there are and which of them a standby has.
    Coverage,
}

impl Purpose {
    /// As shown in `pg_stat_activity.application_name`.
    pub(crate) fn application_name(self) -> &'static str {
        match self {
            Self::Probe => "isles probe",
            Self::Fence => "isles fence",
            Self::Reconcile => "isles reconcile",
            Self::Measure => "isles measure",
            Self::Standbys => "isles standbys",
            Self::Room => "isles room",
            Self::Coverage => "isles coverage",
        }
    }
}

/// One open session; dropping it closes the connection.
pub(crate) struct Link {
    client: Client,
    driver: JoinHandle<()>,
    rung: Arc<Notify>,
}

impl Deref for Link {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// The app's database, as the superuser, over the socket.
    pub(crate) async fn own(config: &DatabaseConfig, purpose: Purpose) -> Result<Self, DatabaseError> {
        Self::own_database(config, &config.name, purpose).await
    }

    /// The cluster's maintenance database, as the superuser, over the socket.
    pub(crate) async fn cluster(config: &DatabaseConfig, purpose: Purpose) -> Result<Self, DatabaseError> {
        Self::own_database(config, MAINTENANCE_DATABASE, purpose).await
    }

    async fn own_database(
        config: &DatabaseConfig,
        database: &str,
        purpose: Purpose,
    ) -> Result<Self, DatabaseError> {
        let mut target = Config::new();
        target
            .host_path(&config.socket_dir)
            .port(config.port)
            .user(&config.admin_user)
            .dbname(database)
            .application_name(purpose.application_name())
            // Because statements of this session may name roles and definitions, none of them is logged by the
            // server, and a search path of the user's cannot change what they mean. What Isles does must not wait for
            // a region that commits of the app may have to wait for.
            .options("-c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1 -c log_error_verbosity=terse -c search_path=pg_catalog -c client_min_messages=warning -c synchronous_commit=local");
        within(CONNECT_OWN_MAX, "connecting to the own database", Self::open(target, "own database")).await
    }

    /// A peer's copy of the app's database, as the replication role, over TCP.
    pub(crate) async fn peer(
        config: &DatabaseConfig,
        region: &RegionName,
        address: SocketAddr,
        purpose: Purpose,
    ) -> Result<Self, DatabaseError> {
        let mut target = Config::new();
        target
            .host(address.ip().to_string())
            .port(address.port())
            .user(&config.replication_user)
            .password(&config.replication_password)
            .dbname(&config.name)
            .application_name(purpose.application_name())
            .tcp_user_timeout(PEER_SILENCE_MAX)
            .keepalives_idle(PEER_SILENCE_MAX)
            .options("-c search_path=pg_catalog -c client_min_messages=warning");
        within(CONNECT_PEER_MAX, "connecting to a peer's database", Self::open(target, region.as_str())).await
    }

    async fn open(target: Config, whom: &str) -> Result<Self, DatabaseError> {
        let (client, connection) = target
            .connect(NoTls)
            .await
            .map_err(|source| DatabaseError::Connect { whom: whom.to_owned(), source })?;
        let rung = Arc::new(Notify::new());
        let bell = Arc::clone(&rung);
        // An error here also ends every waiting query, which is where it is handled.
        let driver = tokio::spawn(async move {
            let mut connection = connection;
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    bell.notify_one();
                }
            }
        });
        Ok(Self { client, driver, rung })
    }

    /// Waits for a notification (PostgreSQL, `NOTIFY`) on what the session listens to, if none has come since this
    /// ended last.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Completes when the connection has ended.
    pub(crate) async fn closed(&mut self) {
        // The driver ends with the connection, however that ends.
        let _ = (&mut self.driver).await;
    }

    /// Runs statements without parameters in one round trip and one implicit transaction.
    pub(crate) async fn batch(&self, doing: &'static str, sql: &str) -> Result<(), DatabaseError> {
        self.client.batch_execute(sql).await.doing(doing)
    }
}

/// The connection string that a subscription keeps. Holds the replication password: never log it.
pub(crate) fn subscription_conninfo(config: &DatabaseConfig, address: SocketAddr) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let silence = PEER_SILENCE_MAX.as_secs();
    format!(
        "host={} port={} dbname={} user={} password={} connect_timeout={} \
         keepalives_idle={silence} tcp_user_timeout={}",
        quoted(&address.ip().to_string()),
        address.port(),
        quoted(&config.name),
        quoted(&config.replication_user),
        quoted(&config.replication_password),
        CONNECT_PEER_MAX.as_secs(),
        PEER_SILENCE_MAX.as_millis(),
    )
}

/// An SQL identifier, quoted.
pub(crate) fn ident(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

/// An SQL string, quoted.
pub(crate) fn literal(text: &str) -> String {
    // The driver's function puts a blank before an `E'…'` string.
    postgres_protocol::escape::escape_literal(text)
}
