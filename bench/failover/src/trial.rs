//! One trial: a fresh system, writers outside and inside of the region that writes, a fault, the recovery, the mending,
//! and the count of what was acknowledged and is not there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use isles_lab::processes::tree;
use rustix::process::Signal;
use serde::Serialize;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{
    case::Case, contender::Contender, error::BenchError, history::History, session::Login, stamp::Stamp,
    table, writer,
};

/// How long a system may take until everything runs and is replicated.
const WHOLE_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long the system writes undisturbed before the fault.
const WARM: Duration = Duration::from_secs(3);
/// How long it may take until somebody can write again. pg_auto_failover's defaults need a minute.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long everybody goes on after the recovery before the fault is taken away.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How long everybody goes on once the fault is gone and everything is whole again.
const AFTERGLOW: Duration = Duration::from_secs(1);
/// How long it may take until everything is whole again.
const HEAL_WAIT_MAX: Duration = Duration::from_secs(90);
/// Pause between two looks. What is measured does not depend on it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where the numbers of the writer inside begin.
const INSIDE_FIRST: u64 = 1_000_000_000;

/// What a trial found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// From the fault to the first acknowledgement of a write that was sent after it; for a planned move the longest
    /// time without one. `None`: nobody could write again in time.
    pub(crate) seconds: Option<f64>,
    /// Acknowledged writes of the client outside.
    pub(crate) acknowledged_outside: usize,
    /// Acknowledged writes of the app inside the region that wrote.
    pub(crate) acknowledged_inside: usize,
    /// Of the first, those that the final table does not hold.
    pub(crate) lost_outside: usize,
    /// Of the second, those that the final table does not hold.
    pub(crate) lost_inside: usize,
    /// Of those, the ones that were sent after the fault.
    pub(crate) lost_inside_sent_after_the_fault: usize,
    /// From the end of the fault's cause until everything was whole again. `None`: not in time.
    pub(crate) whole_after_seconds: Option<f64>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
}

/// Runs one trial and ends the system.
pub(crate) async fn run<C: Contender>(
    mut system: C,
    case: Case,
    dir: &Path,
    logs: Option<&Path>,
) -> Result<Finding, BenchError> {
    let found = attempt(&mut system, case, dir).await;
    if let Some(logs) = logs {
        keep_logs(&system.logs(), logs);
        keep_logs(dir, logs);
    }
    system.stop().await;
    found
}

async fn attempt<C: Contender>(system: &mut C, case: Case, dir: &Path) -> Result<Finding, BenchError> {
    if let Err(lacks) = until_whole(system, WHOLE_WAIT_MAX).await {
        return Err(BenchError::NotReady { lacks, within: WHOLE_WAIT_MAX });
    }
    let entries = system.outside();
    table::make(&entries, &system.copies()).await?;
    let inside = system.inside();
    let outside = Writing::start(&entries, None, 1, dir.join("outside.log"))?;
    let inside =
        Writing::start(&[inside.login], inside.namespace.as_deref(), INSIDE_FIRST, dir.join("inside.log"))?;
    let warm = Stamp::now();
    sleep(WARM).await;
    if outside.history().sent_from(warm) == 0 || inside.history().sent_from(warm) == 0 {
        return Err(BenchError::NoWrites);
    }

    let mut finding = Finding::default();
    let fault = Stamp::now();
    // The app inside shares its region's fate.
    match case {
        Case::Killed => inside.signal(Signal::KILL),
        Case::Stopped => inside.signal(Signal::STOP),
        Case::Database | Case::Network | Case::Planned => {}
    }
    system.inject(case).await?;
    let broken = Stamp::now();
    finding.seconds = recovery(&outside, case, fault, broken).await.map(|time| time.as_secs_f64());
    sleep(AFTERMATH).await;

    let mended = Instant::now();
    system.heal(case).await?;
    if case == Case::Stopped {
        inside.signal(Signal::CONT);
    }
    match until_whole(system, HEAL_WAIT_MAX).await {
        Ok(()) => finding.whole_after_seconds = Some(mended.elapsed().as_secs_f64()),
        Err(lacks) => {
            finding.notes.push(format!("not whole again within {} s: {lacks}", HEAL_WAIT_MAX.as_secs()));
        }
    }
    sleep(AFTERGLOW).await;
    let (outside, inside) = (outside.end().await, inside.end().await);
    count(&mut finding, &outside, &inside, &entries, broken).await;
    Ok(finding)
}

