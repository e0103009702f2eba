//! Wakes whoever waits for a moment, to about a tenth of a millisecond, without using the processor in between.
//!
//! Because tokio's timer has a wheel of whole milliseconds, which would add more than 2 ms to every round trip.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    time::Instant,
};

use tokio::sync::oneshot;

/// A shared thread that sleeps until the next moment somebody waits for.
#[derive(Clone)]
pub(super) struct Timer(Arc<Shared>);

struct Shared {
    waiting: Mutex<BinaryHeap<Waiting>>,
    sooner: Condvar,
}

struct Waiting {
    until: Instant,
    wake: oneshot::Sender<()>,
}

impl Timer {
    /// Starts the thread; it ends when the last handle is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), sooner: Condvar::new() });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new().name("wan-timer".into()).spawn(move || wake_all(&weak))?;
        Ok(Self(shared))
    }

    /// Waits until a moment; returns at once when it has passed.
    pub(super) async fn sleep_until(&self, until: Instant) {
        if until <= Instant::now() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        let first = {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let first = waiting.peek().is_none_or(|next| until < next.until);
            waiting.push(Waiting { until, wake });
            first
        };
        if first {
            self.0.sooner.notify_one();
        }
        // The thread outlives every handle, this one included.
        let _ = woken.await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}

/// How long the thread sleeps when nobody waits, before it looks whether anybody is left.
const IDLE: std::time::Duration = std::time::Duration::from_millis(500);

fn wake_all(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while waiting.peek().is_some_and(|next| next.until <= now) {
            if let Some(due) = waiting.pop() {
                // Whoever waited may have gone.
                let _ = due.wake.send(());
            }
        }
        let pause = waiting.peek().map_or(IDLE, |next| next.until.duration_since(now).min(IDLE));
        drop(shared.sooner.wait_timeout(waiting, pause));
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        Reverse(self.until).cmp(&Reverse(other.until))
    }
}
