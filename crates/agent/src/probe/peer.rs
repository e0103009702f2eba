//! Asks one peer's agent how it is, several times a second and at once when that changes,
//! directly: not through the lease store.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use isles_model::{Fact, RegionName, RegionReport, ids::Clock};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::http::Probed;
use crate::control::{HELD_US, NEWS_WAIT};

/// Between two questions to a peer that does not answer.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Between two questions to a peer that has news again and again.
const NEWS_EVERY: Duration = Duration::from_millis(10);
/// A peer has this long beyond three of its expected round trips.
const SLACK: Duration = Duration::from_millis(250);

/// Which peer, and how to reach it.
pub struct PeerProbe {
    /// The peer.
    pub region: RegionName,
    /// Its control port.
    pub control: SocketAddr,
    /// The round trip expected.
    pub rtt: Duration,
    /// Proves that an agent asks.
    pub secret: String,
}

/// Asks until stopped; every answer and every silence is a fact.
///
/// A peer that answers is asked again at once and keeps its answer back until it has news, for [`NEWS_WAIT`] at most:
/// what changes there is known here half a round trip later.
pub async fn probe_peer(probe: PeerProbe, facts: mpsc::Sender<Fact>, clock: Clock, stop: CancellationToken) {
    let PeerProbe { region, control, rtt: expected, secret } = probe;
    let mut probed = Probed::new(control, Some(secret));
    let deadline = expected * 3 + SLACK;
    let mut rtt = expected;
    let mut known: Option<HeaderValue> = None;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let asked = clock();
        let silent = Fact::PeerSilent { region: region.clone() };
        let patience = if known.is_some() { deadline + NEWS_WAIT } else { deadline };
        let answer = probed.get_other_than(known.as_ref(), "/v1/report", patience).await;
        known = None;
        let fact = match answer {
            Ok(answer) => match serde_json::from_slice::<RegionReport>(&answer.body) {
                Ok(report) if report.region == region => {
                    // The first answer on a connection includes its set-up.
                    if answer.reused {
                        rtt = clock().since(asked).saturating_sub(held(&answer.headers));
                    }
                    known = answer.headers.get(header::ETAG).cloned();
                    Fact::Peer { report, rtt }
                }
                Ok(_) | Err(_) => {
                    warn!(peer = %region, status = %answer.status, "A peer's answer is not its report: is its address right?");
                    silent
                }
            },
            Err(_) => silent,
        };
        if facts.send(fact).await.is_err() {
            return;
        }
        let pause = if known.is_some() { NEWS_EVERY } else { ASK_EVERY };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(begun + pause) => {}
        }
    }
}

/// How long a peer has kept its answer back.
fn held(headers: &HeaderMap) -> Duration {
    let text = headers.get(HELD_US).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).map_or(Duration::ZERO, Duration::from_micros)
}
