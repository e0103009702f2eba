//! The driver of the right to write: reads, watches and compare-and-puts the key, and reports what came of it. The
//! operator's orders come along.
//!
//! When to put what is the helm's affair; see `isles_model::lease`.

mod etcd;
mod leader;
mod standing;

use std::{sync::Arc, time::Duration};

pub use etcd::{Changed, Etcd, EtcdError, Seen, SeenOrders, Stored};
pub use leader::keep_leader_away;
pub use standing::{AUDIT_ENTRIES_MAX, OrdersError};

use isles_model::{Fact, LeaseOrder, LeaseOutcome, Meter, Metric, ids::Clock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the key is read afresh, whether or not the watch brings changes.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How long to wait before a broken watch is opened again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Compare-and-puts under way at once: the helm abandons a late one, which then still has to end.
const PUTS_MAX: usize = 4;

/// What the driver needs.
pub struct Driver {
    /// The store.
    pub store: Arc<Etcd>,
    /// How long one compare-and-put may take before its outcome is called unknown.
    pub put_deadline: Duration,
    /// Where facts go.
    pub facts: mpsc::Sender<Fact>,
    /// Where puts are counted.
    pub meter: Meter,
    /// Times the puts.
    pub clock: Clock,
}

impl Driver {
    /// Carries out lease orders and reports every change of the key, until stopped.
    pub async fn run(self, mut orders: mpsc::Receiver<LeaseOrder>, stop: CancellationToken) {
        let this = Arc::new(self);
        let reading = tokio::spawn(Self::read_again_and_again(this.clone(), stop.clone()));
        let watching = tokio::spawn(Self::watch_again_and_again(this.clone(), stop.clone()));
        let puts = Arc::new(tokio::sync::Semaphore::new(PUTS_MAX));
        while let Some(order) =
            tokio::select! { order = orders.recv() => order, () = stop.cancelled() => None }
        {
            let Ok(turn) = puts.clone().try_acquire_owned() else {
                this.tell(Fact::LeaseAnswered { attempt: order.attempt, outcome: LeaseOutcome::Unknown })
                    .await;
                continue;
            };
            let this = this.clone();
            tokio::spawn(async move {
                this.put(order).await;
                drop(turn);
            });
        }
        reading.abort();
        watching.abort();
    }

    async fn put(&self, order: LeaseOrder) {
        let before = (self.clock)();
        let put = tokio::time::timeout(self.put_deadline, self.store.put(order.expected, &order.value)).await;
        let elapsed = (self.clock)().since(before);
        self.meter.seconds(Metric::LeasePutSeconds, &[], elapsed.as_secs_f64());
        let outcome = match put {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                warn!(error = %Chain(&error), elapsed_ms = elapsed.as_millis() as u64, "Lease store did not take the put.");
                LeaseOutcome::Unknown
            }
            Err(_) => LeaseOutcome::Unknown,
        };
        let reason = match outcome {
            LeaseOutcome::Stored(_) => "stored",
            LeaseOutcome::Refused => "refused",
            LeaseOutcome::Unknown => "unknown",
        };
        self.meter.add(Metric::LeasePuts, &[reason], 1);
        let uncertain = !matches!(outcome, LeaseOutcome::Stored(_));
        self.tell(Fact::LeaseAnswered { attempt: order.attempt, outcome }).await;
        if uncertain {
            self.read().await;
        }
    }

    async fn read(&self) {
        let read = tokio::time::timeout(self.put_deadline, self.store.read()).await;
        match read {
            Ok(Ok(Stored { lease, orders })) => {
                if let Some(seen) = orders {
                    self.tell(seen.into()).await;
                }
                self.tell(lease.into()).await;
            }
            Ok(Err(_)) | Err(_) => self.tell(Fact::LeaseStoreSilent).await,
        }
    }

    async fn read_again_and_again(self: Arc<Self>, stop: CancellationToken) {
        let mut turn = tokio::time::interval(READ_EVERY);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            turn.tick().await;
            self.read().await;
        }
    }

    async fn watch_again_and_again(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let facts = self.facts.clone();
            let watched = self
                .store
                .watch(|changed| {
                    let fact = match changed {
                        Changed::Lease(seen) => seen.into(),
                        Changed::Orders(seen) => seen.into(),
                    };
                    // A full queue loses nothing: the next read brings the keys again.
                    let _ = facts.try_send(fact);
                })
                .await;
            if let Err(error) = watched {
                tracing::debug!(error = %Chain(&error), "Watch on the lease key ended.");
            }
            tokio::time::sleep(WATCH_AGAIN_AFTER).await;
        }
    }

    async fn tell(&self, fact: Fact) {
        // The receiver ends only when the agent does.
        let _ = self.facts.send(fact).await;
    }
}

impl From<Seen> for Fact {
    fn from(seen: Seen) -> Self {
        Self::LeaseSeen { key: seen.key, revision: seen.revision }
    }
}

impl From<SeenOrders> for Fact {
    fn from(seen: SeenOrders) -> Self {
        Self::Orders { orders: seen.orders, revision: seen.revision }
    }
}

/// An error with its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
