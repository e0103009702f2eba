//! Measures the distance between regions through the lab's own links, just before something is broken.
//!
//! A result measured over other distances than those asked for would say nothing, so it is not scored.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    exchange::{Answered, Connection},
    ground::Ground,
};
use crate::report::Distance;

/// Round trips that one measurement takes the median of.
const TRIPS: usize = 11;
/// How often a distance that is off is measured again: a busy machine makes a trip longer, and not for ever.
const MEASUREMENTS_MAX: usize = 12;
/// Pause before measuring again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long one trip may take.
const TRIP_WAIT: Duration = Duration::from_secs(5);
/// What the agents are asked for; small, and the same near and far.
const PATH: &str = "/v1/status";

/// Every pair of data regions, asked and measured.
pub(super) async fn measure(ground: &Ground) -> Vec<Distance> {
    let mut distances = Vec::new();
    for mut distance in ground.distances() {
        for again in 0..MEASUREMENTS_MAX {
            if again > 0 {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            distance.measured = measure_one(ground, &distance).await;
            if distance.holds() {
                break;
            }
        }
        distances.push(distance);
    }
    distances
}

/// The median of what a trip over the link takes longer than the same trip without it, made right after it.
async fn measure_one(ground: &Ground, distance: &Distance) -> Option<Duration> {
    let near = ground.place(&distance.from).ok()?;
    let far = ground.place(&distance.to).ok()?;
    let mut over_link = opened(near.peers.get(&far.region)?.control).await?;
    let mut without = opened(far.control).await?;
    let mut longer = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        longer.push(trip(&mut over_link).await?.saturating_sub(trip(&mut without).await?));
    }
    longer.sort_unstable();
    longer.get(TRIPS / 2).copied()
}

/// A connection whose set-up is over: the first trip has waited for it.
async fn opened(address: SocketAddr) -> Option<Connection> {
    let mut connection = Connection::open(address, TRIP_WAIT).await.ok()?;
    trip(&mut connection).await?;
    Some(connection)
}

async fn trip(connection: &mut Connection) -> Option<Duration> {
    let sent = Instant::now();
    match connection.ask("GET", PATH, Bytes::new(), TRIP_WAIT).await {
        Answered::Served => Some(sent.elapsed()),
        Answered::Unsent | Answered::Failed => None,
    }
}
