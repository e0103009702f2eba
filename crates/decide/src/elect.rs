//! Chooses the region that should write next: the one that holds most of the last writer's log.
//!
//! Nobody votes. Every region ranks itself against what its peers said last, a worse one waits a little for each
//! better one, and the compare-and-put decides: a wrong rank costs time or unreplicated writes, never two writers.

use std::{cmp::Reverse, time::Duration};

use isles_model::{
    Because, Copy, DatabaseReport, DatabaseRole, DatabaseState, Epoch, LeaseKey, LeaseState, Lsn, Moment,
    RegionName, RegionReport,
};

use crate::{HelmConfig, view::View};

/// A candidate waits for at most so many better ones: their places may all be empty.
const BETTER_MAX: u32 = 3;

/// How much a copy is worth as the next writer; greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    epoch: Epoch,
    position: Lsn,
    preference: Reverse<usize>,
}

/// How long this region gives way, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// From the moment at which the right is free.
    pub(crate) after: Duration,
    /// Why so long.
    pub(crate) because: Because,
}

/// Whether a copy may become the writer after `newest`, and if not, why.
///
/// A replica that has not yet followed the newest writer may: it is the last resort, and ranks below every copy
/// that has. A former writer of an older epoch may not: its rows may have left the history.
pub(crate) fn fitness(report: &DatabaseReport, newest: Epoch) -> Result<(), Because> {
    if report.state == DatabaseState::Down {
        return Err(Because::DatabaseDown);
    }
    if matches!(report.role, DatabaseRole::Replica { copy: Copy::Running, .. }) {
        return Err(Because::CopyIncomplete);
    }
    if report.lineage.epoch == Epoch::NONE && newest > Epoch::NONE {
        return Err(Because::CopyIncomplete);
    }
    if report.lineage.wrote && report.lineage.epoch < newest {
        return Err(Because::CopyDiverged);
    }
    Ok(())
}

fn rank(config: &HelmConfig, region: &RegionName, report: &DatabaseReport) -> Rank {
    rank_of(report, config.preference(region))
}

/// What a copy is worth, of a region at this place in the order of preference (0 is the first).
pub(crate) fn rank_of(report: &DatabaseReport, preference: usize) -> Rank {
    Rank { epoch: report.lineage.epoch, position: report.position, preference: Reverse(preference) }
}

/// The peers that could write next, as far as is known.
fn fit_peers<'a>(
    config: &'a HelmConfig,
    view: &'a View,
    now: Moment,
) -> impl Iterator<Item = (Rank, &'a RegionReport)> {
    view.fresh_peers(now)
        .filter(|peer| may_write(view, peer))
        .map(|peer| (rank(config, &peer.region, &peer.database), peer))
}

fn may_write(view: &View, peer: &RegionReport) -> bool {
    let drained = peer.draining || view.is_drained(&peer.region);
    !drained && fitness(&peer.database, view.newest).is_ok()
}

/// The peer to hand the right to.
pub(crate) fn best_peer<'a>(config: &'a HelmConfig, view: &'a View, now: Moment) -> Option<&'a RegionReport> {
    fit_peers(config, view, now).max_by_key(|(rank, _)| *rank).map(|(_, peer)| peer)
}

/// What a peer said lately, if it could write next.
pub(crate) fn fit_peer<'a>(view: &'a View, now: Moment, region: &RegionName) -> Option<&'a RegionReport> {
    view.fresh(region, now).filter(|peer| may_write(view, peer))
}

/// The region that should write next, this one included.
pub(crate) fn best<'a>(config: &'a HelmConfig, view: &'a View, now: Moment) -> Option<&'a RegionName> {
    let own = view
        .database
        .as_ref()
        .filter(|report| {
            view.stopping.is_none() && view.drained_since.is_none() && fitness(report, view.newest).is_ok()
        })
        .map(|report| (rank(config, &config.region, report), &config.region));
    fit_peers(config, view, now)
        .map(|(rank, peer)| (rank, &peer.region))
        .chain(own)
        .max()
        .map(|(_, name)| name)
}

/// When this region's turn comes once the right is free; its own fitness is the caller's to judge.
pub(crate) fn turn(
    config: &HelmConfig,
    view: &View,
    now: Moment,
    key: Option<&LeaseKey>,
) -> Result<Turn, Because> {
    let own = view.database.as_ref().ok_or(Because::Starting)?;
    let own_rank = rank(config, &config.region, own);
    let lapsed_holder = key.filter(|key| key.state == LeaseState::Held).map(|key| &key.holder);
    let heir = key.and_then(heir);
    if heir == Some(&config.region) {
        return Ok(Turn { after: Duration::ZERO, because: Because::Claiming });
    }
    // Because a holder that let its right lapse has had a whole TTL to renew it, nobody waits for it again.
    let better: Vec<(Rank, &RegionReport)> = fit_peers(config, view, now)
        .filter(|(rank, peer)| *rank > own_rank || heir == Some(&peer.region))
        .filter(|(_, peer)| lapsed_holder != Some(&peer.region))
        .collect();
    let Some((best, _)) = better.iter().max_by_key(|(rank, _)| *rank) else {
        return Ok(Turn { after: Duration::ZERO, because: Because::Claiming });
    };
    let ahead = (best.epoch, best.position) > (own_rank.epoch, own_rank.position);
    let count = u32::try_from(better.len()).unwrap_or(BETTER_MAX).min(BETTER_MAX);
    Ok(Turn {
        after: config.patience * count + slower_than_planned(config, view, &better).min(config.ttl / 2),
        because: if ahead { Because::PeerIsAhead } else { Because::PeerIsPreferred },
    })
}

/// By how much the slowest of the better candidates is farther away now than planned: its put will be as late.
fn slower_than_planned(config: &HelmConfig, view: &View, better: &[(Rank, &RegionReport)]) -> Duration {
    let excess = better.iter().filter_map(|(_, peer)| {
        let planned = config.rtts.get(&peer.region).copied().unwrap_or_default();
        Some(view.peers.get(&peer.region)?.rtt?.saturating_sub(planned))
    });
    excess.max().unwrap_or_default()
}

/// The region that the last holder named.
pub(crate) fn heir(key: &LeaseKey) -> Option<&RegionName> {
    match &key.state {
        LeaseState::Held => None,
        LeaseState::Released { heir } => heir.as_ref(),
    }
}
