//! A database session with deadlines of its own: a silent address costs what the caller is willing to wait, no more.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, task::AbortHandle};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, error::SqlState};

/// Why a session cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The server refused, or broke off.
    #[error("the database refused or broke off")]
    Database(#[source] tokio_postgres::Error),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl SessionError {
    /// Whether the session is well and its database only takes no writes (a standby).
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Self::Database(error) => error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
            Self::Connect(_) | Self::Late(_) => false,
        }
    }
}

/// Where a session leads and who comes in.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    /// `None`: the server trusts this user.
    pub(crate) password: Option<String>,
    pub(crate) database: String,
}

/// An open session; dropping it closes it.
pub(crate) struct Session {
    client: Client,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Opens one.
    pub(crate) async fn open(login: &Login, within: Duration) -> Result<Self, SessionError> {
        let opened = tokio::time::timeout(within, connect(login)).await;
        opened.unwrap_or(Err(SessionError::Late(within)))
    }

    /// Sends statements in one message and waits for all of them.
    pub(crate) async fn send(
        &self,
        sql: &str,
        within: Duration,
    ) -> Result<Vec<SimpleQueryMessage>, SessionError> {
        let answered = tokio::time::timeout(within, self.client.simple_query(sql)).await;
        answered.map_err(|_| SessionError::Late(within))?.map_err(SessionError::Database)
    }

    /// The rows of the answer, as text; an empty text stands for NULL.
    pub(crate) async fn rows(&self, sql: &str, within: Duration) -> Result<Vec<Vec<String>>, SessionError> {
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or("").to_owned()).collect())
            }
            _ => None,
        };
        Ok(self.send(sql, within).await?.into_iter().filter_map(row).collect())
    }
}

/// Opens a session, asks one question, and closes it.
pub(crate) async fn ask(
    login: &Login,
    sql: &str,
    within: Duration,
) -> Result<Vec<Vec<String>>, SessionError> {
    Session::open(login, within).await?.rows(sql, within).await
}

async fn connect(login: &Login) -> Result<Session, SessionError> {
    let mut config = Config::new();
    config.user(&login.user).dbname(&login.database).application_name("failover bench");
    if let Some(password) = &login.password {
        config.password(password);
    }
    let stream = TcpStream::connect(login.address).await.map_err(SessionError::Connect)?;
    stream.set_nodelay(true).map_err(SessionError::Connect)?;
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(SessionError::Database)?;
    // How the connection ends is seen by whoever uses the client.
    let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Session { client, driver })
}
