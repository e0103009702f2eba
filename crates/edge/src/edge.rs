//! What all requests of one edge share, and what they have just learnt from each other: which instance or region did
//! not answer a moment ago.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use isles_model::{Meter, Moment, Plan, RegionName, ids::Clock, topology::WriteRouting};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body::Room,
    hold::Line,
    link::Link,
    peer::Seal,
    pool::Upstream,
    route::{Down, Question, Tried, Verdict, View, route},
};

/// How long an instance that refused a connection is asked last. Longer than a burst, shorter than a restart.
const INSTANCE_DOWN_FOR: Duration = Duration::from_millis(500);

/// How long an idle connection to an instance is kept. Below Node's five seconds, after which it closes them itself.
const INSTANCE_IDLE_MAX: Duration = Duration::from_secs(4);

/// So many requests can be repeated at once.
const REPEATS_MAX: u32 = 2048;
/// In the long run, one request in so many can be repeated.
const REPEATS_ONE_IN: u32 = 10;

/// One region's edge.
pub(crate) struct Edge {
    pub(crate) here: RegionName,
    pub(crate) instances: Vec<Arc<Upstream>>,
    pub(crate) links: BTreeMap<RegionName, Arc<Link>>,
    pub(crate) write_routing: WriteRouting,
    pub(crate) hold_writes: Duration,
    pub(crate) seal: Seal,
    pub(crate) meter: Meter,
    pub(crate) clock: Clock,
    pub(crate) plans: watch::Receiver<Plan>,
    pub(crate) room: Room,
    pub(crate) held_writes: Arc<Line>,
    pub(crate) held_reads: Arc<Line>,
    /// Tunnels outlive the request that opened them.
    pub(crate) tunnels: TaskTracker,
    /// What may still be repeated.
    pub(crate) repeats: Repeats,
    /// The edge is to stop.
    pub(crate) stop: CancellationToken,
    /// Ends tunnels that do not end by themselves when the edge stops.
    pub(crate) cut: CancellationToken,
    turn: AtomicUsize,
    down: Mutex<BTreeMap<usize, Instant>>,
}

/// A budget for repeating requests that an app has already had once: all that are under way when a region dies, but
/// no more than a tenth of the traffic in the long run, lest a struggling app get three times its load.
pub(crate) struct Repeats(AtomicU32);

impl Repeats {
    fn new() -> Self {
        Self(AtomicU32::new(REPEATS_MAX * REPEATS_ONE_IN))
    }

    /// A request has come.
    pub(crate) fn earn(&self) {
        if self.0.load(Ordering::Relaxed) < REPEATS_MAX * REPEATS_ONE_IN {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether one may be repeated.
    pub(crate) fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(REPEATS_ONE_IN);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// What an [`Edge`] is made of.
pub(crate) struct Parts {
    pub(crate) here: RegionName,
    pub(crate) instances: Vec<SocketAddr>,
    pub(crate) peers: BTreeMap<RegionName, SocketAddr>,
    pub(crate) write_routing: WriteRouting,
    pub(crate) hold_writes: Duration,
    pub(crate) peer_secret: String,
    pub(crate) meter: Meter,
    pub(crate) clock: Clock,
    pub(crate) plans: watch::Receiver<Plan>,
    pub(crate) stop: CancellationToken,
}

impl Edge {
    pub(crate) fn new(parts: Parts) -> Self {
        let seal = Seal::new(&parts.peer_secret);
        let link = |(region, address)| (region, Arc::new(Link::new(&parts.here, address, seal.clone())));
        let instance = |address| Upstream::new(address, INSTANCE_IDLE_MAX);
        Self {
            links: parts.peers.into_iter().map(link).collect(),
            instances: parts.instances.into_iter().map(instance).collect(),
            write_routing: parts.write_routing,
            hold_writes: parts.hold_writes,
            seal,
            held_writes: Arc::new(Line::new(Some(parts.meter.clone()))),
            held_reads: Arc::new(Line::new(None)),
            here: parts.here,
            meter: parts.meter,
            clock: parts.clock,
            plans: parts.plans,
            room: Room::new(),
            tunnels: TaskTracker::new(),
            repeats: Repeats::new(),
            stop: parts.stop,
            cut: CancellationToken::new(),
            turn: AtomicUsize::new(0),
            down: Mutex::default(),
        }
    }

    /// Where a request goes, as things stand.
    pub(crate) fn route(&self, question: Question<'_>, tried: &Tried) -> Verdict {
        let down = self.down();
        let now: Moment = (self.clock)();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let plan = self.plans.borrow();
        let write_routing = self.write_routing;
        route(question, View { here: &self.here, plan: &plan, write_routing, now, tried, down: &down, turn })
    }

    /// The last measured round trip to a region; zero when unknown.
    pub(crate) fn rtt(&self, region: &RegionName) -> Duration {
        let plan = self.plans.borrow();
        plan.serve
            .iter()
            .find(|serving| serving.region == *region)
            .map_or(Duration::ZERO, |serving| serving.rtt)
    }

    /// An instance refused a connection.
    pub(crate) fn mark_down(&self, instance: usize) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.insert(instance, Instant::now() + INSTANCE_DOWN_FOR);
    }

    /// Closes idle connections that have grown old.
    pub(crate) fn prune(&self) {
        for upstream in self.instances.iter().chain(self.links.values().map(|link| link.upstream())) {
            upstream.prune();
        }
    }

    fn down(&self) -> Down {
        let mut instances = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if !instances.is_empty() {
            let now = Instant::now();
            instances.retain(|_, until| *until > now);
        }
        let regions = self.links.iter().filter(|(_, link)| link.is_down()).map(|(region, _)| region.clone());
        Down { instances: instances.keys().copied().collect(), regions: regions.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_ten_is_repeated_once_the_reserve_is_gone() {
        let repeats = Repeats::new();
        assert_eq!((0..5000).filter(|_| repeats.take()).count(), REPEATS_MAX as usize);
        let repeated = (0..1000).filter(|_| {
            repeats.earn();
            repeats.take()
        });
        assert_eq!(repeated.count(), 100);
    }
}
