//! Reports what this region's database is, several times a second, whatever else is going on in it.
//!
//! A session and a deadline of its own: a database that does not answer within [`ANSWER_MAX`] is reported down.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use isles_model::{
    Copy, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Fact, Lineage, Lsn, Metric, RegionName,
    Standbys,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_postgres::{Row, error::SqlState, types::PgLsn};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    admission,
    bookkeeping::epoch_of,
    crash::Footing,
    error::{DatabaseError, Doing, within},
    lag::Samples,
    link::{Link, Purpose},
    measure::Sample,
    run::World,
};

/// Between two reports while nothing changes.
pub const REPORT_EVERY: Duration = Duration::from_millis(200);
/// The same while the writer is away or fenced: a peer may wait for this region to be as far as it was.
const REPORT_CLOSELY_EVERY: Duration = Duration::from_millis(15);
/// For how long at most; what takes longer is no handover.
const CLOSELY_MAX: Duration = Duration::from_secs(5);
/// How long a database may take to answer before it counts as down.
pub const ANSWER_MAX: Duration = Duration::from_millis(500);

/// One round trip: lineage, door, subscription, positions. The applied position is the largest of three that all
/// mean "every transaction that ended here or before is applied": the origin's progress (moves with commits), the
/// end that the apply worker reported back (moves with keep-alives too; the worker is serial), and the positions
/// up to which the first copies were caught up.
const LOOK: &str = "
SELECT n.epoch, n.wrote, n.following, n.following_epoch,
       pg_current_wal_lsn() AS own_end,
       (pg_snapshot_xmax(pg_current_snapshot())::text::bigint % 4294967296) AS next_transaction,
       coalesce((SELECT rolcanlogin FROM pg_roles WHERE rolname = $1), false) AS door_open,
       s.oid IS NOT NULL AS follows,
       coalesce((SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel WHERE srsubid = s.oid), true) AS whole,
       n.whole_upto,
       greatest(n.applied, o.remote_lsn, w.latest_end_lsn,
                (SELECT max(srsublsn) FROM pg_subscription_rel WHERE srsubid = s.oid)) AS applied
FROM isles.node n
LEFT JOIN pg_subscription s ON s.subname ^@ 'isles_'
     AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
LEFT JOIN pg_stat_subscription w ON w.subid = s.oid AND w.relid IS NULL
LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid";

