//! The way to one other region's edge, and whether it still answers.
//!
//! A region that is cut off closes no connection: a request just stays without an answer, and a slow app looks the
//! same. So whoever waits asks the peer's edge itself, which answers at once whatever its app does.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Request, Uri};
use isles_model::RegionName;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::{
    body::Outgoing,
    peer::{Seal, Stamp, is_pong, mark_ping},
    pool::{Lease, Reuse, Upstream},
};

/// How long connecting to a peer, or its answer to a ping, may take beyond the round trips of it.
const PEER_SLACK: Duration = Duration::from_millis(250);
/// How long an idle connection to a peer is kept: shorter than the peer's edge keeps it.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a region that did not answer is asked last, unless the plan says more.
const DOWN_FOR: Duration = Duration::from_secs(1);
/// How long the answer to a ping counts for others who wait.
const PING_COUNTS_FOR: Duration = Duration::from_millis(200);

/// The way to one peer.
pub(crate) struct Link {
    here: RegionName,
    address: SocketAddr,
    upstream: Arc<Upstream>,
    seal: Seal,
    down_until: Mutex<Option<Instant>>,
    /// The operator was told that the peer does not know this edge.
    told: AtomicBool,
    /// When it last answered a ping. Locked while one is under way, so that there is only one.
    answered: tokio::sync::Mutex<Option<Instant>>,
}

impl Link {
    pub(crate) fn new(here: &RegionName, address: SocketAddr, seal: Seal) -> Self {
        Self {
            here: here.clone(),
            address,
            upstream: Upstream::new(address, IDLE_TIME_MAX),
            seal,
            down_until: Mutex::default(),
            told: AtomicBool::new(false),
            answered: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// How long connecting may take: a lost SYN is sent again only after a second, which is too late.
    pub(crate) fn connect_within(rtt: Duration) -> Duration {
        PEER_SLACK + rtt * 2
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| until > Instant::now())
    }

    /// It did not answer: its other connections will not either.
    pub(crate) fn mark_down(&self) {
        *self.down_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + DOWN_FOR);
        self.upstream.forget();
    }

    /// Whether the peer's edge answers over a new connection. One ping at a time, whose answer serves all who wait.
    pub(crate) async fn answers(&self, rtt: Duration) -> bool {
        let mut answered = self.answered.lock().await;
        if self.is_down() {
            return false;
        }
        if answered.is_some_and(|at| at.elapsed() < PING_COUNTS_FOR) {
            return true;
        }
        let lease = self.upstream.lease(Reuse::None, Self::connect_within(rtt)).await;
        let alive = match lease {
            Ok(mut lease) => {
                let alive = self.answers_on(&mut lease, rtt).await;
                if alive {
                    lease.give_back();
                }
                alive
            }
            Err(_) => false,
        };
        if alive {
            *answered = Some(Instant::now());
        } else {
            self.mark_down();
        }
        alive
    }

    /// Whether the peer's edge answers on this connection, which is then ready for another request.
    pub(crate) async fn answers_on(&self, lease: &mut Lease, rtt: Duration) -> bool {
        let mut request = Request::new(Outgoing::Held(None));
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = Uri::from_static("*");
        *request.headers_mut() = self.ping_headers();
        let pong = async {
            let answer = lease.sender.send_request(request).await?;
            lease.sender.ready().await?;
            let known = is_pong(answer.headers());
            if !known && !self.told.swap(true, Ordering::Relaxed) {
                warn!(region = %self.here, peer = %self.address, "The peer does not know this edge: do they share one peer secret?");
            }
            Ok::<_, hyper::Error>(known)
        };
        matches!(timeout(PEER_SLACK + rtt * 2, pong).await, Ok(Ok(true)))
    }

    fn ping_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, http::HeaderValue::from_static("peer"));
        let stamp = Stamp { hops: 1, origin: self.here.clone(), epoch: None };
        self.seal.stamp(&stamp, &Method::OPTIONS, &Uri::from_static("*"), &mut headers);
        mark_ping(&mut headers);
        headers
    }
}
