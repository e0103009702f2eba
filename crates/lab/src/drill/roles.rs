//! Who plays which part in a drill: the writer as it is when a run begins, the replicas in the spec's order.

use std::collections::BTreeSet;

use isles_model::{
    RegionName,
    drill::{Deed, Drill, DrillPart, LinkDeed, PartVerb, RegionVerb, Subject, Subjects},
};

/// The parts, fixed for one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// The region that takes writes, or the one that the user has put in its place.
    pub writer: RegionName,
    /// The other data regions in the spec's order.
    pub replicas: Vec<RegionName>,
    /// The region that votes and holds no data.
    pub witness: Option<RegionName>,
}

impl Roles {
    /// Everybody's part when this region plays the writer's.
    pub fn new<'a>(
        writer: &RegionName,
        regions: impl Iterator<Item = &'a RegionName>,
        witness: Option<&RegionName>,
    ) -> Self {
        let replicas = regions.filter(|region| *region != writer).cloned().collect();
        Self { writer: writer.clone(), replicas, witness: witness.cloned() }
    }

    /// All data regions.
    pub fn regions(&self) -> impl Iterator<Item = &RegionName> {
        std::iter::once(&self.writer).chain(&self.replicas)
    }

    /// The regions meant; with `whole` the witness may be among `others`.
    pub fn meant(&self, who: &Subjects, whole: bool) -> Vec<RegionName> {
        who.resolve(&self.writer, &self.replicas, self.witness.as_ref(), &[], whole)
    }

    /// The region meant by a subject that means one.
    pub fn one(&self, subject: &Subject) -> Option<RegionName> {
        self.meant(&Subjects::one(subject.clone()), false).pop()
    }

    /// Every direction of every link that is meant.
    pub fn links(&self, from: &Subjects, to: &Subjects, both: bool) -> Vec<(RegionName, RegionName)> {
        let resolve = |who: &Subjects, taken: &[RegionName]| {
            who.resolve(&self.writer, &self.replicas, self.witness.as_ref(), taken, true)
        };
        let (near, far) = if from.0.contains(&Subject::Others) {
            let far = resolve(to, &[]);
            (resolve(from, &far), far)
        } else {
            let near = resolve(from, &[]);
            let far = resolve(to, &near);
            (near, far)
        };
        let pairs = near.iter().flat_map(|a| far.iter().map(move |b| (a.clone(), b.clone())));
        let pairs = pairs.filter(|(a, b)| a != b);
        pairs
            .flat_map(|(a, b)| if both { vec![(a.clone(), b.clone()), (b, a)] } else { vec![(a, b)] })
            .collect()
    }
}

/// What a drill does to whom, as far as it matters whose recovery counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Struck {
    /// In the order in which they are named.
    pub regions: Vec<RegionName>,
    /// Those whose own doors are shut or lead nowhere meanwhile.
    pub shut: BTreeSet<RegionName>,
}

impl Struck {
    /// By the acts of a drill; a drill that breaks nothing concerns the writer.
    pub fn by(drill: &Drill, roles: &Roles) -> Self {
        let mut struck = Self::default();
        for act in drill.acts.iter().filter(|act| act.deed.breaks()) {
            let Some(who) = act.deed.strikes() else { continue };
            for region in roles.meant(who, false) {
                if shuts(&act.deed) {
                    struck.shut.insert(region.clone());
                }
                if !struck.regions.contains(&region) {
                    struck.regions.push(region);
                }
            }
        }
        if struck.regions.is_empty() {
            struck.regions.push(roles.writer.clone());
        }
        struck
    }
}

/// Whether clients of the region itself cannot be served while this lasts.
fn shuts(deed: &Deed) -> bool {
    match deed {
        Deed::Region { verb, .. } => matches!(verb, RegionVerb::Kill | RegionVerb::Stall),
        Deed::Part { verb, part: DrillPart::Agent, .. } => {
            matches!(verb, PartVerb::Kill | PartVerb::Crash | PartVerb::Freeze)
        }
        Deed::Link { what, .. } => matches!(what, LinkDeed::Cut | LinkDeed::Reset),
        Deed::Part { .. }
        | Deed::Clock { .. }
        | Deed::Disk { .. }
        | Deed::Switchover { .. }
        | Deed::Failback
        | Deed::Drain { .. }
        | Deed::Heal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles() -> Roles {
        let [a, b, c, w] = ["a", "b", "c", "w"].map(|name| name.parse::<RegionName>().unwrap());
        Roles::new(&b, [&a, &b, &c].into_iter(), Some(&w))
    }

    fn drill(acts: &str) -> Drill {
        isles_model::drill::parse("x", &format!("drill x\nregions 3\n{acts}")).unwrap()
    }

    fn check(act: &str, links: &str) {
        let drill = drill(&format!("at 0s {act}"));
        let Deed::Link { from, to, both, .. } = &drill.acts[0].deed else { panic!("{drill}") };
        let found: Vec<String> =
            roles().links(from, to, *both).iter().map(|(a, b)| format!("{a}{b}")).collect();
        assert_eq!(found.join(" "), links, "{act}");
    }

    #[test]
    fn a_link_joins_everyone_on_one_side_with_everyone_on_the_other() {
        check("cut link writer -> others", "ba bc bw");
        check("cut link others -> writer", "ab cb wb");
        check("cut link writer <-> replica", "ba ab");
        check("cut link writer, replica -> others", "bc bw ac aw");
        check("cut link witness -> replica-2", "wc");
    }

    #[test]
    fn who_is_struck_follows_from_what_is_done() {
        let struck =
            Struck::by(&drill("at 0s cut link writer <-> others\nat 1s crash agent in replica"), &roles());
        assert_eq!(struck.regions, roles().regions().take(2).cloned().collect::<Vec<_>>());
        assert_eq!(struck.shut.len(), 2);
        let struck = Struck::by(&drill("at 0s crash postgres in replica-2"), &roles());
        assert_eq!((struck.regions[0].as_str(), struck.shut.len()), ("c", 0));
        let struck = Struck::by(&drill("at 0s switchover to replica"), &roles());
        assert_eq!(struck.regions[0].as_str(), "b");
    }
}
