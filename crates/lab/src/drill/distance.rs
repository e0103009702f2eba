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
const TRIPS: usize = 9;
/// How often a distance that is off is measured again: a busy machine makes a trip longer, and not for long.
const MEASUREMENTS_MAX: usize = 5;
/// How long one trip may take.
const TRIP_WAIT: Duration = Duration::from_secs(5);
/// What the agents are asked for; small, and the same near and far.
const PATH: &str = "/v1/status";

/// Every pair of data regions, asked and measured.
pub(super) async fn measure(ground: &Ground) -> Vec<Distance> {
    let mut distances = Vec::new();
    for mut distance in ground.distances() {
        for _ in 0..MEASUREMENTS_MAX {
            distance.measured = measure_one(ground, &distance).await;
            if distance.holds() {
                break;
            }
        }
        distances.push(distance);
    }
    distances
}

/// The median trip over the link, less the median trip without it.
async fn measure_one(ground: &Ground, distance: &Distance) -> Option<Duration> {
    let near = ground.place(&distance.from).ok()?;
    let far = ground.place(&distance.to).ok()?;
    let over_link = near.peers.get(&far.region)?.control;
    let with = median_trip(over_link).await?;
    let without = median_trip(far.control).await?;
    Some(with.saturating_sub(without))
}

async fn median_trip(address: SocketAddr) -> Option<Duration> {
    let mut connection = Connection::open(address, TRIP_WAIT).await.ok()?;
    let mut trips = Vec::with_capacity(TRIPS);
    // The first trip waits for the connection to be set up.
    for trip in 0..=TRIPS {
        let sent = Instant::now();
        let Answered::Served = connection.ask("GET", PATH, Bytes::new(), TRIP_WAIT).await else {
            return None;
        };
        if trip > 0 {
            trips.push(sent.elapsed());
        }
    }
    trips.sort_unstable();
    trips.get(TRIPS / 2).copied()
}
