//! What one region knows now: the last facts, with the moments at which they were received.
//!
//! Only `Helm::observe` changes a view. Every moment is of this region's own clock.

use std::{collections::BTreeMap, time::Duration};

use isles_model::{
    AppReport, DatabaseReport, DatabaseRole, DatabaseState, Epoch, Fact, LeaseKey, LeaseState, Lsn, Moment,
    Orders, RegionName, RegionReport, Revision, Standbys, Transfer, TransferKind,
};
use serde::{Deserialize, Serialize};

use crate::HelmConfig;

/// A report older than this, and a round trip, says nothing about now. Peers are probed every 200 ms.
const PEER_FRESH: Duration = Duration::from_secs(1);

/// So many unanswered probes in a row make a peer silent.
const SILENCES_MAX: u32 = 2;

/// When every sight of the key has been older than the newest for so long, these are not late answers: the store
/// was restored from a backup, or replaced.
const STORE_REPLACED_AFTER: Duration = Duration::from_secs(5);

/// Two older sights that are farther apart say nothing about the time between: this process may have stood still.
const OLDER_SIGHTS_APART_MAX: Duration = Duration::from_millis(2_500);

/// What one region knows now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct View {
    /// The own region.
    region: RegionName,
    /// When this run began.
    pub(crate) started: Moment,
    /// The lease key, once read.
    pub(crate) lease: Option<Sighting>,
    /// Accepted sightings so far: tells whether one has come since.
    pub(crate) sightings: u64,
    /// The last read of the lease store failed.
    pub(crate) store_silent: bool,
    /// The newest epoch that anything seen speaks of.
    pub(crate) newest: Epoch,
    /// The own database, once probed.
    pub(crate) database: Option<DatabaseReport>,
    /// Since when the own database has not answered.
    pub(crate) down_since: Option<Moment>,
    /// The end of the own log when the writer was first seen fenced: no write of the app comes after it.
    pub(crate) last_write: Option<Lsn>,
    /// The own app.
    pub(crate) app: AppReport,
    /// Every other region.
    pub(crate) peers: BTreeMap<RegionName, PeerView>,
    /// The operator's standing orders, and their revision.
    pub(crate) orders: (Orders, Revision),
    /// When the standing transfer, and this region's drain, were first seen.
    pub(crate) transfer_seen: Moment,
    pub(crate) drained_since: Option<Moment>,
    /// How much of the own log each follower has confirmed, and since when it has been just that.
    pub(crate) confirmed: BTreeMap<RegionName, (Lsn, Moment)>,
    /// Since when the agent has been stopping.
    pub(crate) stopping: Option<Moment>,
}

/// The lease key as last seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sighting {
    /// Its last value; kept when the key has vanished. `None`: it has never existed.
    pub(crate) key: Option<LeaseKey>,
    /// What a put has to expect: 0 when the key is absent.
    pub(crate) revision: Revision,
    /// The highest revision seen: an older one is a late answer and says nothing.
    highest: Revision,
    /// Since when nothing but older revisions has been seen.
    older_since: Option<Moment>,
    /// When one of these was last seen.
    #[serde(default)]
    older_seen: Moment,
    /// When the last change was received.
    pub(crate) changed: Moment,
}

/// What is known of one peer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PeerView {
    /// Its last report, and when it was received.
    pub(crate) heard: Option<(RegionReport, Moment)>,
    /// The last measured round trip.
    pub(crate) rtt: Option<Duration>,
    /// Unanswered probes since the last report.
    silences: u32,
}

impl Sighting {
    /// When the right that it shows ends for whoever only watches: a whole TTL after the change was received.
    pub(crate) fn ends(&self, config: &HelmConfig) -> Moment {
        self.changed.plus(self.key.as_ref().map_or(config.ttl, |key| key.ttl))
    }
}

impl View {
    pub(crate) fn new(config: &HelmConfig, started: Moment) -> Self {
        Self {
            region: config.region.clone(),
            started,
            lease: None,
            sightings: 0,
            store_silent: false,
            newest: Epoch::NONE,
            database: None,
            down_since: None,
            last_write: None,
            app: AppReport::default(),
            peers: config.peers().map(|peer| (peer.clone(), PeerView::default())).collect(),
            orders: (Orders::default(), Revision::default()),
            transfer_seen: Moment::ZERO,
            drained_since: None,
            confirmed: BTreeMap::new(),
            stopping: None,
        }
    }

    /// Takes one fact in. An answer to a put, and what concerns promises, is the helm's to take.
    pub(crate) fn take(&mut self, now: Moment, fact: Fact) {
        match fact {
            Fact::LeaseSeen { key, revision } => {
                self.store_silent = false;
                self.see_lease(now, key, revision);
            }
            Fact::LeaseStoreSilent => self.store_silent = true,
            Fact::LeaseAnswered { .. } | Fact::PromiseAsked(_) | Fact::Promised { .. } => {}
            Fact::Database(report) => self.see_database(now, report),
            Fact::CommitsEnd { position } => {
                if self.down_since.is_some() {
                    self.last_write = Some(position);
                }
            }
            Fact::App(report) => self.app = report,
            Fact::Peer { report, rtt } => self.see_peer(now, report, rtt),
            Fact::PeerSilent { region } => {
                if let Some(peer) = self.peers.get_mut(&region) {
                    peer.silences = peer.silences.saturating_add(1);
                }
            }
            Fact::Orders { orders, revision } => self.see_orders(now, orders, revision),
            Fact::Stopping => self.stopping = self.stopping.or(Some(now)),
        }
    }

