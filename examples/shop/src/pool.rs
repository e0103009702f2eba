//! A few connections to one database, each used by one request at a time.
//!
//! A connection comes back only when its user says that it is in order; otherwise it is closed. So a request that
//! was cut short, or met a server that is going away, can never hand its trouble to the next one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{Client, Config, NoTls};

use crate::Failure;

/// Connections to one database. More would only queue inside PostgreSQL.
const CONNECTIONS_MAX: usize = 6;
/// How long a request waits for a connection to come free, or to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the kernel may wait for an acknowledgement before it gives a connection up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// A bounded set of connections to one database.
pub struct Pool {
    url: Config,
    idle: Mutex<Vec<Link>>,
    permits: Arc<Semaphore>,
    answered: Mutex<Option<Instant>>,
}

/// One connection; closed when dropped.
struct Link {
    client: Client,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection on loan. Dropped without [`Loan::give_back`], it is closed.
pub struct Loan<'p> {
    pool: &'p Pool,
    link: Link,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Connects to nothing yet.
    pub fn new(url: &Config) -> Self {
        let mut url = url.clone();
        url.application_name("shop")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(UNACKNOWLEDGED_MAX)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        Self {
            url,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            answered: Mutex::default(),
        }
    }

    /// Lends an idle connection or makes one.
    pub async fn lend(&self) -> Result<Loan<'_>, Failure> {
        let permit = timeout(CONNECT_TIMEOUT, self.permits.clone().acquire_owned())
            .await
            .map_err(|_| Failure::Unavailable)?
            .expect("the semaphore lives as long as the pool and is never closed");
        let link = match self.take_idle() {
            Some(link) => link,
            None => timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(|_| Failure::Unavailable)??,
        };
        Ok(Loan { pool: self, link, _permit: permit })
    }

    /// Closes every idle connection: when one was cut, the others most likely were too.
    pub fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How long ago the database last answered; `None` if it never did.
    pub fn silent_for(&self) -> Option<Duration> {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.map(|at| at.elapsed())
    }

    fn take_idle(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|link| !link.client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let (client, connection) = self.url.connect(NoTls).await?;
        // The client reports every fault of the connection to whoever waits on it, so the driver need not.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Link { client, driver })
    }
}

impl Loan<'_> {
    /// The connection.
    pub fn client(&mut self) -> &mut Client {
        &mut self.link.client
    }

    /// Returns a connection that answered and has no transaction open.
    pub fn give_back(self) {
        *self.pool.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if !self.link.client.is_closed() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.link);
        }
    }
}
