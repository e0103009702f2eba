//! Carries promises between agents while the lease store is silent (`quorum.failsafe`): the holder asks every peer at
//! once not to take over, and a peer's helm has promised before its answer leaves.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use isles_model::{Epoch, Fact, Meter, Metric, PromiseAnswer, PromiseRequest, RegionName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{lease::Chain, probe::http::Probed};

/// Where promises are asked for, on the control port.
pub(crate) const PATH: &str = "/v1/promise";
/// Requests of peers that may wait for the helm.
pub const PROMISES_WAITING_MAX: usize = 16;
/// The share of the right's length within which a peer has to answer: one that is later is asked anew.
const ANSWER_TTL_PARTS: u32 = 3;
/// A peer has so many round trips at least: two to connect and ask, one to spare.
const ANSWER_ROUND_TRIPS_MIN: u32 = 3;

/// A peer's request, for the steering loop to answer.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: PromiseRequest,
    /// Where the answer goes, once the helm is bound by it.
    pub reply: oneshot::Sender<PromiseAnswer>,
}

/// Asks one peer.
pub struct Asker {
    /// The peer.
    pub region: RegionName,
    /// Its control port.
    pub control: SocketAddr,
    /// The round trip expected.
    pub rtt: Duration,
    /// Proves that an agent asks.
    pub secret: String,
    /// What the helm wants to be asked. Only the newest counts.
    pub asks: watch::Receiver<Option<PromiseRequest>>,
    /// Where consent goes.
    pub facts: mpsc::Sender<Fact>,
    /// Counts answers.
    pub meter: Meter,
}

/// What came of a request.
#[derive(Debug)]
enum Outcome {
    Answered(PromiseAnswer),
    Silent(String),
}

impl Asker {
    /// Asks whenever the helm wants it, until stopped. Each consent is a fact; anything else is none.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut peer = Probed::new(self.control, Some(self.secret.clone()));
        let mut last = None;
        while tokio::select! { asked = self.asks.changed() => asked.is_ok(), () = stop.cancelled() => false }
        {
            let Some(request) = self.asks.borrow_and_update().clone() else { continue };
            let outcome = tokio::select! {
                outcome = self.ask(&mut peer, &request) => outcome,
                () = stop.cancelled() => return,
            };
            let word = outcome.word();
            self.meter.add(Metric::Promises, &[self.region.as_str(), word], 1);
            if last.replace((request.epoch, word)) != Some((request.epoch, word)) {
                self.tell(request.epoch, &outcome);
            }
            if let Outcome::Answered(PromiseAnswer::Promised) = outcome {
                let PromiseRequest { epoch, asked_at, .. } = request;
                let fact = Fact::Promised { region: self.region.clone(), epoch, asked_at };
                if self.facts.send(fact).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn ask(&self, peer: &mut Probed, request: &PromiseRequest) -> Outcome {
        let Ok(body) = serde_json::to_vec(request) else { return Outcome::Silent("unwritable".into()) };
        let within = (request.ttl / ANSWER_TTL_PARTS).max(self.rtt * ANSWER_ROUND_TRIPS_MIN);
        match peer.post(PATH, Bytes::from(body), within).await {
            Ok(answer) if answer.status.is_success() => match serde_json::from_slice(&answer.body) {
                Ok(answer) => Outcome::Answered(answer),
                Err(error) => Outcome::Silent(Chain(&error).to_string()),
            },
            Ok(answer) => Outcome::Silent(format!("answered {}", answer.status)),
            Err(error) => Outcome::Silent(Chain(&error).to_string()),
        }
    }

    fn tell(&self, epoch: Epoch, outcome: &Outcome) {
        let peer = &self.region;
        match outcome {
            Outcome::Answered(PromiseAnswer::Promised) => {
                info!(%peer, %epoch, "A peer promises not to take over while the lease store is silent.");
            }
            Outcome::Answered(PromiseAnswer::Refused { because }) => {
                warn!(%peer, %epoch, %because, "A peer does not promise to leave the right here.");
            }
            Outcome::Silent(why) => {
                warn!(%peer, %epoch, why, "A peer was asked for a promise and has not answered.");
            }
        }
    }
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Answered(PromiseAnswer::Promised) => "promised",
            Self::Answered(PromiseAnswer::Refused { .. }) => "refused",
            Self::Silent(_) => "silent",
        }
    }
}
