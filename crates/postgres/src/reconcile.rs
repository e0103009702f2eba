//! Brings the database to what is ordered, one order at a time; a newer order interrupts an older one's work.

use std::{sync::Arc, time::Duration};

use isles_model::{CommitOrder, DatabaseOrder, Epoch, RegionName};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    error::DatabaseError,
    follow::Follower,
    link::{Link, Purpose},
    promote, publish, rebuild,
    run::World,
    schema::laid_out,
    slots, standbys,
};

/// Pause before failed work is tried again: at first, and at most (it doubles).
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// See [`RETRY_FIRST`].
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Between two looks at what a writer publishes.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// What an order asks to be worked at; a renewed `until` is the fence's business and interrupts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Nothing,
    Write(Epoch),
    Follow(RegionName, Epoch),
}

impl From<&DatabaseOrder> for Task {
    fn from(order: &DatabaseOrder) -> Self {
        match order {
            DatabaseOrder::Fence { .. } => Self::Nothing,
            DatabaseOrder::Write { epoch, .. } => Self::Write(*epoch),
            DatabaseOrder::Follow { writer, epoch } => Self::Follow(writer.clone(), *epoch),
        }
    }
}

/// Works until told to stop. `promoted` tells the fence which epoch the database is the writer of.
pub(crate) async fn run(
    world: Arc<World>,
    mut orders: watch::Receiver<DatabaseOrder>,
    promoted: watch::Sender<Option<Epoch>>,
    stop: CancellationToken,
) {
    let worker = Worker { world, promoted, orders: orders.clone() };
    while !stop.is_cancelled() {
        let task = Task::from(&*orders.borrow_and_update());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = superseded(&mut orders, &task) => {}
            () = worker.persist(&task) => {}
        }
    }
}

/// Ends when an order asks for other work.
async fn superseded(orders: &mut watch::Receiver<DatabaseOrder>, task: &Task) {
    while orders.changed().await.is_ok() {
        if Task::from(&*orders.borrow_and_update()) != *task {
            return;
        }
    }
    std::future::pending::<()>().await;
}

fn milliseconds(since: tokio::time::Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

struct Worker {
    world: Arc<World>,
    promoted: watch::Sender<Option<Epoch>>,
    orders: watch::Receiver<DatabaseOrder>,
}

impl Worker {
    /// Works at a task, again and again while it fails.
    async fn persist(&self, task: &Task) {
        let mut pause = RETRY_FIRST;
        let mut said = String::new();
        loop {
            let begun = tokio::time::Instant::now();
            let Err(error) = Box::pin(self.work(task)).await else {
                return std::future::pending().await;
            };
            let text = error.to_string();
            if text == said {
                debug!(error = %text, "The database is not as ordered yet.");
            } else {
                warn!(error = %text, "The database is not as ordered yet.");
                self.world.findings.set("order", format!("Not as ordered yet: {text}."));
                said = text;
            }
            if begun.elapsed() > RETRY_MAX {
                pause = RETRY_FIRST;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn work(&self, task: &Task) -> Result<(), DatabaseError> {
        match task {
            Task::Nothing => {
                rebuild::ensure(&self.world).await?;
                self.world.changed.notify_waiters();
                self.world.findings.clear("order");
                Ok(())
            }
            Task::Write(epoch) => self.write(*epoch).await,
            Task::Follow(writer, epoch) => self.follow(writer, *epoch).await,
        }
    }

    async fn write(&self, epoch: Epoch) -> Result<(), DatabaseError> {
        let begun = tokio::time::Instant::now();
        let mut own = rebuild::open(&self.world).await?;
        let opened_ms = milliseconds(begun);
        promote::promote(&self.world, &mut own, epoch).await?;
        standbys::before_opening(&own, &self.commit()).await?;
        self.promoted.send_replace(Some(epoch));
        self.world.changed.notify_waiters();
        // What was said of following another region is past.
        for key in ["order", "apply", "schema", "slot"] {
            self.world.findings.clear(key);
        }
        debug!(%epoch, opened_ms, elapsed_ms = milliseconds(begun), "The database is ready to be opened.");
        let config = &self.world.config;
        let mut caught_up = false;
        loop {
            let asked = tokio::select! {
                () = self.world.publish.notified() => true,
                () = sleep(PUBLISH_EVERY) => false,
            };
            if !caught_up {
                rebuild::catch_up(&self.world, &own).await?;
                caught_up = true;
            }
            if publish::keep(&own, &config.exclude_tables, &self.world.findings).await? || asked {
                publish::ring(&own).await?;
            }
            slots::tidy(&own, config.peers.keys()).await?;
            laid_out::lay_out(&own, &config.database).await?;
        }
    }

    /// What commits are ordered to wait for just now.
    fn commit(&self) -> CommitOrder {
        match &*self.orders.borrow() {
            DatabaseOrder::Write { commit, .. } => commit.clone(),
            DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => CommitOrder::default(),
        }
    }

    async fn follow(&self, writer: &RegionName, epoch: Epoch) -> Result<(), DatabaseError> {
        self.promoted.send_replace(None);
        let cluster = Link::cluster(&self.world.config.database, Purpose::Standbys).await?;
        standbys::before_following(&cluster).await?;
        drop(cluster);
        let mut follower = Follower::attach(&self.world, writer, epoch).await?;
        self.world.findings.clear("order");
        follower.care().await
    }
}
