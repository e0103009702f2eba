//! A database session with deadlines of its own, so that a silent address costs a client what it is willing to wait
//! and no more.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream},
    task::AbortHandle,
};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Why a session cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The server refused, or broke off.
    #[error("the database refused or broke off")]
    Database(#[source] tokio_postgres::Error),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The answer has not the shape asked for.
    #[error("the database answered something else")]
    Shape,
}

/// Where a session leads.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Through a gate.
    Gate(SocketAddr),
    /// Past every gate: the Unix socket `.s.PGSQL.PORT` in a directory.
    Socket(PathBuf, u16),
}

/// Who comes in, and where.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) way: Way,
    pub(super) user: String,
    /// `None`: the server trusts this user there.
    pub(super) password: Option<String>,
    pub(super) database: String,
}

/// An open session; dropping it closes it.
pub(super) struct Session {
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
    pub(super) async fn open(login: &Login, within: Duration) -> Result<Self, SessionError> {
        let opened = tokio::time::timeout(within, connect(login)).await;
        opened.unwrap_or(Err(SessionError::Late(within)))
    }

    /// Whether it can still be used.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends statements in one message and waits for all of them: one round trip.
    pub(super) async fn send(
        &self,
        sql: &str,
        within: Duration,
    ) -> Result<Vec<SimpleQueryMessage>, SessionError> {
        let answered = tokio::time::timeout(within, self.client.simple_query(sql)).await;
        answered.map_err(|_| SessionError::Late(within))?.map_err(SessionError::Database)
    }

    /// The first column of every row, as text.
    pub(super) async fn column(&self, sql: &str, within: Duration) -> Result<Vec<String>, SessionError> {
        let mut column = Vec::new();
        for message in self.send(sql, within).await? {
            if let SimpleQueryMessage::Row(row) = message {
                column.push(row.try_get(0).ok().flatten().ok_or(SessionError::Shape)?.to_owned());
            }
        }
        Ok(column)
    }
}

async fn connect(login: &Login) -> Result<Session, SessionError> {
    let mut config = Config::new();
    config.user(&login.user).dbname(&login.database).application_name("isles drill");
    if let Some(password) = &login.password {
        config.password(password);
    }
    match &login.way {
        Way::Gate(address) => {
            let stream = TcpStream::connect(address).await.map_err(SessionError::Connect)?;
            stream.set_nodelay(true).map_err(SessionError::Connect)?;
            start(&config, stream).await
        }
        Way::Socket(dir, port) => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            start(&config, UnixStream::connect(path).await.map_err(SessionError::Connect)?).await
        }
    }
}

async fn start<S>(config: &Config, stream: S) -> Result<Session, SessionError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(SessionError::Database)?;
    // How the connection ends is seen by whoever uses the client.
    let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Session { client, driver })
}
