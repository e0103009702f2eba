//! Lets the holder go on while the lease store is silent, for as long as *every* other region has promised not to
//! claim (`quorum.failsafe`).
//!
//! A promise lasts a TTL: the holder counts it from before the request was sent, the other region from its receipt, as
//! with a renewal of the key. Whoever promised nothing may claim, so one region that does not answer ends the writing.
//! A promise outlives a restart without being written down: a new run claims a whole TTL after its first sight of the
//! key at the earliest, and a promise given before the restart ends no later.

use std::{collections::BTreeMap, time::Duration};

use isles_model::{Epoch, LeaseState, Moment, NoPromise, PROMISE_MAX, PromiseRequest, RegionName};
use serde::{Deserialize, Serialize};

use crate::{HelmConfig, hold::Hold, view::View};

/// A holder whose last so many renewals came to nothing asks for promises: early enough to have them before the end.
const MISSED_RENEWALS: u32 = 3;

/// Promises given and received.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Promises {
    /// The last one given, and how long it is kept.
    given: Option<(PromiseRequest, Moment)>,
    /// From whom, and from when on each counts.
    received: BTreeMap<RegionName, Moment>,
    /// The epoch of those received.
    epoch: Epoch,
    /// When they were last asked for.
    asked: Moment,
    /// How long those received last.
    lasts: Duration,
    /// One that was asked for then or earlier does not count: it was asked for another length.
    not_before: Moment,
}

impl Promises {
    /// Somebody says that it holds the right and asks for a promise: gives it, unless it may be wrong about that or
    /// this region has a claim under way.
    pub(crate) fn consider(
        &mut self,
        now: Moment,
        config: &HelmConfig,
        view: &View,
        hold: &Hold,
        request: PromiseRequest,
    ) {
        if may_promise(config, view, hold, &request).is_ok() {
            let kept = now.plus(request.ttl).max(self.kept_until());
            self.given = Some((request, kept));
        }
    }

    /// Whether the answer to a request is yes.
    pub(crate) fn gave(&self, request: &PromiseRequest) -> bool {
        self.given.as_ref().is_some_and(|(given, _)| given == request)
    }

    /// Until when this region claims nothing.
    pub(crate) fn kept_until(&self) -> Moment {
        self.given.as_ref().map_or(Moment::ZERO, |(_, kept)| *kept)
    }

    /// A peer has promised.
    pub(crate) fn receive(&mut self, region: RegionName, epoch: Epoch, asked_at: Moment) {
        if epoch != self.epoch || asked_at <= self.not_before || asked_at > self.asked {
            return;
        }
        let last = self.received.entry(region).or_insert(asked_at);
        *last = asked_at.max(*last);
    }

    /// From now on a promise lasts so long. What was promised for another length no longer counts: whoever promised for
    /// a shorter one may claim before the longer ends, and so may one that has restarted since the key's was shortened.
    pub(crate) fn lasting(&mut self, now: Moment, ttl: Duration) {
        if self.lasts != ttl {
            self.received.clear();
            self.not_before = now;
            self.lasts = ttl;
        }
    }

    /// From when on every other region's promise counts; `None`: one of them has not promised.
    pub(crate) fn all_since(&self, config: &HelmConfig, epoch: Epoch) -> Option<Moment> {
        if epoch != self.epoch {
            return None;
        }
        let mut since = self.asked;
        for peer in config.peers() {
            since = since.min(*self.received.get(peer)?);
        }
        Some(since)
    }

    /// When to ask next.
    pub(crate) fn due(&self, config: &HelmConfig, hold: &Hold) -> Option<Moment> {
        let wanted = hold.renewed().plus(config.renew_every * MISSED_RENEWALS);
        let epoch = hold.tenure().filter(|_| config.failsafe)?.epoch;
        let again = if epoch == self.epoch { self.asked.plus(config.renew_every) } else { Moment::ZERO };
        Some(wanted.max(again))
    }

    /// The request to send now, if one is due.
    pub(crate) fn ask(&mut self, now: Moment, config: &HelmConfig, hold: &Hold) -> Option<PromiseRequest> {
        let epoch = hold.tenure()?.epoch;
        self.due(config, hold).filter(|due| now >= *due)?;
        if epoch != self.epoch {
            self.received.clear();
            self.epoch = epoch;
        }
        self.asked = now;
        Some(PromiseRequest { holder: config.region.clone(), epoch, ttl: self.lasts, asked_at: now })
    }
}

/// Whether this region may promise to leave the right to whoever asks, and if not, why.
pub(crate) fn may_promise(
    config: &HelmConfig,
    view: &View,
    hold: &Hold,
    request: &PromiseRequest,
) -> Result<(), NoPromise> {
    let key = view.lease.as_ref().and_then(|lease| lease.key.as_ref());
    let holds = request.epoch > view.newest
        || request.epoch == view.newest
            && key
                .filter(|key| key.epoch == request.epoch)
                .is_none_or(|key| key.holder == request.holder && key.state == LeaseState::Held);
    let bars = [
        (!config.failsafe, NoPromise::NotAllowed),
        (!config.peers().any(|peer| *peer == request.holder), NoPromise::NotAPeer),
        (request.ttl > PROMISE_MAX, NoPromise::TooLong),
        (hold.tenure().is_some(), NoPromise::HoldsItself),
        (hold.claims(), NoPromise::Claims),
        (!holds, NoPromise::NotTheHolder),
    ];
    bars.into_iter().find(|(barred, _)| *barred).map_or(Ok(()), |(_, because)| Err(because))
}
