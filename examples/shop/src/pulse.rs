//! Says whether this instance can serve, and stamps the data so that every copy can tell its own age.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;
use tracing::{info, warn};

use crate::{
    Failure, Shop,
    database::Query,
    schema::{Migrate, UpToDate},
};

/// Between two looks at the databases.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A database that answered this recently counts as there.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to prepare the schema.
const PREPARE_PAUSE: Duration = Duration::from_millis(250);
/// Between two removals of what is no longer needed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// Whether the schema is known to be there.
#[derive(Default)]
pub struct Health {
    schema_ready: AtomicBool,
}

/// `/healthz`: requests may be sent here. `/readyz`: orders can be taken, too. Neither asks a database.
pub fn routes() -> Router<Arc<Shop>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// Prepares the schema, then beats until the process ends.
pub async fn run(shop: Arc<Shop>) {
    prepare(&shop).await;
    shop.health.schema_ready.store(true, Ordering::Relaxed);
    let mut beats = interval(BEAT_INTERVAL);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept: Option<Instant> = None;
    loop {
        beats.tick().await;
        // What comes of a look is kept by the pools; a failed one is answered by /healthz.
        let (_, stamped) = tokio::join!(shop.database.probe_near(&Ping), shop.database.probe_writer(&Stamp));
        if stamped.is_ok() && swept.is_none_or(|at| at.elapsed() > SWEEP_INTERVAL) {
            drop(shop.database.probe_writer(&Sweep).await);
            swept = Some(Instant::now());
        }
    }
}

async fn prepare(shop: &Shop) {
    let mut warned = false;
    loop {
        // What a copy holds, its writer holds: then there is nothing to migrate, and nobody to wait for.
        if let Ok(true) = shop.database.probe_near(&UpToDate).await {
            info!(region = %shop.region, "The near copy holds the schema.");
            return;
        }
        match shop.database.change(&Migrate).await {
            Ok(applied) => {
                info!(region = %shop.region, applied, "The schema is up to date.");
                return;
            }
            Err(failure) if !warned => {
                warn!(region = %shop.region, %failure, "The schema cannot be prepared yet.");
                warned = true;
            }
            Err(_) => {}
        }
        sleep(PREPARE_PAUSE).await;
    }
}

async fn healthz(State(shop): State<Arc<Shop>>) -> (StatusCode, &'static str) {
    let (near, writer) = shop.database.silent_for();
    verdict(shop.health.schema_ready.load(Ordering::Relaxed) && (recent(near) || recent(writer)))
}

async fn readyz(State(shop): State<Arc<Shop>>) -> (StatusCode, &'static str) {
    let (_, writer) = shop.database.silent_for();
    verdict(shop.health.schema_ready.load(Ordering::Relaxed) && recent(writer))
}

fn recent(silent_for: Option<Duration>) -> bool {
    silent_for.is_some_and(|silence| silence <= ANSWERED_WITHIN)
}

fn verdict(good: bool) -> (StatusCode, &'static str) {
    if good { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "no database\n") }
}

struct Ping;

impl Query for Ping {
    type Answer = ();

    async fn ask(&self, client: &Client) -> Result<(), Failure> {
        Ok(client.batch_execute("SELECT 1").await?)
    }
}

/// Stamps the data. Instances share one row, and whoever comes within half a second of another leaves it alone.
struct Stamp;

impl Query for Stamp {
    type Answer = ();

    async fn ask(&self, client: &Client) -> Result<(), Failure> {
        let stamp = "UPDATE freshness SET at = clock_timestamp()
                     WHERE at < clock_timestamp() - interval '500 milliseconds'";
        client.batch_execute(stamp).await?;
        Ok(())
    }
}

/// Removes carts that nobody came back for and keys that nobody will repeat.
struct Sweep;

impl Query for Sweep {
    type Answer = ();

    async fn ask(&self, client: &Client) -> Result<(), Failure> {
        let sweep = "DELETE FROM carts WHERE touched_at < now() - interval '30 days';
                     DELETE FROM idempotency_keys WHERE created_at < now() - interval '7 days'";
        client.batch_execute(sweep).await?;
        Ok(())
    }
}
