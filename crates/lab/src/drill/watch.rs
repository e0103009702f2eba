//! Watches what every agent says of itself, so that the timeline can say what happened between the fault and the end
//! of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use isles_model::Snapshot;
use tokio::task::JoinSet;

use super::{
    exchange::Connection,
    ground::{Ground, Place},
    record::Record,
};
use crate::{status, timeline::View};

/// From the begin of one question to the next.
const PACE: Duration = Duration::from_millis(20);
/// How long an agent on this machine may take to answer.
const ANSWER_WAIT: Duration = Duration::from_millis(1000);

/// Starts a watcher for every region.
pub(super) fn start(ground: &Ground, record: &Arc<Record>, tasks: &mut JoinSet<()>) {
    for place in &ground.places {
        tasks.spawn(watch_on(place.clone(), Arc::clone(record)));
    }
}

async fn watch_on(place: Place, record: Arc<Record>) {
    let mut line = None;
    let mut begun = record.now();
    while record.pause(begun, PACE).await {
        begun = record.now();
        let seen = snapshot(place.control, &mut line).await;
        let at = record.now();
        let mut watched = record.watched();
        if let Some((key, age)) = seen.as_ref().and_then(|seen| seen.lease.as_ref()) {
            watched.lease(key, at.minus(*age));
        }
        let view = seen.as_ref().map(|seen| View::of(seen, status::lacks(seen).is_none()));
        watched.see(&place.region, at, view);
    }
}

/// Over a connection that is kept, because a new one for each question would leave thousands of closed ones behind.
async fn snapshot(control: SocketAddr, line: &mut Option<Connection>) -> Option<Snapshot> {
    let mut connection = match line.take() {
        Some(open) => open,
        None => Connection::open(control, ANSWER_WAIT).await.ok()?,
    };
    let body = connection.get("/v1/status", ANSWER_WAIT).await?;
    *line = Some(connection);
    serde_json::from_slice(&body).ok()
}
