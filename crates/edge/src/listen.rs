//! Takes connections, bounded in number, survives a shortage of file descriptors, and stops without cutting short what
//! is under way.

use std::{
    collections::BTreeMap, convert::Infallible, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc,
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use isles_model::{Meter, Plan, RegionName, ids::Clock, topology::WriteRouting};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    client::{ClientStream, Protocol},
    edge::{Edge, Parts},
    head::{HEAD_BYTES_MAX, HEADERS_MAX},
    serve::serve,
};

/// Client connections at once; more wait in the kernel's backlog.
const CLIENTS_MAX: usize = 8192;
/// How long a connection may be idle between two requests.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);
/// How long requests under way may take to finish once the edge is told to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long accepting pauses when the system has no file descriptors or memory left; doubles up to the second.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Requests at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 128;
/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// How often idle upstream connections are looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// What one region's edge needs to know. Who may serve and write comes with the plans.
#[derive(Debug)]
pub struct EdgeConfig {
    /// The region.
    pub region: RegionName,
    /// Where users and other regions' edges connect. Bound by the caller, which can say best what is in the way.
    pub listener: TcpListener,
    /// This region's app instances, in the order in which plans number them.
    pub instances: Vec<SocketAddr>,
    /// The edges of the other regions, as reached from here.
    pub peers: BTreeMap<RegionName, SocketAddr>,
    /// What is done with a write that belongs to another region.
    pub writes: WriteRouting,
    /// How long a write may wait for a writer.
    pub hold_writes: Duration,
    /// Shared by all edges of one application: proves that a request was sent on by one of them.
    pub peer_secret: String,
}

/// Why an edge ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The listening socket is of no use any more.
    #[error("accepting connections failed for good")]
    Accept(#[source] io::Error),
    /// Anyone could speak as a peer.
    #[error("the peer secret is empty")]
    NoPeerSecret,
}

/// Serves until `stop`, then finishes what is under way, for ten seconds at most.
///
/// # Errors
/// [`EdgeError::NoPeerSecret`] at once; [`EdgeError::Accept`] when the listening socket breaks. A shortage of file
/// descriptors is waited out.
pub async fn run(
    config: EdgeConfig,
    plans: watch::Receiver<Plan>,
    meter: Meter,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), EdgeError> {
    if config.peer_secret.is_empty() {
        return Err(EdgeError::NoPeerSecret);
    }
    let edge = Arc::new(Edge::new(Parts {
        here: config.region,
        instances: config.instances,
        peers: config.peers,
        write_routing: config.writes,
        hold_writes: config.hold_writes,
        peer_secret: config.peer_secret,
        meter,
        clock,
        plans,
        stop: stop.clone(),
    }));
    let cut = edge.cut.clone();
    let _cut_at_last = cut.clone().drop_guard();
    let clients = TaskTracker::new();

    let accepted = tokio::select! {
        accepted = accept(&config.listener, &edge, &clients, &stop, &cut) => accepted,
        () = prune(&edge) => Ok(()),
        () = stop.cancelled() => Ok(()),
    };
    drop(config.listener);
    clients.close();
    edge.tunnels.close();
    let drained = timeout(DRAIN_TIME_MAX, async {
        clients.wait().await;
        edge.tunnels.wait().await;
    });
    if drained.await.is_err() {
        warn!(region = %edge.here, connections = clients.len(), "Cut connections that did not finish in time.");
        cut.cancel();
        clients.wait().await;
        edge.tunnels.wait().await;
    }
    info!(region = %edge.here, "Edge stopped.");
    accepted
}

async fn prune(edge: &Edge) {
    let mut ticks = interval(PRUNE_EVERY);
    loop {
        ticks.tick().await;
        edge.prune();
    }
}

async fn accept(
    listener: &TcpListener,
    edge: &Arc<Edge>,
    clients: &TaskTracker,
    stop: &CancellationToken,
    cut: &CancellationToken,
) -> Result<(), EdgeError> {
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((socket, from)) => {
                pause = ACCEPT_PAUSE.0;
                let talk = talk(edge.clone(), socket, from, permit, stop.clone());
                let cut = cut.clone();
                clients.spawn(async move {
                    tokio::select! {
                        () = talk => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) if is_shortage(&error) => {
                warn!(region = %edge.here, %error, "Cannot accept connections just now.");
                sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
            Err(error) => return Err(EdgeError::Accept(error)),
        }
    }
}

/// The connection was gone before it was accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | PermissionDenied
    )
}

/// No file descriptors (EMFILE 24, ENFILE 23) or memory (ENOBUFS 105, ENOMEM 12) just now.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24 | 105 | 12))
}

/// One client's connection from its first byte to its last.
async fn talk(
    edge: Arc<Edge>,
    socket: TcpStream,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    // Without it, small answers may wait for acknowledgements; the connection works all the same.
    let _ = socket.set_nodelay(true);
    let opened = tokio::select! {
        opened = ClientStream::open(socket, permit) => opened,
        () = stop.cancelled() => None,
    };
    let Some((stream, protocol)) = opened else { return };
    let refused = stream.refused();
    let service = service_fn(move |request: Request<Incoming>| {
        let (edge, refusal) = (edge.clone(), refused.next());
        async move { Ok::<_, Infallible>(serve(edge, from.ip(), refusal, request).await) }
    });
    let io = TokioIo::new(stream);
    // Errors are a client's own: it has gone, or spoke what is not HTTP.
    match protocol {
        Protocol::Http1 => {
            let mut builder = conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_TIME_MAX)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_BYTES_MAX * 2);
            let connection = builder.serve_connection(io, service).with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let _ =
                until_told(connection.as_mut(), &stop, conn::http1::UpgradeableConnection::graceful_shutdown)
                    .await;
        }
        Protocol::Http2 => {
            let mut builder = conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(H2_STREAMS_MAX)
                .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
                .keep_alive_interval(H2_PING.0)
                .keep_alive_timeout(H2_PING.1);
            let mut connection = std::pin::pin!(builder.serve_connection(io, service));
            let _ = until_told(connection.as_mut(), &stop, conn::http2::Connection::graceful_shutdown).await;
        }
    }
}

/// Runs a connection; when told to stop, lets it finish the requests it has.
async fn until_told<C: Future>(
    mut connection: Pin<&mut C>,
    stop: &CancellationToken,
    finish: impl FnOnce(Pin<&mut C>),
) -> C::Output {
    tokio::select! {
        done = connection.as_mut() => return done,
        () = stop.cancelled() => finish(connection.as_mut()),
    }
    connection.await
}
