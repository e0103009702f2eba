//! Where one request goes: to an app instance here, to another region, or nowhere for now.
//!
//! A function of its arguments: it knows no socket and no clock. Whoever asks says what has been tried already.

use std::collections::{BTreeMap, BTreeSet};

use isles_model::{Because, Epoch, Moment, Plan, RegionName, Writes, plan::Serving, topology::WriteRouting};

use crate::peer::{NotServed, Stamp};

/// So many edges may send a request on.
const HOPS_MAX: u8 = 1;

/// What matters of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// It changes something.
    pub(crate) write: bool,
    /// Another edge sent it on.
    pub(crate) stamp: Option<&'a Stamp>,
}

/// What is known here and now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) here: &'a RegionName,
    pub(crate) plan: &'a Plan,
    pub(crate) write_routing: WriteRouting,
    pub(crate) now: Moment,
    /// What this request has tried.
    pub(crate) tried: &'a Tried,
    /// What any request has just found down.
    pub(crate) down: &'a Down,
    /// Whose turn it is among equal instances.
    pub(crate) turn: usize,
}

/// What one request has tried in vain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried {
    pub(crate) instances: BTreeSet<usize>,
    pub(crate) regions: BTreeMap<RegionName, Miss>,
}

/// Why a region did not serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Its edge could not be reached, or fell silent.
    Silent,
    /// Its edge answered that it does not serve it.
    NotServed(NotServed),
}

/// What has just been found down, for a short while and until the plan says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Down {
    pub(crate) instances: BTreeSet<usize>,
    pub(crate) regions: BTreeSet<RegionName>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To this app instance of this region.
    Local { instance: usize },
    /// To this region's edge; a write under this epoch.
    Forward { region: RegionName, epoch: Option<Epoch> },
    /// Nowhere until something changes.
    Hold { because: Because },
    /// Back to the edge that sent it on, which may try elsewhere.
    NotServed(NotServed),
    /// Back to the client, which is to go to the writer's region itself (421).
    Misdirected { writer: RegionName },
    /// Back: two edges send it to each other (508).
    Loop,
}

impl Verdict {
    /// It can be brought somewhere at once.
    pub(crate) fn is_somewhere(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Forward { .. })
    }
}

/// The decision.
pub(crate) fn route(question: Question<'_>, view: View<'_>) -> Verdict {
    match question.stamp {
        Some(stamp) if stamp.hops > HOPS_MAX => Verdict::Loop,
        Some(stamp) if question.write => view.received_write(stamp.epoch),
        Some(_) => view.received_read(),
        None if question.write => view.write(),
        None => view.read(),
    }
}

impl<'a> View<'a> {
    fn read(self) -> Verdict {
        // What has just been found down is asked last, not never: all may be.
        for accept_down in [false, true] {
            for serving in self.plan.serve.iter().filter(|serving| serving.app && serving.reads) {
                if serving.region == *self.here {
                    if let Some(instance) = self.instance(accept_down).filter(|_| !self.plan.draining) {
                        return Verdict::Local { instance };
                    }
                } else if self.may_try(&serving.region, accept_down) {
                    return Verdict::Forward { region: serving.region.clone(), epoch: None };
                }
            }
        }
        let because = self.serving(self.here).map_or(Because::Starting, |serving| serving.because);
        Verdict::Hold { because }
    }

    fn write(self) -> Verdict {
        match &self.plan.writes {
            Writes::Here { until, .. } if self.now >= *until => {
                Verdict::Hold { because: Because::LeaseLapsed }
            }
            Writes::Here { epoch, .. } => {
                self.instance_for_new_work().unwrap_or_else(|| self.by_any_app(*epoch))
            }
            Writes::At { region, .. } if self.write_routing == WriteRouting::Reject => {
                Verdict::Misdirected { writer: region.clone() }
            }
            Writes::At { region, epoch } => self.write_at(region, *epoch),
            Writes::Nowhere { because } => Verdict::Hold { because: *because },
        }
    }

    fn write_at(self, writer: &RegionName, epoch: Epoch) -> Verdict {
        let no_app = match (self.tried.regions.get(writer), self.serving(writer)) {
            (Some(Miss::Silent), _) => return Verdict::Hold { because: Because::PeerSilent },
            (Some(Miss::NotServed(NotServed::NoApp)), _) => true,
            (Some(Miss::NotServed(_)), _) => return Verdict::Hold { because: Because::LeaseElsewhere },
            (None, Some(Serving { app: true, .. }) | None) => false,
            (None, Some(serving)) => match serving.because {
                // In active-passive a writer without an app is on standby for the region that takes its traffic.
                Because::AppDown | Because::Draining | Because::Standby => true,
                because => return Verdict::Hold { because },
            },
        };
        if no_app {
            let here = self.serving(self.here).is_some_and(|serving| serving.app);
            let local = if here { self.instance_for_new_work() } else { None };
            local.unwrap_or_else(|| self.by_any_app(epoch))
        } else if self.down.regions.contains(writer) {
            Verdict::Hold { because: Because::PeerSilent }
        } else {
            Verdict::Forward { region: writer.clone(), epoch: Some(epoch) }
        }
    }

    /// The writer's database without an app of its region: any region's app reaches it through that region's gate.
    fn by_any_app(self, epoch: Epoch) -> Verdict {
        let other = self.plan.serve.iter().find(|serving| {
            serving.app && serving.region != *self.here && self.may_try(&serving.region, false)
        });
        match other {
            Some(serving) => Verdict::Forward { region: serving.region.clone(), epoch: Some(epoch) },
            None => Verdict::Hold { because: Because::AppDown },
        }
    }

    /// Sent on by an edge that took this region for one that can carry the write out under `sent`.
    fn received_write(self, sent: Option<Epoch>) -> Verdict {
        let current = match &self.plan.writes {
            Writes::Here { epoch, until } if self.now < *until => *epoch,
            Writes::At { epoch, .. } => *epoch,
            Writes::Here { .. } | Writes::Nowhere { .. } => return Verdict::NotServed(NotServed::NotHere),
        };
        if sent != Some(current) {
            return Verdict::NotServed(NotServed::Epoch);
        }
        self.instance_for_new_work().unwrap_or(Verdict::NotServed(NotServed::NoApp))
    }

    fn received_read(self) -> Verdict {
        if self.serving(self.here).is_some_and(|serving| serving.reads) {
            self.instance_for_new_work().unwrap_or(Verdict::NotServed(NotServed::NoApp))
        } else {
            Verdict::NotServed(NotServed::NotHere)
        }
    }

    fn instance_for_new_work(self) -> Option<Verdict> {
        let instance = self.instance(false).or_else(|| self.instance(true))?;
        (!self.plan.draining).then_some(Verdict::Local { instance })
    }

    /// The next instance in turn that may take requests and has not been tried.
    fn instance(self, accept_down: bool) -> Option<usize> {
        let open = |instance: &&usize| {
            !self.tried.instances.contains(*instance)
                && (accept_down || !self.down.instances.contains(*instance))
        };
        let count = self.plan.instances.iter().filter(open).count();
        let turn = self.turn.checked_rem(count)?;
        self.plan.instances.iter().filter(open).nth(turn).copied()
    }

    fn may_try(self, region: &RegionName, accept_down: bool) -> bool {
        !self.tried.regions.contains_key(region) && (accept_down || !self.down.regions.contains(region))
    }

    fn serving(self, region: &RegionName) -> Option<&'a Serving> {
        self.plan.serve.iter().find(|serving| serving.region == *region)
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