/// Probes until told to stop or nobody listens.
pub(crate) async fn run(
    world: Arc<World>,
    facts: mpsc::Sender<Fact>,
    (mut samples, standbys): (watch::Receiver<Option<Sample>>, watch::Receiver<Standbys>),
    died: watch::Sender<Option<Footing>>,
    stop: CancellationToken,
) {
    let mut probe = Probe {
        world,
        link: None,
        samples: Samples::default(),
        of: None,
        last: None,
        own_end: None,
        footing: None,
        standbys,
    };
    let mut closely = Closely { wanted: probe.world.config.closely.clone(), since: None };
    loop {
        let begun = Instant::now();
        let changed = probe.world.changed.clone();
        let changed = changed.notified();
        probe.learn(samples.borrow_and_update().clone());
        let report = probe.look().await;
        probe.count(&report);
        let dead = probe.dead(&report);
        if dead.is_some() && died.borrow().is_none() {
            probe.admit_nobody();
        }
        died.send_if_modified(|last| std::mem::replace(last, dead) != dead);
        if facts.send(Fact::Database(report)).await.is_err() {
            return;
        }
        let next = begun + closely.every();
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed => {}
            () = probe.broken() => {}
            () = closely.begins() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// How often to look.
struct Closely {
    wanted: watch::Receiver<bool>,
    since: Option<Instant>,
}

impl Closely {
    /// Completes when it becomes urgent how far this region is.
    async fn begins(&mut self) {
        while self.wanted.changed().await.is_ok() {
            let wanted = *self.wanted.borrow_and_update();
            self.since = wanted.then(Instant::now);
            if wanted {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn every(&self) -> Duration {
        let closely = self.since.is_some_and(|since| since.elapsed() < CLOSELY_MAX);
        if closely { REPORT_CLOSELY_EVERY } else { REPORT_EVERY }
    }
}

struct Probe {
    world: Arc<World>,
    link: Option<Link>,
    samples: Samples,
    /// Whose log the samples are of.
    of: Option<RegionName>,
    last: Option<DatabaseReport>,
    /// The end of the own log at the last look, and what a look back at a dead writer stands on.
    own_end: Option<Lsn>,
    footing: Option<Footing>,
    /// What a writer knows of its followers.
    standbys: watch::Receiver<Standbys>,
}

impl Probe {
    fn learn(&mut self, sample: Option<Sample>) {
        match sample {
            None => {
                self.samples.clear();
                self.of = None;
            }
            Some(sample) => {
                if self.of.as_ref() != Some(&sample.writer) {
                    self.samples.clear();
                    self.of = Some(sample.writer);
                }
                self.samples.add(sample.asked, sample.end);
            }
        }
    }

    async fn look(&mut self) -> DatabaseReport {
        match within(ANSWER_MAX, "probing the database", self.ask()).await {
            Ok(report) => report,
            Err(error) => {
                self.link = None;
                if self.last.as_ref().is_none_or(|last| last.state == DatabaseState::Up) {
                    warn!(error = %error, "The database does not answer.");
                }
                self.down()
            }
        }
    }

    /// Completes when the probe's own session breaks: that is news at once.
    async fn broken(&mut self) {
        match &mut self.link {
            Some(link) if !link.is_closed() => link.closed().await,
            Some(_) | None => std::future::pending().await,
        }
    }

    /// A database that has died lets nobody in when it starts again, until the fence opens its door.
    fn admit_nobody(&self) {
        let Some(files) = &self.world.config.database.files else { return };
        self.world.admits.store(false, Ordering::Release);
        if let Err(error) = admission::write(&files.admitted, None) {
            warn!(error = %error, "Who may log in after the next start could not be taken back.");
        }
    }

    /// What is known of a writer's database that has just died.
    fn dead(&self, report: &DatabaseReport) -> Option<Footing> {
        let wrote = report.state == DatabaseState::Down && report.lineage.wrote;
        self.footing.filter(|_| wrote)
    }

    /// What was last known of a database that does not answer: its position and lineage still stand.
    fn down(&self) -> DatabaseReport {
        let last = self.last.clone().unwrap_or_else(DatabaseReport::unknown);
        DatabaseReport { state: DatabaseState::Down, lag: None, ..last }
    }

    async fn ask(&mut self) -> Result<DatabaseReport, DatabaseError> {
        let config = &self.world.config.database;
        if self.link.as_ref().is_none_or(|link| link.is_closed()) {
            self.link = match Link::own(config, Purpose::Probe).await {
                Ok(link) => Some(link),
                Err(error) if is_missing(&error) => return self.ask_cluster().await,
                Err(error) => return Err(error),
            };
        }
        let link = self.link.as_ref().expect("opened above");
        match link.query_opt(LOOK, &[&config.app_user]).await.doing("probing the database") {
            Ok(Some(row)) => Ok(self.report(&row)),
            Ok(None) => self.ask_cluster().await,
            Err(error) if is_missing(&error) => self.ask_cluster().await,
            Err(error) => Err(error),
        }
    }

    /// The app's database is missing or still without bookkeeping: being made, or made anew.
    async fn ask_cluster(&mut self) -> Result<DatabaseReport, DatabaseError> {
        self.link = None;
        let link = Link::cluster(&self.world.config.database, Purpose::Probe).await?;
        let end: PgLsn =
            link.query_one("SELECT pg_current_wal_lsn()", &[]).await.doing("probing the cluster")?.get(0);
        Ok(DatabaseReport {
            state: DatabaseState::Up,
            role: DatabaseRole::Fenced,
            lineage: Lineage::default(),
            position: Lsn(end.into()),
            lag: None,
            standbys: Standbys::default(),
        })
    }

    fn report(&mut self, row: &Row) -> DatabaseReport {
        let whole_upto = row.get::<_, Option<PgLsn>>("whole_upto").map(|upto| Lsn(upto.into()));
        // What was complete and is copied again leaves the rows without a history until it is complete again.
        let epoch = if whole_upto == Some(Lsn(0)) { Epoch::NONE } else { epoch_of(row.get(0)) };
        let lineage = Lineage { epoch, wrote: row.get(1) };
        let following = row
            .get::<_, Option<&str>>(2)
            .and_then(|name| name.parse::<RegionName>().ok())
            .zip(row.get::<_, Option<i64>>(3).map(epoch_of));
        let applied = Lsn(row.get::<_, PgLsn>("applied").into());
        let own_end = Lsn(row.get::<_, PgLsn>("own_end").into());
        let next_transaction = u32::try_from(row.get::<_, i64>("next_transaction")).unwrap_or_default();
        let lost = self.world.room.is_lost();
        if !lost || self.footing.is_none() {
            self.footing = self.own_end.replace(own_end).map(|end| Footing { end, next_transaction });
        }
        let role = match following {
            Some((writer, epoch)) if row.get("follows") => {
                let copy = match whole_upto {
                    _ if lineage.epoch != epoch => Copy::Running,
                    None if row.get("whole") => Copy::Complete,
                    None | Some(Lsn(0)) => Copy::Running,
                    Some(_) => Copy::Extending,
                };
                DatabaseRole::Replica { writer, epoch, copy }
            }
            _ if lineage.wrote && row.get("door_open") && self.world.admits.load(Ordering::Acquire) => {
                DatabaseRole::Writer { epoch: lineage.epoch }
            }
            _ => DatabaseRole::Fenced,
        };
        let lag = match &role {
            DatabaseRole::Replica { writer, .. } if self.of.as_ref() == Some(writer) => {
                self.samples.lag((self.world.clock)(), applied)
            }
            DatabaseRole::Replica { .. } | DatabaseRole::Writer { .. } | DatabaseRole::Fenced => None,
        };
        let position = if lineage.wrote { own_end } else { whole_upto.unwrap_or(applied) };
        // A replica that can write nothing grows stale, and answers reads until then.
        let useless = lost && lineage.wrote && !matches!(role, DatabaseRole::Replica { .. });
        DatabaseReport {
            state: if useless { DatabaseState::Down } else { DatabaseState::Up },
            role,
            lineage,
            position,
            lag,
            standbys: if lineage.wrote { self.standbys.borrow().clone() } else { Standbys::default() },
        }
    }

    fn count(&mut self, report: &DatabaseReport) {
        let meter = &self.world.meter;
        let up = report.state == DatabaseState::Up;
        meter.set(Metric::DatabaseUp, &[], if up { 1.0 } else { 0.0 });
        if let Some(lag) = report.lag {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            meter.set(Metric::ReplicationLagBytes, &[], lag.bytes as f64);
            meter.set(Metric::ReplicationLagSeconds, &[], lag.time.as_secs_f64());
        }
        let before = self.last.replace(report.clone());
        let Some(before) = before else { return };
        if before.state != report.state && up {
            info!("The database answers again.");
        }
        if before.role != report.role {
            debug!(role = ?report.role, "The database's role changed.");
        }
    }
}

fn is_missing(error: &DatabaseError) -> bool {
    let (DatabaseError::Query { source, .. } | DatabaseError::Connect { source, .. }) = error else {
        return false;
    };
    source.code().is_some_and(|code| {
        [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_DATABASE, SqlState::INVALID_CATALOG_NAME]
            .contains(code)
    })
}
