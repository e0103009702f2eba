//! Starts the lab in the background, follows it until it is ready, and leaves.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, process::Stdio};

use isles_lab::{processes::tree, supervisor::Event};
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{ChildStdout, Command},
};

use super::{Args, progress, stop_signal};
use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome},
    running,
};

/// Starts `isles up --supervise` and returns when it says that the lab is ready, or why it is not.
pub(super) async fn start(global: &Global, args: &Args) -> Outcome {
    let layout = running::layout(global)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(layout.supervisor_log());
    let mut command = Command::new("/proc/self/exe");
    command.arg("-f").arg(&global.file).args(["up", "--supervise"]);
    if let Some(port) = args.edge_port {
        command.args(["--edge-port", &port.to_string()]);
    }
    for dir in &args.data_dirs {
        command.arg("--data-dir").arg(format!("{}={}", dir.region, dir.path.display()));
    }
    for rig in &args.rigs {
        command.args(["--with", rig.word()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.map_err(Failure::new)?);
    let mut child = command.spawn().map_err(Failure::new)?;
    let pid = child.id().unwrap_or_default();
    let events =
        child.stdout.take().ok_or_else(|| Failure::message("the lab's events cannot be read", ""))?;
    let followed = {
        let follow = follow(global, args, events);
        tokio::pin!(follow);
        tokio::select! {
            followed = &mut follow => followed,
            () = stop_signal() => {
                tree::send(pid, Signal::TERM);
                follow.await
            }
        }
    };
    if followed.is_err() {
        let _ = child.wait().await;
    }
    followed
}

async fn follow(global: &Global, args: &Args, events: ChildStdout) -> Outcome {
    let mut lines = BufReader::new(events).lines();
    let mut failed = None;
    while let Ok(Some(text)) = lines.next_line().await {
        match serde_json::from_str(&text) {
            Ok(Event::Ready { state }) => {
                super::show(global, args.timing, &state).await;
                return Ok(Exit::Done);
            }
            Ok(Event::Failed { error, causes, help }) => failed = Some(Failure::heard(error, causes, help)),
            Ok(event) => progress::line(global, &event),
            Err(error) => return Err(Failure::new(error)),
        }
    }
    Err(failed.unwrap_or_else(|| {
        Failure::message("the lab ended before it was ready", "isles up, without --detach")
    }))
}
