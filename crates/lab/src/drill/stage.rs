//! Carries the acts of a drill out on a running lab, and remembers what is broken, so that all of it can be mended.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use isles_model::{
    DatabaseRole, RegionName,
    drill::{Deed, DrillPart, LinkDeed, PartVerb, RegionVerb},
};

use super::{
    operate::{self, Order},
    roles::Roles,
};
use crate::control::{Client, ControlError, LinkCondition, Part, PartAction};
use crate::status;

/// How long an agent may take to say whether it writes.
const HOLDER_WAIT: Duration = Duration::from_millis(200);

/// Something that is broken, in the order in which it is mended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    Stalled(RegionName),
    Frozen(RegionName, Part),
    Disk(RegionName),
    Clock(RegionName),
    Link(RegionName, RegionName),
    Region(RegionName),
    Part(RegionName, Part),
    Drained(RegionName),
}

/// A running lab under a drill.
pub(crate) struct Stage {
    lab: Client,
    roles: Roles,
    /// Who wrote when that was last known.
    holder: RegionName,
    /// App instances of each region.
    instances: u32,
    broken: BTreeSet<Broken>,
}

impl Stage {
    pub(crate) fn new(lab: &Client, roles: &Roles, instances: u32) -> Self {
        let holder = roles.writer.clone();
        Self { lab: lab.clone(), roles: roles.clone(), holder, instances, broken: BTreeSet::new() }
    }

    /// The act with the region that writes just now in the place of `holder`.
    pub(crate) async fn fix(&mut self, deed: &Deed) -> Deed {
        // Because only a deed that names the holder is changed by fixing it.
        if deed.with_holder(&self.holder) == *deed {
            return deed.clone();
        }
        if let Ok(state) = self.lab.state().await {
            let asked = state.regions.iter().map(|region| async {
                let answer = tokio::time::timeout(HOLDER_WAIT, status::snapshot(region.control)).await;
                match answer.ok()?.ok()?.report.database.role {
                    DatabaseRole::Writer { epoch } => Some((epoch, region.region.clone())),
                    DatabaseRole::Fenced | DatabaseRole::Replica { .. } => None,
                }
            });
            let writers = futures_util::future::join_all(asked).await;
            if let Some((_, holder)) = writers.into_iter().flatten().max() {
                self.holder = holder;
            }
        }
        deed.with_holder(&self.holder)
    }

    /// Whether anything is broken just now.
    pub(crate) fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    /// Does it. What is done twice is done once.
    pub(crate) async fn carry_out(&mut self, deed: &Deed) -> Result<(), ControlError> {
        match deed {
            Deed::Region { verb, who } => {
                for region in self.roles.meant(who, false) {
                    self.region(*verb, region).await?;
                }
            }
            Deed::Part { verb, part, who } => {
                for region in self.roles.meant(who, *part == DrillPart::Etcd) {
                    self.parts(*verb, *part, &region).await?;
                }
            }
            Deed::Link { what, from, to, both } => {
                for (from, to) in self.roles.links(from, to, *both) {
                    self.link(&from, &to, *what).await?;
                }
            }
            Deed::Clock { who, ahead_ms } => {
                for region in self.roles.meant(who, false) {
                    self.lab.set_clock(&region, *ahead_ms).await?;
                    self.note(Broken::Clock(region), *ahead_ms != 0);
                }
            }
            Deed::Disk { who, full } => {
                for region in self.roles.meant(who, false) {
                    self.lab.fill_disk(&region, *full).await?;
                    self.note(Broken::Disk(region), *full);
                }
            }
            Deed::Switchover { to } => {
                if let Some(to) = self.roles.one(to) {
                    operate::order(&self.lab, &Order::Switchover(to)).await?;
                }
            }
            Deed::Failback => operate::order(&self.lab, &Order::Failback).await?,
            Deed::Drain { who, out } => {
                for region in self.roles.meant(who, false) {
                    // Because an order that seems to have failed may have been taken.
                    self.note(Broken::Drained(region.clone()), *out);
                    operate::order(&self.lab, &Order::Drain { region, out: *out }).await?;
                }
            }
            Deed::Heal => self.heal().await?,
        }
        Ok(())
    }

    /// Mends everything that is broken.
    pub(crate) async fn heal(&mut self) -> Result<(), ControlError> {
        while let Some(broken) = self.broken.first().cloned() {
            match &broken {
                Broken::Stalled(region) => self.lab.stall_region(region, false).await?,
                Broken::Frozen(region, part) => self.lab.part(region, *part, PartAction::Thaw).await?,
                Broken::Disk(region) => self.lab.fill_disk(region, false).await?,
                Broken::Clock(region) => self.lab.set_clock(region, 0).await?,
                Broken::Link(from, to) => self.lab.link(from, to, LinkCondition::Healthy).await?,
                Broken::Region(region) => self.lab.start_region(region).await?,
                Broken::Part(region, part) => self.lab.part(region, *part, PartAction::Start).await?,
                Broken::Drained(region) => {
                    operate::order(&self.lab, &Order::Drain { region: region.clone(), out: false }).await?;
                }
            }
            self.broken.remove(&broken);
        }
        Ok(())
    }

