//! Says which regions users may be sent to, for requests and for reads, and why not.

use std::time::Duration;

use isles_model::{
    AppReport, Because, Copy, DatabaseReport, DatabaseRole, Epoch, Moment, RegionName, Serving,
    topology::Pattern,
};

use crate::{HelmConfig, elect, view::View};

/// Every region, this one first, then the nearest first.
pub(crate) fn serve(
    config: &HelmConfig,
    view: &View,
    now: Moment,
    writer: Option<&RegionName>,
    draining: bool,
) -> Vec<Serving> {
    let serving = |region| one(config, view, now, region, draining);
    let mut all: Vec<Serving> = config.regions.iter().map(serving).collect();
    if config.pattern == Pattern::ActivePassive {
        let active = active_region(config, view, now, writer, &all);
        for serving in all.iter_mut().filter(|serving| Some(&serving.region) != active.as_ref()) {
            if serving.app || serving.reads {
                serving.because = Because::Standby;
            }
            serving.app = false;
            serving.reads = false;
        }
    }
    all.sort_by_key(|serving| {
        (serving.region != config.region, serving.rtt, config.preference(&serving.region))
    });
    all
}

/// The own instances that may take requests.
pub(crate) fn instances(app: &AppReport) -> Vec<usize> {
    app.healthy.iter().enumerate().filter(|(_, up)| **up).map(|(index, _)| index).collect()
}

fn one(config: &HelmConfig, view: &View, now: Moment, region: &RegionName, own_drains: bool) -> Serving {
    let own = *region == config.region;
    let rtt = if own { Duration::ZERO } else { round_trip(config, view, region) };
    let nothing = |because| Serving { region: region.clone(), app: false, reads: false, rtt, because };
    let (draining, app, database) = if own {
        (own_drains, view.app.any(), view.database.as_ref())
    } else {
        let Some(report) = view.fresh(region, now) else { return nothing(Because::PeerSilent) };
        (report.draining, report.app.any(), Some(&report.database))
    };
    if draining {
        return nothing(if view.is_drained(region) { Because::Drained } else { Because::Draining });
    }
    let readable = database.ok_or(Because::Starting).and_then(|report| readable(config, report, view.newest));
    Serving {
        region: region.clone(),
        app,
        reads: readable.is_ok(),
        rtt,
        because: if app { readable.err().unwrap_or(Because::Healthy) } else { Because::AppDown },
    }
}

/// Whether a database may answer reads; never a copy that is incomplete, diverged, or staler than promised.
fn readable(config: &HelmConfig, report: &DatabaseReport, newest: Epoch) -> Result<(), Because> {
    elect::fitness(report, newest)?;
    match &report.role {
        DatabaseRole::Writer { .. } => Ok(()),
        DatabaseRole::Replica { copy: Copy::Complete, .. } => match report.lag {
            Some(lag) if lag.time > config.max_staleness => Err(Because::TooStale),
            Some(_) | None => Ok(()),
        },
        DatabaseRole::Replica { copy: Copy::Running | Copy::Extending, .. } => Err(Because::CopyIncomplete),
        // A fenced database has all rows only if it was the newest writer itself.
        DatabaseRole::Fenced if report.lineage.wrote && report.lineage.epoch == newest => Ok(()),
        DatabaseRole::Fenced => Err(Because::Starting),
    }
}

/// The one region that takes traffic in active-passive: the writer's, else the best candidate's, else the most
/// preferred one, the first of them whose app answers.
fn active_region(
    config: &HelmConfig,
    view: &View,
    now: Moment,
    writer: Option<&RegionName>,
    all: &[Serving],
) -> Option<RegionName> {
    let first = writer.or_else(|| elect::best(config, view, now));
    let order = first.into_iter().chain(&config.regions);
    let answers = |region: &&RegionName| all.iter().any(|serving| serving.region == **region && serving.app);
    order.into_iter().find(answers).or(first).cloned()
}

fn round_trip(config: &HelmConfig, view: &View, region: &RegionName) -> Duration {
    let measured = view.peers.get(region).and_then(|peer| peer.rtt);
    measured.or_else(|| config.rtts.get(region).copied()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use isles_model::{DatabaseState, Lag, Lineage, Lsn, Standbys};

    use super::*;

    #[test]
    fn only_healthy_instances_are_named() {
        assert_eq!(instances(&AppReport { healthy: vec![true, false, true] }), [0, 2]);
    }

    #[test]
    fn a_copy_that_is_incomplete_diverged_or_stale_answers_no_reads() {
        let config = crate::helm::tests::config("eu");
        let replica = |copy| DatabaseRole::Replica { writer: "eu".parse().unwrap(), epoch: Epoch(2), copy };
        let report = |role, epoch, wrote, lag_ms: Option<u64>| DatabaseReport {
            state: DatabaseState::Up,
            role,
            lineage: Lineage { epoch: Epoch(epoch), wrote },
            position: Lsn(1),
            lag: lag_ms.map(|ms| Lag { bytes: 1, time: Duration::from_millis(ms) }),
            standbys: Standbys::default(),
        };
        let check = |report: DatabaseReport, expect| assert_eq!(readable(&config, &report, Epoch(2)), expect);
        check(report(replica(Copy::Complete), 2, false, Some(10)), Ok(()));
        check(report(replica(Copy::Complete), 2, false, None), Ok(()));
        check(report(replica(Copy::Complete), 1, false, Some(10)), Ok(()));
        check(report(replica(Copy::Complete), 2, false, Some(60_000)), Err(Because::TooStale));
        check(report(replica(Copy::Running), 2, false, None), Err(Because::CopyIncomplete));
        check(report(replica(Copy::Extending), 2, false, Some(10)), Err(Because::CopyIncomplete));
        check(report(replica(Copy::Complete), 0, false, None), Err(Because::CopyIncomplete));
        check(report(DatabaseRole::Writer { epoch: Epoch(2) }, 2, true, None), Ok(()));
        check(report(DatabaseRole::Writer { epoch: Epoch(1) }, 1, true, None), Err(Because::CopyDiverged));
        check(report(DatabaseRole::Fenced, 2, true, None), Ok(()));
        check(report(DatabaseRole::Fenced, 2, false, None), Err(Because::Starting));
    }
}
