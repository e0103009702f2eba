//! Asks one peer's agent how it is, several times a second, directly: not through the lease store.

use std::{net::SocketAddr, time::Duration};

use isles_model::{Fact, RegionName, RegionReport, ids::Clock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::http::Probed;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(200);
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
pub async fn probe_peer(probe: PeerProbe, facts: mpsc::Sender<Fact>, clock: Clock, stop: CancellationToken) {
    let PeerProbe { region, control, rtt: expected, secret } = probe;
    let mut probed = Probed::new(control, Some(secret));
    let deadline = expected * 3 + SLACK;
    let mut rtt = expected;
    let mut turn = tokio::time::interval(ASK_EVERY);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        turn.tick().await;
        let asked = clock();
        let silent = Fact::PeerSilent { region: region.clone() };
        let fact = match probed.get("/v1/report", deadline).await {
            Ok(answer) => match serde_json::from_slice::<RegionReport>(&answer.body) {
                Ok(report) if report.region == region => {
                    // The first answer on a connection includes its set-up.
                    if answer.reused {
                        rtt = clock().since(asked);
                    }
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
    }
}
