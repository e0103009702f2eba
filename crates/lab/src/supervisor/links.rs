//! Holds the lab's emulated WAN on a thread of its own, so that starting a process never delays a byte on its way.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use isles_model::RegionName;
use tokio::{runtime::Runtime, sync::Mutex};

use crate::{
    control::LinkCondition,
    wan::{Distance, Wan},
};

/// How many rounds of measuring are tried where the machine was too busy for a good one.
const MEASURE_ROUNDS: usize = 3;
/// A measured round trip is good when it is at most this much above the one asked for.
const MEASURE_SLACK: f64 = 1.05;

/// The links between all places of a lab.
pub(crate) struct Links {
    wan: Arc<Mutex<Wan>>,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
}

impl Links {
    /// Opens the WAN between pairs of places, each with its round trip.
    pub(crate) fn start(pairs: &[(RegionName, RegionName, Duration, bool)]) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("wan")
            .enable_all()
            .build()?;
        let distance = |rtt: Duration| Distance { one_way: rtt / 2, jitter: Duration::ZERO, rate: None };
        let both = |(a, b, rtt, _): &(RegionName, RegionName, Duration, bool)| {
            [((a.clone(), b.clone()), distance(*rtt)), ((b.clone(), a.clone()), distance(*rtt))]
        };
        let wan = Wan::new(pairs.iter().flat_map(both))?;
        Ok(Self { wan: Arc::new(Mutex::new(wan)), runtime: Some(runtime) })
    }

    /// Opens a way from one place to an address at another.
    pub(crate) async fn open(
        &self,
        from: &RegionName,
        to: &RegionName,
        target: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let (wan, from, to) = (Arc::clone(&self.wan), from.clone(), to.clone());
        self.on_its_thread(async move { wan.lock().await.relay(&from, &to, target).await }).await
    }

    /// Sets the condition of one direction.
    pub(crate) async fn set(
        &self,
        from: &RegionName,
        to: &RegionName,
        condition: LinkCondition,
    ) -> Result<(), String> {
        self.wan.lock().await.set(from, to, condition).map_err(|error| error.to_string())
    }

    /// The condition of one direction.
    pub(crate) async fn condition(&self, from: &RegionName, to: &RegionName) -> LinkCondition {
        self.wan.lock().await.condition(from, to)
    }

    /// Measures a round trip; takes the best of a few rounds, because a busy machine makes a trip longer, never shorter.
    pub(crate) async fn measure(
        &self,
        from: &RegionName,
        to: &RegionName,
        asked: Duration,
    ) -> Option<Duration> {
        let mut best: Option<Duration> = None;
        for _ in 0..MEASURE_ROUNDS {
            let (wan, from, to) = (Arc::clone(&self.wan), from.clone(), to.clone());
            let round = self.on_its_thread(async move { wan.lock().await.measure(&from, &to).await }).await;
            best = best.into_iter().chain(round.ok()).min();
            if best.is_some_and(|best| is_good(best, asked)) {
                break;
            }
        }
        best
    }

    async fn on_its_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let runtime = self.runtime.as_ref().ok_or_else(|| io::Error::other("the WAN is closed"))?;
        runtime.spawn(work).await.map_err(io::Error::other)?
    }
}

/// Whether a measured round trip is near enough to the one asked for.
pub(crate) fn is_good(measured: Duration, asked: Duration) -> bool {
    measured.as_secs_f64() <= asked.as_secs_f64() * MEASURE_SLACK
}

impl Drop for Links {
    fn drop(&mut self) {
        // Because a runtime must not be dropped, which waits, inside another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
