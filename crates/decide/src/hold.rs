//! Keeps count of the compare-and-puts under way, and of how long what they stored lets this region write.
//!
//! A deadline is counted from the tick that *emitted* the successful put. Nobody can have received the change
//! earlier than that, so nobody's TTL can end before this deadline does, clocks and margin allowing.

use std::{collections::BTreeSet, time::Duration};

use isles_model::{
    AttemptId, Epoch, LeaseKey, LeaseOrder, LeaseOutcome, LeaseState, Moment, RegionName, Revision, Successor,
};
use serde::{Deserialize, Serialize};

use crate::{HelmConfig, view::View};

/// An attempt without an answer for this share of a TTL is given up: the link may be dead.
const ABANDONED_AFTER_TTL_PARTS: u32 = 3;

/// The right to write, while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenure {
    /// Under which epoch.
    pub(crate) epoch: Epoch,
    /// When the put was emitted that began it.
    pub(crate) since: Moment,
    /// The gate's deadline.
    pub(crate) until: Moment,
}

/// What a put is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Takes the right: a new epoch, or the own one after a restart.
    Claim,
    /// Prolongs it.
    Renew,
    /// Gives it back.
    Release,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Attempt {
    id: AttemptId,
    purpose: Purpose,
    value: LeaseKey,
    /// The revision it expects: once the key has another one, it can no longer be stored.
    expected: Revision,
    emitted: Moment,
    /// Sightings of the key before it was emitted.
    sightings: u64,
    /// Still waited for; otherwise its outcome is unknown.
    waiting: bool,
    /// Whether the right that it brings counts.
    counts: bool,
}

/// An answer as received, not yet acted upon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) attempt: AttemptId,
    pub(crate) outcome: LeaseOutcome,
    /// Sightings of the key before it came.
    pub(crate) sightings: u64,
}

/// The puts under way and the right they gave.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Hold {
    tenure: Option<Tenure>,
    /// The newest epoch that this run of the agent held.
    held: Epoch,
    /// Attempts that may still matter, oldest first. Bounded: one is emitted only when none is waiting, and one
    /// that is not waiting is forgotten after a TTL.
    attempts: Vec<Attempt>,
    last_id: u64,
    /// No put before the key has been sighted more often than this.
    blocked: Option<u64>,
    /// The holder that the right was taken from when its TTL had run out, and its agent's incarnation then.
    taken_from: Option<(RegionName, u64)>,
    /// When the last put was emitted, and the last successful one.
    last_put: Moment,
    renewed: Moment,
}

impl Hold {
    /// The right, while it lasts.
    pub(crate) fn tenure(&self) -> Option<Tenure> {
        self.tenure
    }

    /// The newest epoch that this run of the agent held.
    pub(crate) fn held(&self) -> Epoch {
        self.held
    }

    /// When the last put was emitted that prolonged the right.
    pub(crate) fn renewed(&self) -> Moment {
        self.renewed
    }

