//! Watches what every agent says of itself, so that the timeline can say what happened between the fault and the end
//! of it.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    ground::{Ground, Place},
    record::Record,
};
use crate::{status, timeline::View};

/// From the begin of one question to the next.
const PACE: Duration = Duration::from_millis(20);

/// Starts a watcher for every region.
pub(super) fn start(ground: &Ground, record: &Arc<Record>, tasks: &mut JoinSet<()>) {
    for place in &ground.places {
        tasks.spawn(watch_on(place.clone(), Arc::clone(record)));
    }
}

async fn watch_on(place: Place, record: Arc<Record>) {
    let mut begun = record.now();
    while record.pause(begun, PACE).await {
        begun = record.now();
        let seen = status::snapshot(place.control).await.ok();
        let at = record.now();
        let mut watched = record.watched();
        if let Some((key, age)) = seen.as_ref().and_then(|seen| seen.lease.as_ref()) {
            watched.lease(key, at.minus(*age));
        }
        let view = seen.as_ref().map(|seen| View::of(seen, status::lacks(seen).is_none()));
        watched.see(&place.region, at, view);
    }
}
