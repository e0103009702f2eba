//! A waiting line for requests that nobody may serve just now: bounded in number, first come, first released.
//!
//! Only the first in line asks whether it may go; when it goes, the next one asks. So the line leaves in order, and a
//! new writer is tried by one request, not by all at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use isles_model::{Meter, Metric, Plan};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

/// Requests held at once; more are answered 503.
const HELD_MAX: usize = 1024;
/// How often the first in line asks again without a new plan: a region found down may be back.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The line.
pub(crate) struct Line {
    waiting: Mutex<Waiting>,
    /// Only held writes are counted.
    meter: Option<Meter>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    places: BTreeMap<u64, Arc<Notify>>,
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Released,
    TimedOut,
    RefusedFull,
}

impl Line {
    pub(crate) fn new(meter: Option<Meter>) -> Self {
        Self { waiting: Mutex::default(), meter }
    }

    /// A place at the end; `None` when the line is full.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut waiting = self.waiting();
        if waiting.places.len() >= HELD_MAX {
            self.count_end(End::RefusedFull);
            return None;
        }
        let number = waiting.next;
        waiting.next += 1;
        let turn = Arc::new(Notify::new());
        waiting.places.insert(number, turn.clone());
        self.count(&waiting);
        Some(Place { line: self.clone(), number, turn })
    }

    /// Counts how waiting ended.
    pub(crate) fn count_end(&self, end: End) {
        let reason = match end {
            End::Released => "released",
            End::TimedOut => "timed_out",
            End::RefusedFull => "refused_full",
        };
        if let Some(meter) = &self.meter {
            meter.add(Metric::HeldTotal, &[reason], 1);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, waiting: &Waiting) {
        let held = u32::try_from(waiting.places.len()).unwrap_or(u32::MAX);
        if let Some(meter) = &self.meter {
            meter.set(Metric::Held, &[], f64::from(held));
        }
    }
}

/// A place in the line; dropped, it is given up.
pub(crate) struct Place {
    line: Arc<Line>,
    number: u64,
    turn: Arc<Notify>,
}

impl Place {
    /// Waits until it is this one's turn to ask: first in line, and either new there or something may have changed.
    /// False when `until` came first.
    pub(crate) async fn may_ask(
        &self,
        asked: &mut bool,
        plans: &mut watch::Receiver<Plan>,
        until: Instant,
    ) -> bool {
        while !self.is_first() {
            tokio::select! {
                () = self.turn.notified() => {}
                () = sleep_until(until) => return false,
            }
        }
        if std::mem::replace(asked, true) {
            let again = sleep_until(until.min(Instant::now() + ASK_EVERY));
            tokio::select! {
                changed = plans.changed() => if changed.is_err() { again_or_end(until).await },
                () = again => {}
            }
        }
        Instant::now() < until
    }

    fn is_first(&self) -> bool {
        self.line.waiting().places.keys().next() == Some(&self.number)
    }
}

/// Nobody makes plans any more: only time can pass.
async fn again_or_end(until: Instant) {
    sleep_until(until.min(Instant::now() + ASK_EVERY)).await;
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting();
        waiting.places.remove(&self.number);
        self.line.count(&waiting);
        if let Some((_, next)) = waiting.places.first_key_value() {
            next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_line_is_left_in_the_order_of_arrival() {
        let line = Arc::new(Line::new(None));
        let (_sender, plans) = watch::channel(Plan::starting());
        let until = Instant::now() + Duration::from_secs(60);
        let (left, mut order) = tokio::sync::mpsc::unbounded_channel();
        let first = line.enter().unwrap();
        for number in 0..5 {
            let (place, left, mut plans) = (line.enter().unwrap(), left.clone(), plans.clone());
            tokio::spawn(async move {
                assert!(place.may_ask(&mut false, &mut plans, until).await);
                left.send(number).unwrap();
            });
        }
        tokio::task::yield_now().await;
        assert!(order.try_recv().is_err());
        drop(first);
        for number in 0..5 {
            assert_eq!(order.recv().await, Some(number));
        }
    }

    #[test]
    fn the_line_is_bounded() {
        let line = Arc::new(Line::new(None));
        let places: Vec<_> = (0..HELD_MAX).map(|_| line.enter().unwrap()).collect();
        assert!(line.enter().is_none());
        drop(places);
        assert!(line.enter().is_some());
    }
}
