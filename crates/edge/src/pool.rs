//! Connections to one app instance or one peer: opened when needed, kept a short while, never more than so many.
//!
//! A connection carries one request at a time (HTTP/1.1 without pipelining); the one used last is used next, so that
//! the others grow old and close.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{body::Outgoing, head::HEAD_BYTES_MAX};

/// Requests in flight to one upstream; more wait.
const IN_FLIGHT_MAX: usize = 1024;
/// Requests waiting for one upstream; more are answered 503.
const WAITING_MAX: usize = 1024;
/// How long a request waits for its turn at an upstream.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Idle connections kept to one upstream.
const IDLE_MAX: usize = 128;
/// How long a connection may take after an answer to be ready for the next request.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);
/// Most header fields in a response.
const RESPONSE_HEADERS_MAX: usize = 200;

/// Why no connection could be had. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoConnection {
    #[error("connecting failed")]
    Connect(#[source] io::Error),
    #[error("connecting took too long")]
    Silent,
    #[error("too many requests wait for it")]
    Busy,
}

/// Which idle connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any: the request may be repeated.
    Any,
    /// A young one: it may not, and the younger, the less likely that the other side is closing it just now.
    Young,
    /// None: the point is to see whether a connection can be made.
    None,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// One upstream and the connections to it.
pub(crate) struct Upstream {
    address: SocketAddr,
    /// How long an idle connection is kept: shorter than the other side keeps it.
    idle_max: Duration,
    idle: Mutex<Vec<Idle>>,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Connects to nothing yet.
    pub(crate) fn new(address: SocketAddr, idle_max: Duration) -> Arc<Self> {
        Arc::new(Self {
            address,
            idle_max,
            idle: Mutex::default(),
            slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            waiting: AtomicUsize::new(0),
        })
    }

    /// A connection for one request.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        reuse: Reuse,
        connect_within: Duration,
    ) -> Result<Lease, NoConnection> {
        let slot = self.slot().await?;
        if let Some(sender) = self.pop(reuse) {
            return Ok(Lease { sender, upstream: self.clone(), slot, is_new: false });
        }
        let sender = match timeout(connect_within, self.connect()).await {
            Ok(connected) => connected.map_err(NoConnection::Connect)?,
            Err(_) => return Err(NoConnection::Silent),
        };
        Ok(Lease { sender, upstream: self.clone(), slot, is_new: true })
    }

    /// Closes the connections that have been idle for too long.
    pub(crate) fn prune(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < self.idle_max && !kept.sender.is_closed());
    }

    /// Closes all idle connections: the upstream is thought to be gone.
    pub(crate) fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn slot(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, NoConnection> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let _place = Waiting::enter(&self.waiting).ok_or(NoConnection::Busy)?;
        match timeout(WAIT_MAX, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(NoConnection::Busy),
        }
    }

    fn pop(&self, reuse: Reuse) -> Option<SendRequest<Outgoing>> {
        let age_max = match reuse {
            Reuse::Any => self.idle_max,
            Reuse::Young => self.idle_max / 2,
            Reuse::None => return None,
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(kept) = idle.pop() {
            if kept.since.elapsed() >= age_max {
                // Because it was the youngest. An older one may still do for a request that can be repeated.
                idle.push(kept);
                return None;
            }
            if kept.sender.is_ready() {
                return Some(kept.sender);
            }
        }
        None
    }

    fn push(&self, sender: SendRequest<Outgoing>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { sender, since: Instant::now() });
    }

    async fn connect(&self) -> io::Result<SendRequest<Outgoing>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(RESPONSE_HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX * 4)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        // Its errors reach whoever waits for an answer on it.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        (before < WAITING_MAX).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use. Dropped, it is closed; [`Lease::give_back`] keeps it.
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<Outgoing>,
    upstream: Arc<Upstream>,
    slot: OwnedSemaphorePermit,
    is_new: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl Lease {
    /// It has carried nothing yet.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The answer has come to its end: the connection may serve again, as soon as hyper is done with it.
    pub(crate) fn give_back(self) {
        let Self { mut sender, upstream, slot, .. } = self;
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            upstream.push(sender);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Ok(Ok(())) = timeout(SETTLE_TIME_MAX, sender.ready()).await {
                upstream.push(sender);
            }
            drop(slot);
        });
    }
}
