//! Breaks a lab in many ways at once, by chance but from a seed, while clients in every region write; then judges the
//! whole history: nothing acknowledged lost beyond the promise, nothing out of order, never two writers, always a
//! writer again soon after everything is mended.

pub mod check;
#[cfg(test)]
mod check_tests;
pub mod history;
mod journals;
pub mod quiet;
pub mod report;
mod run;
pub mod schedule;
mod workload;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use isles_model::topology::Commit;

pub use report::{Replayed, TortureReport};
use schedule::Terrain;

use super::{
    Progress, Watcher,
    error::DrillError,
    ground::{Ground, Place},
    record::{Numbers, Record, Stopwatch},
    table::{self, Table},
};
use crate::control::Client;
use workload::Workload;

/// The schedule, the history and the journals, in the directory of a torture.
pub const SCHEDULE_FILE: &str = "schedule.drill";
/// One line for each try.
pub const HISTORY_FILE: &str = "history.jsonl";
/// The agents' journals.
pub const JOURNALS_DIR: &str = "journals";

/// What to do.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The same seed on the same lab gives the same faults.
    pub seed: u64,
    /// How long faults are made.
    pub length: Duration,
    /// The lease store may lose more members than it survives.
    pub quorum: bool,
    /// The agents take an operator's orders.
    pub orders: bool,
    /// Where schedule, history and journals are put.
    pub dir: PathBuf,
}

/// Tortures a running lab and reports. The lab is whole again afterwards, if it can be.
///
/// # Errors
/// When it cannot be carried out. A broken promise is no error.
pub async fn torture(lab: &Client, orders: &Orders, watcher: &Watcher) -> Result<TortureReport, DrillError> {
    let step = |doing: &str| watcher(Progress::Step { run: 0, doing: doing.to_owned() });
    let ground = Ground::survey(lab).await?;
    let drill = schedule::draw(orders.seed, orders.length, &terrain(&ground, orders));
    write(&orders.dir, SCHEDULE_FILE, |to| io::Write::write_all(to, drill.to_string().as_bytes()))?;
    step("waiting until every region is well");
    let writer = ground.until_well().await?;
    step("making the tables, and waiting until every region has them");
    let (table, numbers) = (Table::new(), Numbers::default());
    let workload = Workload::new(table.name());
    let place = ground.place(&writer.region)?;
    let prepared = prepare(&ground, place, &table, &numbers, &workload).await;
    let done = match prepared {
        Ok(()) => {
            let record = Record::new(Stopwatch::start(), table, numbers);
            let kept = place.ledger.ancestors().nth(3).unwrap_or(Path::new("/tmp")).join(JOURNALS_DIR);
            let one =
                run::Torture { ground: &ground, orders, drill: &drill, record: &record, workload: &workload };
            let done = one.run(&writer, &kept, &step).await;
            let exported = write(&orders.dir, HISTORY_FILE, |to| history::export(&workload.ops(), to));
            let collected = journals::collect(&kept, &orders.dir.join(JOURNALS_DIR));
            let dir = || orders.dir.join(JOURNALS_DIR);
            collected.map_err(|source| DrillError::Evidence { path: dir(), source })?;
            exported.and(done)
        }
        Err(error) => Err(error),
    };
    // Because what a failed torture leaves behind would hinder the next drill, the tables go either way.
    let discarded = table::discard_all(place).await;
    let report = done?;
    discarded?;
    Ok(report)
}

fn terrain(ground: &Ground, orders: &Orders) -> Terrain {
    Terrain {
        regions: ground.places.len(),
        votes: ground.topology.voters().count() + ground.topology.witness.iter().count(),
        rigs: ground.rigs,
        orders: orders.orders,
        quorum: orders.quorum,
        none_lost: ground.topology.database.commit == Commit::Remote,
    }
}

async fn prepare(
    ground: &Ground,
    place: &Place,
    table: &Table,
    numbers: &Numbers,
    workload: &Workload,
) -> Result<(), DrillError> {
    super::prepare(ground, place, table, numbers).await?;
    workload.make(place).await?;
    workload.until_replicated(ground).await
}

fn write(
    dir: &Path,
    name: &str,
    with: impl FnOnce(&mut io::BufWriter<fs::File>) -> io::Result<()>,
) -> Result<(), DrillError> {
    let path = dir.join(name);
    let written = fs::create_dir_all(dir).and_then(|()| fs::File::create(&path)).and_then(|file| {
        let mut to = io::BufWriter::new(file);
        with(&mut to)?;
        io::Write::flush(&mut to)
    });
    written.map_err(|source| DrillError::Evidence { path, source })
}
