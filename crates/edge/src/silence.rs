//! Notices that no answer is to be expected any more, without ever cutting off one that is merely slow.

use std::{sync::Arc, time::Duration};

use isles_model::{Because, RegionName};
use tokio::time::sleep;

use crate::{
    edge::Edge,
    link::Link,
    peer::Stamp,
    route::{Question, Tried},
};

/// How long a safe request waits for a peer's answer before the peer's edge is asked whether it is still there.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is asked then.
const ASK_AGAIN: Duration = Duration::from_millis(250);

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

/// Ends when nothing more is to be expected from a region: the plan calls it silent, or, if `ask`, its edge does not
/// answer a ping. Gives the reason.
pub(crate) async fn region_gone(
    edge: Arc<Edge>,
    region: RegionName,
    link: Arc<Link>,
    ask: bool,
) -> &'static str {
    let mut plans = edge.plans.clone();
    let mut patience = PATIENCE;
    loop {
        let silent = plans.borrow_and_update().serve.iter().any(|serving| {
            serving.region == region && !serving.app && serving.because == Because::PeerSilent
        });
        if silent {
            return "peer_silent";
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() { sleep(ASK_AGAIN).await },
            () = sleep(patience), if ask => {
                if !link.answers(edge.rtt(&region)).await {
                    return "no_pong";
                }
                patience = ASK_AGAIN;
            }
        }
    }
}
