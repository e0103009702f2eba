//! Mends a lab that a drill has left broken, by what the lab says of itself.

use isles_model::Because;

use super::operate::{self, Order};
use crate::{
    control::{Client, ControlError, LabState, LinkCondition, PartAction, PartPhase, PartState, RegionState},
    status,
};

/// Thaws, joins, starts again, sets clocks right, frees disks, undrains.
pub(super) async fn all(lab: &Client, state: &LabState) -> Result<(), ControlError> {
    for link in &state.links {
        for (from, to, condition) in [(&link.from, &link.to, link.forth), (&link.to, &link.from, link.back)] {
            if condition != LinkCondition::Healthy {
                lab.link(from, to, LinkCondition::Healthy).await?;
            }
        }
    }
    for region in &state.regions {
        if state.rigs.movable_clocks {
            lab.set_clock(&region.region, 0).await?;
        }
        if state.rigs.small_disks {
            lab.fill_disk(&region.region, false).await?;
        }
    }
    let witness = state.witness.iter().map(|witness| (&witness.region, &witness.parts));
    let places = state.regions.iter().map(|region| (&region.region, &region.parts)).chain(witness);
    for (region, parts) in places {
        let all = |phase: PartPhase| parts.iter().all(|part: &PartState| part.phase == phase);
        if all(PartPhase::Held) {
            lab.start_region(region).await?;
            continue;
        }
        if all(PartPhase::Frozen) {
            lab.stall_region(region, false).await?;
            continue;
        }
        for part in parts {
            match part.phase {
                PartPhase::Held => lab.part(region, part.part, PartAction::Start).await?,
                PartPhase::Frozen => lab.part(region, part.part, PartAction::Thaw).await?,
                PartPhase::Waiting | PartPhase::Running | PartPhase::Restarting => {}
            }
        }
    }
    for region in &state.regions {
        if is_drained(region).await {
            operate::order(lab, &Order::Drain { region: region.region.clone(), out: false }).await?;
        }
    }
    Ok(())
}

/// Whether the region's agent says so; one that says nothing is not.
async fn is_drained(region: &RegionState) -> bool {
    let drained = |because| matches!(because, Because::Drained | Because::NobodyElse);
    let Ok(seen) = status::snapshot(region.control).await else { return false };
    seen.plan.serve.iter().any(|own| own.region == region.region && drained(own.because))
}
