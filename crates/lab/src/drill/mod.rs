//! Breaks a running lab on purpose and measures what users and apps would have seen: how long until they could read and
//! write again, which acknowledged writes were lost, whether two regions were ever writable at once.
//!
//! The clients stand outside the agents and share no code with them; every figure comes from one clock, the drill's.

pub mod error;
pub mod history;
pub mod overlap;
pub mod verdict;

mod apps;
mod distance;
mod doors;
mod exchange;
mod fit;
mod ground;
mod ledger;
mod mend;
mod operate;
mod record;
pub mod roles;
mod run;
mod session;
mod stage;
mod table;
pub mod torture;
mod users;
mod watch;

use std::{sync::Arc, time::Duration};

use isles_model::{RegionName, drill::Drill};

pub use error::DrillError;
pub use fit::rigs;
pub use session::SessionError;
pub use users::Paths;

use crate::{
    control::Client,
    report::{Objectives, Report, Settings, Summary},
    timeline::Entry,
};
use ground::Ground;
use record::{Numbers, Stopwatch};
use table::Table;
use verdict::{Judged, Promise, judge};

/// What to do.
#[derive(Debug, Clone)]
pub struct Orders {
    /// What is broken when, and what must hold.
    pub drill: Drill,
    /// Which region plays the writer's part; `None`: the writer, whichever that is when a run begins.
    pub region: Option<RegionName>,
    /// How often.
    pub repeat: u32,
    /// What users ask for.
    pub paths: Paths,
}

/// Something that a person who waits wants to see.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A step of the drill: what it does now.
    Step {
        /// Which run, from 1; 0: before the first.
        run: u32,
        /// What.
        doing: String,
    },
    /// A run is over.
    Told {
        /// Which, from 1.
        run: u32,
        /// What happened in it.
        timeline: Vec<Entry>,
    },
}

/// Whom to tell.
pub type Watcher = Arc<dyn Fn(Progress) + Send + Sync>;

/// Carries a drill out on a running lab and reports. The lab is whole again afterwards, if it can be.
///
/// # Errors
/// When the drill cannot be carried out. A missed objective is no error.
pub async fn drill(lab: &Client, orders: &Orders, watcher: &Watcher) -> Result<Report, DrillError> {
    let step = |doing: &str| watcher(Progress::Step { run: 0, doing: doing.to_owned() });
    let ground = Ground::survey(lab).await?;
    if let Some(region) = &orders.region {
        ground.place(region)?;
    }
    fit::check(&orders.drill, &ground)?;
    step("waiting until every region is well");
    let writer = ground.until_well().await?;
    step("measuring the distances");
    let distances = distance::measure(&ground).await;
    step("making the table of numbered writes, and waiting until every region has it");
    let (table, numbers) = (Table::new(), Numbers::default());
    let place = ground.place(&writer.region)?;
    let prepared = prepare(&ground, place, &table, &numbers).await;
    let done = match prepared {
        Ok(()) => runs(&ground, orders, &table, &numbers, watcher).await,
        Err(error) => Err(error),
    };
    // Because what a failed drill leaves behind would hinder the next one, the table goes either way.
    let discarded = table::discard_all(place).await;
    let judged = done?;
    discarded?;
    let promise = Promise::of(&ground.topology, &orders.drill);
    let (verdict, because) = judge(&judged, &promise, &distances);
    let runs: Vec<_> = judged.into_iter().map(|one| one.run).collect();
    Ok(Report {
        scenario: orders.drill.name.clone(),
        pattern: ground.topology.pattern,
        regions: ground.places.len(),
        verdict,
        because,
        summary: (runs.len() > 1).then(|| Summary::of(&runs)),
        runs,
        objectives: Objectives::of(&ground.topology.objectives),
        app: ground.topology.name.clone(),
        settings: Settings::of(&ground.topology),
        distances,
    })
}

/// Mends what an interrupted drill left broken, and takes its table away.
///
/// # Errors
/// When the lab does not answer, or refuses.
pub async fn mend(lab: &Client) -> Result<(), DrillError> {
    let state =
        lab.state().await.map_err(|source| DrillError::Lab { doing: "ask the lab what runs", source })?;
    let failed = |source| DrillError::Lab { doing: "mend what was broken", source };
    mend::all(lab, &state).await.map_err(failed)?;
    let ground = Ground::survey(lab).await?;
    let up = |place: &&ground::Place| state.regions.iter().any(|one| one.region == place.region && !one.held);
    match ground.places.iter().find(up) {
        Some(place) => table::discard_all(place).await,
        None => Ok(()),
    }
}

async fn prepare(
    ground: &Ground,
    place: &ground::Place,
    table: &Table,
    numbers: &Numbers,
) -> Result<(), DrillError> {
    table.make(place).await?;
    let number = numbers.next();
    table.mark(place, number).await?;
    table.until_replicated(ground, number).await
}

async fn runs(
    ground: &Ground,
    orders: &Orders,
    table: &Table,
    numbers: &Numbers,
    watcher: &Watcher,
) -> Result<Vec<Judged>, DrillError> {
    let mut judged = Vec::new();
    let watch = Stopwatch::start();
    for number in 1..=orders.repeat.max(1) {
        let step = |doing: &str| watcher(Progress::Step { run: number, doing: doing.to_owned() });
        let one = run::run(ground, orders, watch, table, numbers, &step).await?;
        watcher(Progress::Told { run: number, timeline: one.run.timeline.clone() });
        judged.push(one);
    }
    Ok(judged)
}

/// Whole milliseconds, rounded up: a drill never reports less than it measured.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
