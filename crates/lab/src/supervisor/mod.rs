//! Runs a lab from its first process to its last: starts it, keeps it, answers for it, takes it down and leaves nothing.

mod assemble;
mod error;
mod events;
mod housekeeping;
mod keeper;
mod lab;
mod links;
mod rigs;
mod serve;
mod start;
mod stop;

use std::{
    collections::BTreeSet,
    fs::File,
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use isles_model::Topology;
use rustix::process::{Pid, set_child_subreaper};
use tokio::sync::mpsc;

pub use error::LabError;
pub use events::{Event, Watcher};
pub use rigs::{NoRig, check as check_rigs};

use crate::{
    blueprint::{self, Blueprint, Wishes},
    control::{Part, Phase},
    etcd::Etcd,
    layout::Layout,
    postgres::Programs,
    processes::{record, tree},
    tail::tail,
};

/// How often logs and orphans are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(2);

/// How many lines of the log of a process that ended are shown.
const LAST_WORDS_LINES: usize = 3;

/// All that a lab needs to be started.
#[derive(Debug)]
pub struct Settings {
    /// The checked spec.
    pub topology: Topology,
    /// Its directories; made already.
    pub layout: Layout,
    /// The lab's lock, held as long as it runs.
    pub lock: File,
    /// PostgreSQL.
    pub programs: Programs,
    /// etcd.
    pub etcd: Etcd,
    /// Where prepared empty databases are kept from one lab to the next.
    pub cache: PathBuf,
    /// What the user asked for besides.
    pub wishes: Wishes,
}

/// Starts a lab, keeps it until `stop` completes or somebody asks it to go down, and takes it down. Must run on a
/// current-thread runtime whose thread lives as long as the process: children end with the thread that spawned them.
///
/// # Errors
/// Why it could not start; everything has been taken down by then.
pub async fn run(
    settings: Settings,
    watcher: Watcher,
    stop: impl Future<Output = ()>,
) -> Result<(), LabError> {
    let began = Instant::now();
    let layout = settings.layout.clone();
    let result = run_in(&settings, &watcher, stop, began).await;
    let keep = matches!(result, Ok(true));
    if !keep {
        blueprint::remove_data(&layout);
    }
    if let Err(error) = layout.remove(keep) {
        tracing::warn!(dir = %layout.dir.display(), %error, "The lab's directory could not be removed.");
    }
    result.map(|_| watcher(&Event::Stopped))
}

async fn run_in(
    settings: &Settings,
    watcher: &Watcher,
    stop: impl Future<Output = ()>,
    began: Instant,
) -> Result<bool, LabError> {
    // Because an app may put itself in the background, its orphans are to come to this process to be ended.
    let _ = set_child_subreaper(Pid::from_raw(1));
    let service = &settings.topology.service;
    if service.command.is_none() {
        return Err(LabError::NoCommand { service: service.name.clone() });
    }
    tree::kill_trees(&record::survivors(&settings.layout.process_record())).await;
    note_other_version(settings, watcher);
    let (topology, layout) = (settings.topology.clone(), settings.layout.clone());
    let blueprint = Blueprint::draw(topology, layout, &settings.programs, &settings.wishes)?;
    if !blueprint.kept {
        remove_leavings(&blueprint);
    }
    rigs::prepare(&blueprint)?;
    settings.layout.point_to_lab();
    let assembled = assemble::assemble(settings, blueprint, began).await?;
    let assemble::Assembled { lab, clusters, mut ended } = assembled;
    lab.mark("layout, links, configuration".into(), began);
    let socket = settings.layout.control_socket();
    let listener = serve::listen(&socket).map_err(|source| LabError::File { path: socket, source })?;
    let (down, mut downs) = mpsc::channel(1);
    let answering = tokio::spawn(serve::answer_all(listener, Arc::clone(&lab), down));
    let start = start::Start { lab: Arc::clone(&lab), watcher: Arc::clone(watcher) };
    let result = watch(start, settings, clusters, &mut ended, &mut downs, stop).await;
    if let Err(error) = &result {
        lab.set_phase(Phase::Failed { because: error.to_string(), help: error.remedy() });
    } else {
        lab.set_phase(Phase::Stopping);
    }
    stop::stop(&lab, matches!(result, Ok(true))).await;
    rigs::remove(&lab);
    answering.abort();
    result
}

/// Watches the start and then the lab, until it fails, is stopped or is asked to go down. Says whether to keep the data.
async fn watch(
    start: start::Start,
    settings: &Settings,
    clusters: Vec<(isles_model::RegionName, crate::postgres::Cluster)>,
    ended: &mut mpsc::Receiver<keeper::Ended>,
    downs: &mut mpsc::Receiver<bool>,
    stop: impl Future<Output = ()>,
) -> Result<bool, LabError> {
    let (lab, watcher) = (Arc::clone(&start.lab), Arc::clone(&start.watcher));
    let mut starting = pin!(start.all(settings, clusters));
    let mut stop = pin!(stop);
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING_EVERY);
    let mut orphans = BTreeSet::new();
    loop {
        tokio::select! {
            started = &mut starting, if !lab.is_ready() => {
                started?;
                lab.set_phase(Phase::Ready);
                watcher(&Event::Ready { state: Box::new(lab.state().await) });
            }
            Some(keeper::Ended { region, part, how }) = ended.recv() => {
                if !lab.is_ready() {
                    return Err(ended_early(&lab, region, part, how));
                }
                let tail = tail(&lab.blueprint.layout.log(&region, part), LAST_WORDS_LINES);
                watcher(&Event::Ended { region, part, how, tail });
            }
            Some(keep) = downs.recv() => return Ok(keep),
            () = &mut stop => return if lab.is_ready() { Ok(false) } else { Err(LabError::Interrupted) },
            _ = housekeeping.tick(), if lab.is_ready() => {
                housekeeping::trim_logs(&lab);
                housekeeping::sweep_orphans(&lab, &mut orphans);
            }
        }
    }
}

/// Says when the rehearsal runs on another major version than production will.
fn note_other_version(settings: &Settings, watcher: &Watcher) {
    let found = settings.programs.major.to_string();
    if let Some(wanted) = settings.topology.database.version.as_ref().filter(|wanted| **wanted != found) {
        let text =
            format!("the spec asks for PostgreSQL {wanted}; the lab runs on {found}, which is installed");
        watcher(&Event::Note { text });
    }
}

fn ended_early(lab: &lab::Lab, region: isles_model::RegionName, part: Part, how: String) -> LabError {
    let log = lab.blueprint.layout.log(&region, part);
    LabError::Ended { region, part, how, tail: tail(&log, start::TAIL_LINES) }
}

/// Removes what a lab that was not taken down properly has left in the regions' directories.
fn remove_leavings(blueprint: &Blueprint) {
    for place in blueprint.places() {
        let _ = std::fs::remove_dir_all(blueprint.layout.region(&place));
    }
    for region in &blueprint.regions {
        let _ = std::fs::remove_dir_all(&region.data_dir);
    }
}
