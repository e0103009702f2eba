//! Whether a drill suits a lab, before anything is broken.

use isles_model::drill::{Deed, Drill, Subject};

use super::{error::DrillError, ground::Ground};
use crate::control::Rigs;

/// What a lab must have been started for.
pub fn rigs(drill: &Drill) -> Rigs {
    Rigs {
        movable_clocks: drill.needs(|deed| matches!(deed, Deed::Clock { .. })),
        small_disks: drill.needs(|deed| matches!(deed, Deed::Disk { .. })),
    }
}

/// Whether every act can be carried out there.
pub(super) fn check(drill: &Drill, ground: &Ground) -> Result<(), DrillError> {
    let count = ground.places.len();
    if !drill.regions.contains(&count) {
        let (least, most) = (*drill.regions.start(), *drill.regions.end());
        return Err(DrillError::WrongSize { least, most, count });
    }
    let wanted = rigs(drill);
    if wanted.movable_clocks && !ground.rigs.movable_clocks {
        return Err(DrillError::NoRig { what: "the databases' wall clocks", rig: "movable-clocks" });
    }
    if wanted.small_disks && !ground.rigs.small_disks {
        return Err(DrillError::NoRig { what: "the databases' disks", rig: "small-disks" });
    }
    let named = drill.acts.iter().flat_map(|act| subjects(&act.deed));
    for subject in named {
        match subject {
            Subject::Named(region)
                if !ground.places.iter().any(|place| place.region == *region)
                    && ground.topology.witness.as_ref() != Some(region) =>
            {
                return Err(DrillError::UnknownRegion(region.clone()));
            }
            Subject::Witness if ground.topology.witness.is_none() => return Err(DrillError::NoWitness),
            _ => {}
        }
    }
    Ok(())
}

fn subjects(deed: &Deed) -> Vec<&Subject> {
    let other = match deed {
        Deed::Link { to, .. } => to.0.iter().collect(),
        Deed::Switchover { to } => vec![to],
        _ => Vec::new(),
    };
    deed.strikes().into_iter().flat_map(|who| &who.0).chain(other).collect()
}
