//! Notices that no answer is to be expected any more, without ever cutting off one that is merely slow.

use std::{sync::Arc, time::Duration};

use isles_model::{Because, RegionName};
use tokio::time::{Instant, sleep};

use crate::{
    edge::Edge,
    link::Link,
    peer::Stamp,
    route::{Question, Tried},
};

/// What silence means for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// A safe request: it is answered elsewhere at once.
    CanGoElsewhere,
    /// A write, a stream, a tunnel: it can only be given up.
    CanOnlyEnd,
}

impl Waiting {
    /// How long an answer is waited for before the peer's edge is asked whether it is still there, and how often it
    /// is asked then.
    fn patience(self) -> (Duration, Duration) {
        match self {
            Self::CanGoElsewhere => (Duration::from_millis(100), Duration::from_millis(250)),
            Self::CanOnlyEnd => (Duration::from_secs(1), Duration::from_secs(1)),
        }
    }

    /// How long a peer's edge may stay silent.
    fn silence_max(self) -> Duration {
        match self {
            Self::CanGoElsewhere => Duration::ZERO,
            Self::CanOnlyEnd => Duration::from_secs(10),
        }
    }
}

/// Ends when a safe request should no longer wait for an instance: the plan has dropped it, and the request can go
/// elsewhere. Gives the reason.
pub(crate) async fn instance_gone(
    edge: Arc<Edge>,
    instance: usize,
    mut tried: Tried,
    stamp: Option<Stamp>,
) -> &'static str {
    tried.instances.insert(instance);
    let question = Question { write: false, stamp: stamp.as_ref() };
    let mut plans = edge.plans.clone();
    loop {
        let dropped = !plans.borrow_and_update().instances.contains(&instance);
        if dropped && edge.route(question, &tried).is_somewhere() {
            return "instance_unhealthy";
        }
        if plans.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Ends when nothing more is to be expected from a region: the plan calls it silent, or its edge has not answered
/// pings for too long. Gives the reason.
pub(crate) async fn region_gone(
    edge: Arc<Edge>,
    region: RegionName,
    link: Arc<Link>,
    waiting: Waiting,
) -> &'static str {
    let mut plans = edge.plans.clone();
    let (mut patience, ask_again) = waiting.patience();
    let mut silent_since: Option<Instant> = None;
    loop {
        let silent = plans.borrow_and_update().serve.iter().any(|serving| {
            serving.region == region && !serving.app && serving.because == Because::PeerSilent
        });
        if silent {
            return "peer_silent";
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() { sleep(ask_again).await },
            () = sleep(patience) => {
                if link.answers(edge.rtt(&region)).await {
                    silent_since = None;
                } else if silent_since.get_or_insert_with(Instant::now).elapsed() >= waiting.silence_max() {
                    return "no_pong";
                }
                patience = ask_again;
            }
        }
    }
}