    /// Whether a claim is under way or may yet be stored.
    pub(crate) fn claims(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.purpose == Purpose::Claim)
    }

    /// The right lasts at least until then: every other region has promised it.
    pub(crate) fn prolong(&mut self, until: Moment) {
        self.tenure = self.tenure.map(|tenure| Tenure { until: tenure.until.max(until), ..tenure });
    }

    /// When the next renewal is due.
    pub(crate) fn renewal_due(&self, config: &HelmConfig) -> Moment {
        self.renewed.max(self.last_put).plus(config.renew_every)
    }

    /// When the attempt that is waited for is given up.
    pub(crate) fn gives_up_at(&self, config: &HelmConfig) -> Option<Moment> {
        let attempt = self.attempts.iter().find(|attempt| attempt.waiting)?;
        Some(attempt.emitted.plus(config.ttl / ABANDONED_AFTER_TTL_PARTS))
    }

    /// Whether a put is under way.
    pub(crate) fn waits(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.waiting)
    }

    /// Whether a put may be emitted: none is under way, and the key has been seen since the last one failed.
    pub(crate) fn may_put(&self, view: &View) -> bool {
        !self.waits() && self.blocked.is_none_or(|count| view.sightings > count)
    }

    /// What was to be stored by an attempt, if it may still matter.
    pub(crate) fn value_of(&self, id: AttemptId) -> Option<&LeaseKey> {
        self.attempts.iter().find(|attempt| attempt.id == id).map(|attempt| &attempt.value)
    }

    /// The lengths that the key has if one of the own puts has been stored unseen.
    pub(crate) fn possible_ttls(&self) -> impl Iterator<Item = Duration> {
        self.attempts.iter().map(|attempt| attempt.value.ttl)
    }

    /// Brings the right up to date: answers, proofs by sight, attempts given up, deadlines, better claims.
    pub(crate) fn settle(&mut self, now: Moment, view: &View, config: &HelmConfig, answers: Vec<Answer>) {
        for answer in answers {
            self.take_answer(&answer, view, config);
        }
        self.prove_by_sight(view, config);
        if self.gives_up_at(config).is_some_and(|moment| now >= moment)
            && let Some(index) = self.attempts.iter().position(|attempt| attempt.waiting)
        {
            self.give_up(index);
        }
        self.forget(now, view, config);
        if self.tenure.is_some_and(|tenure| now >= tenure.until || !is_own(view, config, tenure.epoch)) {
            self.tenure = None;
        }
    }

    /// Forgets attempts whose right has ended. One that names another standby and may yet be stored is kept: a store
    /// that was silent for long may have it still. Of several alike the newest is enough.
    fn forget(&mut self, now: Moment, view: &View, config: &HelmConfig) {
        let revision = view.lease.as_ref().map(|lease| lease.revision);
        let all: Vec<Attempt> = std::mem::take(&mut self.attempts);
        let newer = |index: usize, attempt: &Attempt| {
            all[index + 1..].iter().any(|later| {
                later.expected == attempt.expected && later.value.successor == attempt.value.successor
            })
        };
        let kept = |(index, attempt): (usize, &Attempt)| {
            let possible = Some(attempt.expected) == revision && attempt.purpose == Purpose::Renew;
            let matters = attempt.waiting || now < deadline(attempt, config);
            (matters || possible && !newer(index, attempt)).then(|| attempt.clone())
        };
        self.attempts = all.iter().enumerate().filter_map(kept).collect();
    }

    fn take_answer(&mut self, answer: &Answer, view: &View, config: &HelmConfig) {
        let Some(index) = self.attempts.iter().position(|attempt| attempt.id == answer.attempt) else {
            return;
        };
        match answer.outcome {
            LeaseOutcome::Stored(_) => {
                let attempt = self.attempts.remove(index);
                self.credit(&attempt, view, config);
            }
            LeaseOutcome::Refused => {
                self.refuse(index, view);
                self.blocked = Some(answer.sightings);
            }
            LeaseOutcome::Unknown => self.give_up(index),
        }
    }

    /// The key has changed since the revision that it expects. Until it is seen to what, that may be the value of a
    /// like attempt which was forgotten in favour of this one, or of this one, delivered twice: a renewal is kept.
    fn refuse(&mut self, index: usize, view: &View) {
        let attempt = &mut self.attempts[index];
        let unseen = view.lease.as_ref().is_some_and(|lease| lease.revision == attempt.expected);
        if attempt.purpose == Purpose::Renew && unseen {
            attempt.waiting = false;
        } else {
            self.attempts.remove(index);
        }
    }

    /// Nobody knows whether it was stored. A renewal is put again at once: only one of the two can be stored, and
    /// a holder has no time to lose. Anything else waits for a sight of the key.
    fn give_up(&mut self, index: usize) {
        let attempt = &mut self.attempts[index];
        attempt.waiting = false;
        if attempt.purpose != Purpose::Renew {
            self.blocked = Some(attempt.sightings);
        }
    }

    /// A renewal whose answer was lost is proven by the key itself. A claim is not: an earlier run of this agent
    /// may have put the very same value, long before.
    fn prove_by_sight(&mut self, view: &View, config: &HelmConfig) {
        let Some(key) = view.lease.as_ref().and_then(|lease| lease.key.as_ref()) else { return };
        let proven = |attempt: &Attempt| attempt.purpose == Purpose::Renew && attempt.value == *key;
        if let Some(index) = self.attempts.iter().position(proven) {
            let attempt = self.attempts.remove(index);
            self.credit(&attempt, view, config);
        }
    }

    /// The attempt was stored: counts its deadline from its own emission, whenever the answer came.
    fn credit(&mut self, attempt: &Attempt, view: &View, config: &HelmConfig) {
        let epoch = attempt.value.epoch;
        if attempt.purpose == Purpose::Release || !attempt.counts || !is_own(view, config, epoch) {
            return;
        }
        let last = self.tenure.filter(|tenure| tenure.epoch == epoch);
        if attempt.purpose == Purpose::Renew && last.is_none() {
            return;
        }
        let until = deadline(attempt, config).max(last.map_or(Moment::ZERO, |tenure| tenure.until));
        let since = last.map_or(attempt.emitted, |tenure| tenure.since);
        self.tenure = Some(Tenure { epoch, since, until });
        self.held = epoch;
        self.renewed = self.renewed.max(attempt.emitted);
    }

    /// False alarms in a row, as the next renewal should say. Taking the right from a writer that was alive all along
    /// (its agent is the same as before) was one; ten quiet minutes end the row.
    pub(crate) fn unrest(&self, now: Moment, view: &View, config: &HelmConfig, key: &LeaseKey) -> u32 {
        let Some(tenure) = self.tenure else { return key.unrest };
        if now >= tenure.since.plus(config.quiet) {
            return 0;
        }
        let alive = self.taken_from.as_ref().is_some_and(|(region, incarnation)| {
            let heard = view.peers.get(region).and_then(|peer| peer.heard.as_ref());
            heard.is_some_and(|(report, at)| *at > tenure.since && report.incarnation == *incarnation)
        });
        key.unrest.saturating_add(u32::from(alive))
    }

    fn remember(&mut self, view: &View, purpose: Purpose, value: &LeaseKey) {
        let last = view.lease.as_ref().and_then(|lease| lease.key.as_ref());
        match (purpose, last) {
            (Purpose::Claim, Some(last)) if last.state == LeaseState::Held && last.holder != value.holder => {
                let heard = view.peers.get(&last.holder).and_then(|peer| peer.heard.as_ref());
                self.taken_from = heard.map(|(report, _)| (last.holder.clone(), report.incarnation));
            }
            (Purpose::Renew, Some(last)) if value.unrest <= last.unrest => {}
            (Purpose::Claim | Purpose::Renew | Purpose::Release, _) => self.taken_from = None,
        }
    }

    /// The regions that the key may name now, as its standbys, whatever became of the puts under way.
    pub(crate) fn possible_standbys(&self, view: &View) -> BTreeSet<RegionName> {
        let Some(lease) = &view.lease else { return BTreeSet::new() };
        let under_way = self.attempts.iter().filter(|attempt| attempt.expected == lease.revision);
        let values = lease.key.iter().chain(under_way.map(|attempt| &attempt.value));
        let named = |key: &LeaseKey| match &key.successor {
            Successor::Only { region } => Some(region.clone()),
            Successor::Any | Successor::Nobody => None,
        };
        values.filter_map(named).collect()
    }

    /// Emits a put. A release withdraws the right first, and whatever earlier puts may still bring. So does one that
    /// makes the right shorter: whoever sees it counts the shorter TTL from then on, and the holder has to as well.
    pub(crate) fn put(
        &mut self,
        now: Moment,
        view: &View,
        config: &HelmConfig,
        purpose: Purpose,
        value: LeaseKey,
    ) -> LeaseOrder {
        if purpose == Purpose::Release {
            self.tenure = None;
            self.attempts.clear();
        }
        let longer = self.attempts.iter().any(|attempt| attempt.value.ttl > value.ttl)
            || view
                .lease
                .as_ref()
                .and_then(|lease| lease.key.as_ref())
                .is_some_and(|key| key.ttl > value.ttl);
        if longer {
            self.attempts.iter_mut().for_each(|attempt| attempt.counts = false);
            let until = now.plus(config.usable(value.ttl));
            self.tenure = self.tenure.map(|tenure| Tenure { until: tenure.until.min(until), ..tenure });
        }
        self.remember(view, purpose, &value);
        self.last_id += 1;
        let id = AttemptId(self.last_id);
        let expected = view.lease.as_ref().map_or(Revision::default(), |lease| lease.revision);
        self.blocked = None;
        self.last_put = now;
        self.attempts.push(Attempt {
            id,
            purpose,
            value: value.clone(),
            expected,
            emitted: now,
            sightings: view.sightings,
            waiting: true,
            counts: true,
        });
        LeaseOrder { attempt: id, expected, value }
    }

    /// The number for the next put: above the key's, and above that of every attempt that may yet be stored.
    pub(crate) fn next_seq(&self, key: &LeaseKey) -> u64 {
        let tried = self.attempts.iter().filter(|attempt| attempt.value.epoch == key.epoch);
        tried.map(|attempt| attempt.value.seq).max().unwrap_or(0).max(key.seq).saturating_add(1)
    }
}

fn deadline(attempt: &Attempt, config: &HelmConfig) -> Moment {
    attempt.emitted.plus(config.usable(attempt.value.ttl))
}

/// Whether the newest sight of the key gives this region this epoch, and nothing newer is known.
fn is_own(view: &View, config: &HelmConfig, epoch: Epoch) -> bool {
    let key = view.lease.as_ref().and_then(|lease| lease.key.as_ref());
    view.newest == epoch
        && key.is_some_and(|key| {
            key.epoch == epoch && key.holder == config.region && key.state == LeaseState::Held
        })
}