    /// The orders are at this revision; older ones are late answers.
    fn see_orders(&mut self, now: Moment, orders: Orders, revision: Revision) {
        if revision <= self.orders.1 {
            return;
        }
        let number = |orders: &Orders| orders.transfer.as_ref().map(|transfer| transfer.number);
        if number(&orders) != number(&self.orders.0) {
            self.transfer_seen = now;
        }
        let drained = orders.drained.contains(&self.region);
        self.drained_since = drained.then(|| self.drained_since.unwrap_or(now));
        self.orders = (orders, revision);
    }

    /// Whether an operator's order drains a region.
    pub(crate) fn is_drained(&self, region: &RegionName) -> bool {
        self.orders.0.drained.contains(region)
    }

    /// The transfer that stands under the newest epoch.
    pub(crate) fn transfer(&self) -> Option<&Transfer> {
        self.orders.0.transfer.as_ref().filter(|transfer| transfer.from == self.newest)
    }

    /// Who was ordered to take the right though it may lack writes. It counts for a right that lapses: a holder that
    /// gives its right back knows better who should have it.
    pub(crate) fn forced(&self) -> Option<&RegionName> {
        let key = self.lease.as_ref().and_then(|lease| lease.key.as_ref());
        let lapses = key.is_none_or(|key| key.state == LeaseState::Held);
        let transfer =
            self.transfer().filter(|transfer| transfer.kind == TransferKind::Failover && lapses)?;
        Some(&transfer.to)
    }

    /// The key is at this revision. A revision older than the highest seen is a late answer; a key that has
    /// vanished is remembered, and timed from the first sight of its absence.
    pub(crate) fn see_lease(&mut self, now: Moment, key: Option<LeaseKey>, revision: Revision) {
        if let Some(key) = &key {
            self.newest = self.newest.max(key.epoch);
        }
        let Some(last) = &mut self.lease else {
            self.sightings += 1;
            self.lease = Some(Sighting {
                key,
                revision,
                highest: revision,
                older_since: None,
                older_seen: now,
                changed: now,
            });
            return;
        };
        if key.is_some() && revision < last.highest {
            let goes_on = now.since(last.older_seen) <= OLDER_SIGHTS_APART_MAX;
            let since = last.older_since.filter(|_| goes_on).unwrap_or(now);
            (last.older_since, last.older_seen) = (Some(since), now);
            if now.since(since) < STORE_REPLACED_AFTER {
                return;
            }
            last.highest = revision;
        }
        last.older_since = None;
        self.sightings += 1;
        if revision != last.revision {
            last.changed = now;
            last.revision = revision;
            last.highest = last.highest.max(revision);
            last.key = key.or(last.key.take());
        }
    }

    fn see_database(&mut self, now: Moment, report: DatabaseReport) {
        self.newest = self.newest.max(report.lineage.epoch);
        self.down_since = match report.state {
            DatabaseState::Up => None,
            DatabaseState::Down => self.down_since.or(Some(now)),
        };
        let fenced = report.role == DatabaseRole::Fenced && report.lineage.wrote;
        if report.state == DatabaseState::Up {
            self.last_write = fenced.then(|| self.last_write.unwrap_or(report.position));
        }
        let Standbys { confirmed, required, .. } = &report.standbys;
        self.confirmed.retain(|region, _| confirmed.contains_key(region) || required.contains(region));
        for region in required.iter().chain(confirmed.keys()) {
            let position = confirmed.get(region).copied().unwrap_or_default();
            let last = self.confirmed.entry(region.clone()).or_insert((position, now));
            if last.0 != position {
                *last = (position, now);
            }
        }
        self.database = Some(report);
    }

    fn see_peer(&mut self, now: Moment, report: RegionReport, rtt: Duration) {
        if let Some(peer) = self.peers.get_mut(&report.region) {
            self.newest = self.newest.max(report.epoch).max(report.database.lineage.epoch);
            *peer = PeerView { heard: Some((report, now)), rtt: Some(rtt), silences: 0 };
        }
    }

    /// The peers that have answered lately, with their reports.
    pub(crate) fn fresh_peers(&self, now: Moment) -> impl Iterator<Item = &RegionReport> {
        self.peers.values().filter_map(move |peer| peer.fresh(now))
    }

    /// What a peer said lately.
    pub(crate) fn fresh(&self, region: &RegionName, now: Moment) -> Option<&RegionReport> {
        self.peers.get(region)?.fresh(now)
    }

    /// From when on this region may compare itself with its peers: once it has heard all of them, or has
    /// listened for as long as a report is fresh.
    pub(crate) fn settled_at(&self) -> Moment {
        let heard_all = self.peers.values().all(|peer| peer.heard.is_some());
        if heard_all { self.started } else { self.started.plus(PEER_FRESH) }
    }

    /// Whether any peer has ever said that it holds rows.
    pub(crate) fn peers_have_rows(&self) -> bool {
        let heard = self.peers.values().filter_map(|peer| peer.heard.as_ref());
        heard.into_iter().any(|(report, _)| report.database.lineage.epoch > Epoch::NONE)
    }

    /// The first moment at which a report grows stale.
    pub(crate) fn stale_at(&self, now: Moment) -> Option<Moment> {
        self.peers.values().filter(|peer| peer.fresh(now).is_some()).filter_map(PeerView::stale_at).min()
    }
}

impl PeerView {
    fn stale_at(&self) -> Option<Moment> {
        let (_, received) = self.heard.as_ref()?;
        Some(received.plus(PEER_FRESH + self.rtt.unwrap_or_default()))
    }

    fn fresh(&self, now: Moment) -> Option<&RegionReport> {
        let (report, _) = self.heard.as_ref()?;
        let lately = self.stale_at().is_some_and(|end| now < end);
        (lately && self.silences < SILENCES_MAX).then_some(report)
    }
}