/// Waits until somebody can write again; `None` when nobody can in time.
async fn recovery(outside: &Writing, case: Case, fault: Stamp, broken: Stamp) -> Option<Duration> {
    if case == Case::Planned {
        sleep(AFTERMATH).await;
        let now = Stamp::now();
        let history = outside.history();
        history.first_sent_from(broken)?;
        return Some(history.longest_silence(fault, now));
    }
    let until = Instant::now() + RECOVERY_WAIT_MAX;
    while Instant::now() < until {
        if let Some(first) = outside.history().first_sent_from(broken) {
            return Some(first.at.since(fault));
        }
        sleep(LOOK_EVERY).await;
    }
    None
}

/// Compares what was acknowledged with what is there.
async fn count(finding: &mut Finding, outside: &History, inside: &History, entries: &[Login], broken: Stamp) {
    finding.acknowledged_outside = outside.count();
    finding.acknowledged_inside = inside.count();
    let Some(kept) = table::kept(entries).await else {
        finding.notes.push("the final table could not be read: nothing is known of losses".to_owned());
        return;
    };
    finding.lost_outside = outside.lost(&kept).len();
    let lost = inside.lost(&kept);
    finding.lost_inside = lost.len();
    finding.lost_inside_sent_after_the_fault = lost.iter().filter(|write| write.sent >= broken).count();
}

async fn until_whole<C: Contender>(system: &mut C, within: Duration) -> Result<(), String> {
    let until = Instant::now() + within;
    loop {
        match system.survey().await {
            Ok(()) => return Ok(()),
            Err(lacks) if Instant::now() > until => return Err(lacks),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// A writer's process.
struct Writing {
    child: Child,
    log: PathBuf,
}

impl Writing {
    fn start(
        entries: &[Login],
        namespace: Option<&Path>,
        first: u64,
        log: PathBuf,
    ) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Start { program: "a writer".to_owned(), source };
        let own = std::env::current_exe().map_err(failed)?;
        let mut command = match namespace {
            Some(namespace) => {
                let mut net = OsString::from("--net=");
                net.push(namespace);
                let mut command = Command::new("nsenter");
                command.arg(net).arg("--").arg(own);
                command
            }
            None => Command::new(own),
        };
        command.args(["__writer", "--first", &first.to_string()]).arg("--log").arg(&log);
        for login in entries {
            command.args(["--entry", &login.address.to_string()]);
        }
        if let Some(login) = entries.first() {
            command.args(["--user", &login.user, "--database", &login.database]);
            if let Some(password) = &login.password {
                command.env(writer::PASSWORD, password);
            }
        }
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().map_err(failed)?;
        Ok(Self { child, log })
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            tree::send(pid, signal);
        }
    }

    fn history(&self) -> History {
        History::read(&self.log)
    }

    async fn end(mut self) -> History {
        // It may have been killed with its region.
        let _ = self.child.kill().await;
        self.history()
    }
}

/// Copies every log below a directory; one that cannot be copied is not there to be read.
fn keep_logs(from: &Path, to: &Path) {
    if std::fs::create_dir_all(to).is_err() {
        return;
    }
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_log = path.extension().is_some_and(|ending| ending == "log" || ending == "jsonl");
        if path.is_dir() {
            keep_logs(&path, &to.join(&name));
        } else if is_log {
            let _ = std::fs::copy(&path, to.join(&name));
        }
    }
    // An empty one says nothing.
    let _ = std::fs::remove_dir(to);
}
