//! The distance between regions, emulated: every byte that crosses from one to another goes through a relay here.
//!
//! Rootless and in user space: the relay delays, paces, stalls or resets TCP connections; it drops no packets.

mod relay;
mod timer;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use isles_model::RegionName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::control::LinkCondition;
use relay::{Direction, Relay};
use timer::Timer;

/// Round trips that one measurement takes the median of.
const MEASURED_TRIPS: usize = 5;
/// A round trip that takes longer than this beyond the distance is no measurement.
const MEASURE_SLACK: Duration = Duration::from_secs(5);

/// A region pair in one direction.
type Way = (RegionName, RegionName);

/// What one direction of a pair is like when it is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distance {
    /// Time for one byte to cross.
    pub one_way: Duration,
    /// Each chunk takes up to so much longer, at random; order is kept.
    pub jitter: Duration,
    /// Bytes a second a connection; `None`: as fast as the machine.
    pub rate: Option<u64>,
}

/// The links between all regions. Dropping it ends every relay and resets its connections.
pub struct Wan {
    timer: Timer,
    ways: BTreeMap<Way, watch::Sender<Direction>>,
    relays: JoinSet<()>,
}

impl Wan {
    /// Links at these distances, all healthy; one entry for each direction.
    ///
    /// # Errors
    /// When the timer's thread cannot be had.
    pub fn new(distances: impl IntoIterator<Item = (Way, Distance)>) -> io::Result<Self> {
        let healthy =
            |distance| watch::Sender::new(Direction { distance, condition: LinkCondition::Healthy });
        let ways = distances.into_iter().map(|(way, distance)| (way, healthy(distance))).collect();
        Ok(Self { timer: Timer::start()?, ways, relays: JoinSet::new() })
    }

    /// Opens a way from one region to an address of another; whoever connects to the returned address reaches
    /// `target` over the distance.
    ///
    /// # Errors
    /// When the pair has no distance, or no port can be had.
    pub async fn relay(
        &mut self,
        from: &RegionName,
        to: &RegionName,
        target: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let relay = Arc::new(Relay {
            target,
            forth: self.way(from, to)?.subscribe(),
            back: self.way(to, from)?.subscribe(),
            timer: self.timer.clone(),
        });
        self.relays.spawn(relay.run(listener));
        Ok(address)
    }

    /// Sets the condition of one direction, for connections that are open and those to come.
    ///
    /// # Errors
    /// When the pair has no distance.
    pub fn set(&self, from: &RegionName, to: &RegionName, condition: LinkCondition) -> io::Result<()> {
        self.way(from, to)?.send_modify(|direction| direction.condition = condition);
        Ok(())
    }

    /// The condition of one direction.
    pub fn condition(&self, from: &RegionName, to: &RegionName) -> LinkCondition {
        self.way(from, to).map_or(LinkCondition::Healthy, |way| way.borrow().condition)
    }

    /// Measures a round trip: the median of a few one-byte echoes over a relayed connection, its set-up not counted.
    ///
    /// # Errors
    /// When the pair has no distance, or an echo does not come back.
    pub async fn measure(&mut self, from: &RegionName, to: &RegionName) -> io::Result<Duration> {
        let echo = TcpListener::bind("127.0.0.1:0").await?;
        let address = self.relay(from, to, echo.local_addr()?).await?;
        let longest = self.way(from, to)?.borrow().distance.one_way * 4 + MEASURE_SLACK;
        let served = tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await?;
            stream.set_nodelay(true)?;
            let mut byte = [0];
            while stream.read(&mut byte).await? > 0 {
                stream.write_all(&byte).await?;
            }
            io::Result::Ok(())
        });
        let trips = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut trips = Vec::with_capacity(MEASURED_TRIPS);
            let mut byte = [0];
            // The first trip waits for the connection to be set up.
            for trip in 0..=MEASURED_TRIPS {
                let sent = Instant::now();
                stream.write_all(&byte).await?;
                stream.read_exact(&mut byte).await?;
                if trip > 0 {
                    trips.push(sent.elapsed());
                }
            }
            trips.sort_unstable();
            Ok(trips[trips.len() / 2])
        };
        let measured = tokio::time::timeout(longest * MEASURED_TRIPS as u32, trips).await;
        served.abort();
        measured.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "no echo came back over the link"))
        })
    }

    fn way(&self, from: &RegionName, to: &RegionName) -> io::Result<&watch::Sender<Direction>> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no link from {from} to {to}"));
        self.ways.get(&(from.clone(), to.clone())).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests;
