//! Starts the sentry and tells it how long the right to write lasts.
//!
//! The sentry is another process of the same executable ([`isles_postgres::sentry`] is what it does): it outlives an
//! agent that is killed, and goes on while one hangs.

use std::{path::PathBuf, process::Stdio, time::Duration};

use isles_model::{DatabaseOrder, DatabaseRole, Plan, RegionReport, config::DatabaseConfig};
use isles_postgres::sentry::Ward;
pub use isles_postgres::sentry::guard;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How the sentry is started.
#[derive(Debug, Clone)]
pub struct SentryProgram {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Pause before a sentry that has ended is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a sentry may take to end after the goodbye.
const BYE_MAX: Duration = Duration::from_secs(2);

/// Keeps a sentry running and informed until stopped; then says goodbye, since a stopping agent leaves its database fenced.
pub async fn keep(
    program: SentryProgram,
    database: DatabaseConfig,
    mut plans: watch::Receiver<Plan>,
    mut reports: watch::Receiver<RegionReport>,
    stop: CancellationToken,
) {
    let ward =
        serde_json::to_string(&Ward::of(&database)).expect("paths and names of a configuration are text");
    while !stop.is_cancelled() {
        match start(&program) {
            Ok((mut child, mut pipe)) => {
                let told = async {
                    pipe.write_all(format!("{ward}\n").as_bytes()).await?;
                    inform(&mut pipe, &mut plans, &mut reports).await
                };
                tokio::select! {
                    told = told => if let Err(error) = told {
                        warn!(%error, "The sentry does not listen; starting another.");
                        let _ = child.start_kill();
                    },
                    ended = child.wait() => warn!(?ended, "The sentry has ended; starting another."),
                    () = stop.cancelled() => return say_goodbye(child, pipe).await,
                }
            }
            Err(error) => {
                warn!(%error, "The sentry cannot be started: an agent that dies leaves its database unfenced.");
            }
        }
        tokio::select! { () = tokio::time::sleep(AGAIN_AFTER) => {}, () = stop.cancelled() => {} }
    }
}

fn start(program: &SentryProgram) -> std::io::Result<(Child, ChildStdin)> {
    let mut child = Command::new(&program.program)
        .args(&program.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(false)
        .spawn()?;
    let pipe = child.stdin.take().expect("asked for above");
    Ok((child, pipe))
}

/// Tells every change of the right's end. The last one heard stands until the database is known to be fenced.
async fn inform(
    pipe: &mut ChildStdin,
    plans: &mut watch::Receiver<Plan>,
    reports: &mut watch::Receiver<RegionReport>,
) -> std::io::Result<()> {
    let mut said = String::new();
    loop {
        let line = match &plans.borrow_and_update().database {
            DatabaseOrder::Write { until, .. } => Some(format!("until {}\n", until.0.as_nanos())),
            DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => {
                let writes = matches!(reports.borrow_and_update().database.role, DatabaseRole::Writer { .. });
                (!writes).then(|| "none\n".to_owned())
            }
        };
        if let Some(line) = line.filter(|line| *line != said) {
            pipe.write_all(line.as_bytes()).await?;
            said = line;
        }
        let gone = tokio::select! {
            changed = plans.changed() => changed.is_err(),
            changed = reports.changed() => changed.is_err(),
        };
        if gone {
            // Whoever decides has ended: the last word stands.
            std::future::pending::<()>().await;
        }
    }
}

async fn say_goodbye(mut child: Child, mut pipe: ChildStdin) {
    let parted = async {
        pipe.write_all(b"bye\n").await?;
        drop(pipe);
        child.wait().await
    };
    if !matches!(tokio::time::timeout(BYE_MAX, parted).await, Ok(Ok(_))) {
        warn!("The sentry did not end in time.");
    }
}
