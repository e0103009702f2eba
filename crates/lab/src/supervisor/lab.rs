//! What a running lab consists of: every process's keeper, every link, and how far the start has come.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use isles_model::RegionName;

use super::{keeper::Handle, links::Links};
use crate::{
    blueprint::{Blueprint, RegionBlueprint},
    control::{DatabaseState, LabState, LinkState, Part, PartPhase, Phase, RegionState, WitnessState},
};

/// A running lab; shared by the tasks that start it, watch it and answer for it.
pub(crate) struct Lab {
    /// How it is laid out.
    pub(crate) blueprint: Blueprint,
    /// Every process, in the order of starting.
    pub(crate) parts: Vec<Handle>,
    /// The emulated WAN.
    pub(crate) links: Links,
    /// When it began to start.
    pub(crate) began: Instant,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    phase: Option<Phase>,
    ready: BTreeMap<RegionName, Duration>,
    rtt: BTreeMap<(RegionName, RegionName), Duration>,
    timing: Vec<(String, Duration, Duration)>,
}

impl Lab {
    pub(crate) fn new(blueprint: Blueprint, parts: Vec<Handle>, links: Links, began: Instant) -> Arc<Self> {
        Arc::new(Self { blueprint, parts, links, began, progress: Mutex::default() })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something was waited for from `from` until now; gives the time since the lab's start.
    pub(crate) fn mark(&self, what: String, from: Instant) -> Duration {
        let until = self.began.elapsed();
        self.progress().timing.push((what, from.duration_since(self.began), until));
        until
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.progress().phase = Some(phase);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.progress().phase == Some(Phase::Ready)
    }

    pub(crate) fn region_ready(&self, region: &RegionName, after: Duration) {
        self.progress().ready.insert(region.clone(), after);
    }

    pub(crate) fn measured(&self, a: &RegionName, b: &RegionName, rtt: Duration) {
        self.progress().rtt.insert((a.clone(), b.clone()), rtt);
    }

    /// One process.
    pub(crate) fn part(&self, region: &RegionName, part: Part) -> Option<&Handle> {
        self.parts.iter().find(|handle| handle.region == *region && handle.part == part)
    }

    /// All processes of a region.
    pub(crate) fn parts_of<'a>(&'a self, region: &'a RegionName) -> impl Iterator<Item = &'a Handle> {
        self.parts.iter().filter(move |handle| handle.region == *region)
    }

    /// What runs where.
    pub(crate) async fn state(&self) -> LabState {
        let links = self.link_states().await;
        let progress = self.progress();
        let blueprint = &self.blueprint;
        LabState {
            name: blueprint.topology.name.clone(),
            spec: blueprint.layout.spec.clone(),
            pattern: blueprint.topology.pattern,
            phase: progress.phase.clone().unwrap_or(Phase::Starting),
            pid: std::process::id(),
            dir: blueprint.layout.dir.clone(),
            regions: blueprint.regions.iter().map(|region| self.region_state(region, &progress)).collect(),
            witness: blueprint.witness.as_ref().map(|member| WitnessState {
                region: member.region.clone(),
                parts: self.parts_of(&member.region).map(Handle::state).collect(),
            }),
            links,
            rigs: blueprint.rigs,
            timing: progress.timing.clone(),
        }
    }

    fn region_state(&self, region: &RegionBlueprint, progress: &Progress) -> RegionState {
        let parts: Vec<_> = self.parts_of(&region.name).map(Handle::state).collect();
        RegionState {
            region: region.name.clone(),
            held: parts.iter().all(|part| part.phase == PartPhase::Held),
            ready_after: progress.ready.get(&region.name).copied(),
            edge: region.listen.edge,
            control: region.listen.control,
            instances: region.instances.clone(),
            write_gate: region.listen.write_gate,
            read_gate: region.listen.read_gate,
            database: DatabaseState {
                socket_dir: region.database.socket_dir.clone(),
                port: region.database.port,
                name: region.database.name.clone(),
                admin_user: region.database.admin_user.clone(),
            },
            config: blueprint_config(&self.blueprint, &region.name),
            parts,
        }
    }

    async fn link_states(&self) -> Vec<LinkState> {
        let mut states = Vec::new();
        for (from, to, rtt_asked, _) in self.blueprint.pairs() {
            let rtt_measured = self.progress().rtt.get(&(from.clone(), to.clone())).copied();
            let forth = self.links.condition(&from, &to).await;
            let back = self.links.condition(&to, &from).await;
            states.push(LinkState { from, to, rtt_asked, rtt_measured, forth, back });
        }
        states
    }
}

/// Where a region's agent finds its configuration.
pub(crate) fn blueprint_config(blueprint: &Blueprint, region: &RegionName) -> std::path::PathBuf {
    blueprint.layout.region(region).join("agent.json")
}
