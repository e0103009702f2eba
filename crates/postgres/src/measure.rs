//! Asks the followed writer, over a session of its own, how far its log has come.

use std::{sync::Arc, time::Duration};

use isles_model::{DatabaseOrder, Lsn, Moment, RegionName};
use tokio::sync::watch;
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    error::{DatabaseError, Doing, within},
    link::{Link, Purpose},
    run::World,
};

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long an answer may take, beyond any planned round trip.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The end of a writer's log at a known moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Whose log.
    pub(crate) writer: RegionName,
    /// When the question was sent: the log was at least this far at some later moment.
    pub(crate) asked: Moment,
    /// Its end.
    pub(crate) end: Lsn,
}

/// Asks whoever is to be followed, until told to stop. A fence order changes nobody's log: the last samples stay.
pub(crate) async fn run(
    world: Arc<World>,
    mut orders: watch::Receiver<DatabaseOrder>,
    samples: watch::Sender<Option<Sample>>,
    stop: CancellationToken,
) {
    let mut link: Option<(RegionName, Link)> = None;
    let mut whom: Option<RegionName> = None;
    while !stop.is_cancelled() {
        match &*orders.borrow_and_update() {
            DatabaseOrder::Follow { writer, .. } => whom = Some(writer.clone()),
            DatabaseOrder::Write { .. } => whom = None,
            DatabaseOrder::Fence { .. } => {}
        }
        match &whom {
            None => {
                link = None;
                samples.send_replace(None);
            }
            Some(writer) => match ask(&world, writer, &mut link).await {
                Ok(sample) => {
                    samples.send_replace(Some(sample));
                }
                Err(error) => {
                    debug!(error = %error, peer = %writer, "The writer's log position is not known.");
                    link = None;
                }
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = orders.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

async fn ask(
    world: &World,
    writer: &RegionName,
    link: &mut Option<(RegionName, Link)>,
) -> Result<Sample, DatabaseError> {
    let (open, link) = match link {
        Some((whom, link)) if whom == writer && !link.is_closed() => (true, &*link),
        _ => {
            *link = Some((writer.clone(), world.peer_link(writer, Purpose::Measure).await?));
            (false, &link.as_ref().expect("set above").1)
        }
    };
    debug_assert!(open || !link.is_closed());
    let asked = (world.clock)();
    let question = async {
        link.query_one("SELECT pg_current_wal_lsn()", &[]).await.doing("asking for the writer's log position")
    };
    let row = within(ANSWER_MAX, "asking for the writer's log position", question).await?;
    Ok(Sample { writer: writer.clone(), asked, end: Lsn(row.get::<_, PgLsn>(0).into()) })
}
