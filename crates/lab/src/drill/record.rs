//! What the drill's clients share: one clock, one history, the running number, and the sign to stop.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use isles_model::{Moment, RegionName};
use tokio_util::sync::CancellationToken;

use super::{
    history::History,
    overlap::{Tries, Try},
    table::Table,
};
use crate::timeline::Watched;

/// The drill's own clock; everything that is compared was read from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Moment {
        Moment(self.0.elapsed())
    }
}

/// How much slower the clients work once what the run measures has been measured.
const CALM_FACTOR: u32 = 5;

/// Numbers for writes: no two writes of one drill share one, whatever run they belong to.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(Arc<AtomicU64>);

impl Numbers {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What the clients of one run share.
pub(super) struct Record {
    pub(super) watch: Stopwatch,
    pub(super) table: Table,
    pub(super) numbers: Numbers,
    pub(super) stop: CancellationToken,
    calm: AtomicBool,
    history: Mutex<History>,
    tries: Mutex<Tries>,
    watched: Mutex<Watched>,
}

impl Record {
    pub(super) fn new(watch: Stopwatch, table: Table, numbers: Numbers) -> Arc<Self> {
        Arc::new(Self {
            watch,
            table,
            numbers,
            stop: CancellationToken::new(),
            calm: AtomicBool::new(false),
            history: Mutex::default(),
            tries: Mutex::default(),
            watched: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Moment {
        self.watch.now()
    }

    /// The history, to append to or to read. Stops the clients when it is full.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.is_full() {
            self.stop.cancel();
        }
        history
    }

    /// Notes a try to write past the gates.
    pub(super) fn tried(&self, region: &RegionName, one: Try) {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.entry(region.clone()).or_default().push(one);
    }

    pub(super) fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets clients work more slowly from now on, so that they do not hinder the region that comes back.
    pub(super) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Waits until a client's next turn; `false` when the clients are to stop.
    pub(super) async fn turn(&self, begun: Moment, pace: Duration) -> bool {
        let factor = if self.calm.load(Ordering::Relaxed) { CALM_FACTOR } else { 1 };
        self.pause(begun, pace * factor).await
    }

    /// Waits until `pace` after `begun`; `false` when the clients are to stop.
    pub(super) async fn pause(&self, begun: Moment, pace: Duration) -> bool {
        let rest = begun.plus(pace).since(self.now());
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(rest) => true,
        }
    }
}