    fn note(&mut self, what: Broken, broken: bool) {
        if broken {
            self.broken.insert(what);
        } else {
            self.broken.remove(&what);
        }
    }

    async fn region(&mut self, verb: RegionVerb, region: RegionName) -> Result<(), ControlError> {
        match verb {
            RegionVerb::Kill => self.lab.kill_region(&region).await?,
            RegionVerb::Start => self.lab.start_region(&region).await?,
            RegionVerb::Stall | RegionVerb::Thaw => {
                self.lab.stall_region(&region, verb == RegionVerb::Stall).await?;
            }
        }
        match verb {
            RegionVerb::Kill => {
                // What is killed neither stands still nor can go on.
                self.broken.retain(
                    |one| !matches!(one, Broken::Stalled(at) | Broken::Frozen(at, _) if *at == region),
                );
                self.note(Broken::Region(region), true);
            }
            RegionVerb::Start => {
                self.broken.retain(|one| !matches!(one, Broken::Part(at, _) if *at == region));
                self.note(Broken::Region(region), false);
            }
            RegionVerb::Stall => self.note(Broken::Stalled(region), true),
            RegionVerb::Thaw => {
                self.broken.retain(|one| !matches!(one, Broken::Frozen(at, _) if *at == region));
                self.note(Broken::Stalled(region), false);
            }
        }
        Ok(())
    }

    async fn parts(
        &mut self,
        verb: PartVerb,
        part: DrillPart,
        region: &RegionName,
    ) -> Result<(), ControlError> {
        let parts: Vec<Part> = match part {
            DrillPart::Postgres => vec![Part::Postgres],
            DrillPart::Etcd => vec![Part::Etcd],
            DrillPart::Agent => vec![Part::Agent],
            DrillPart::App => (0..self.instances).map(Part::App).collect(),
        };
        for part in parts {
            let action = match verb {
                PartVerb::Kill => PartAction::Kill,
                PartVerb::Crash => PartAction::Crash,
                PartVerb::Start => PartAction::Start,
                PartVerb::Freeze => PartAction::Freeze,
                PartVerb::Thaw => PartAction::Thaw,
            };
            self.lab.part(region, part, action).await?;
            let (held, frozen) = (Broken::Part(region.clone(), part), Broken::Frozen(region.clone(), part));
            match verb {
                PartVerb::Kill => {
                    self.note(frozen, false);
                    self.note(held, true);
                }
                PartVerb::Crash => self.note(frozen, false),
                PartVerb::Start => self.note(held, false),
                PartVerb::Freeze | PartVerb::Thaw => self.note(frozen, verb == PartVerb::Freeze),
            }
        }
        Ok(())
    }

    async fn link(&mut self, from: &RegionName, to: &RegionName, what: LinkDeed) -> Result<(), ControlError> {
        let condition = match what {
            LinkDeed::Cut => LinkCondition::Cut,
            LinkDeed::Reset => LinkCondition::Reset,
            LinkDeed::Slow { by, rate } => LinkCondition::Slow { extra: by, rate },
            LinkDeed::Heal => LinkCondition::Healthy,
        };
        self.lab.link(from, to, condition).await?;
        self.note(Broken::Link(from.clone(), to.clone()), what != LinkDeed::Heal);
        Ok(())
    }
}

/// What an act is called in a timeline, and the regions it is told of; none: the line itself names them.
pub(crate) fn told(deed: &Deed, roles: &Roles) -> (Cow<'static, str>, Vec<RegionName>) {
    let phrase = match deed {
        Deed::Region { verb, .. } => match verb {
            RegionVerb::Kill => "region stopped",
            RegionVerb::Start => "region started again",
            RegionVerb::Stall => "region stands still",
            RegionVerb::Thaw => "region goes on",
        },
        Deed::Part { verb, part, .. } => match (part, verb) {
            (DrillPart::Postgres, PartVerb::Kill | PartVerb::Crash) => "database killed",
            (DrillPart::Postgres, PartVerb::Start) => "database started again",
            (DrillPart::Agent, PartVerb::Kill | PartVerb::Crash) => "agent killed",
            (DrillPart::Agent, PartVerb::Start) => "agent started again",
            (DrillPart::Etcd, PartVerb::Kill | PartVerb::Crash) => "etcd member killed",
            (DrillPart::Etcd, PartVerb::Start) => "etcd member started again",
            (DrillPart::App, PartVerb::Kill | PartVerb::Crash) => "app killed",
            (DrillPart::App, PartVerb::Start) => "app started again",
            (_, PartVerb::Freeze | PartVerb::Thaw) => return (deed.to_string().into(), Vec::new()),
        },
        Deed::Disk { full: true, .. } => "disk full",
        Deed::Disk { full: false, .. } => "disk has room again",
        Deed::Drain { out: true, .. } => "drained",
        Deed::Drain { out: false, .. } => "undrained",
        Deed::Heal => "everything mended",
        Deed::Link { .. } | Deed::Clock { .. } | Deed::Switchover { .. } | Deed::Failback => {
            return (deed.to_string().into(), Vec::new());
        }
    };
    let whole = matches!(deed, Deed::Part { part: DrillPart::Etcd, .. });
    let who = deed.strikes().map(|who| roles.meant(who, whole)).unwrap_or_default();
    (phrase.into(), who)
}
