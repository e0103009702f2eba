//! The ground of drills and torture: a lab that runs, or one that is started for it and stopped afterwards.

use std::process::Stdio;

use isles_lab::{
    control::{Client, Rigs},
    drill::{self, DrillError},
    layout::Layout,
};
use tokio::signal::unix::{SignalKind, signal};

use super::up::Rig;
use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// Runs `work` on the lab of the spec. One that is started for it can do what `rigs` ask for.
pub(crate) fn with_lab(
    global: &Global,
    layout: &Layout,
    rigs: Rigs,
    work: impl FnOnce() -> Outcome,
) -> Outcome {
    let started = !layout.is_locked();
    if started {
        let wanted = [(rigs.movable_clocks, Rig::MovableClocks), (rigs.small_disks, Rig::SmallDisks)];
        let wanted = wanted.iter().filter(|(wanted, _)| *wanted).flat_map(|(_, rig)| ["--with", rig.word()]);
        isles(global, &["up", "--detach"].into_iter().chain(wanted).collect::<Vec<_>>())?;
    }
    let outcome = work();
    let stopped = if started { isles(global, &["down"]) } else { Ok(()) };
    let exit = outcome?;
    stopped.map(|()| exit)
}

/// Mends the lab after an interruption, and says so.
pub(crate) async fn interrupted_failure(lab: &Client) -> Failure {
    match drill::mend(lab).await {
        Ok(()) => Failure::message("interrupted", "what had been broken has been mended"),
        Err(error) => Failure::new(error),
    }
}

/// Mends the lab after a drill that could not be carried out.
pub(crate) async fn failure(lab: &Client, error: DrillError) -> Failure {
    if error.is_refusal() {
        let help = match &error {
            DrillError::NoRig { rig, .. } => {
                format!("isles down, then again: the drill starts a lab that can; or isles up --with {rig}")
            }
            _ => "isles drill --list shows them all; a region can be named in a drill of your own".to_owned(),
        };
        return Failure::refused(error.to_string(), help);
    }
    // Because the first error is the one to be told, a second one is only noted.
    if let Err(second) = drill::mend(lab).await {
        tracing::warn!(error = %second, "What the drill had broken could not be mended.");
    }
    Failure::with_help(error, "isles status shows the regions; isles logs shows what their parts wrote")
}

/// Runs this program with other arguments; what it prints for programs is left out.
pub(crate) fn isles(global: &Global, args: &[&str]) -> Result<(), Failure> {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg("-f").arg(&global.file).args(args).stdin(Stdio::null()).stdout(Stdio::null());
    if global.json || global.quiet {
        command.arg("--quiet");
    }
    let status = command.status().map_err(Failure::new)?;
    let command = args.join(" ");
    let failed = || Failure::message(format!("`isles {command}` failed"), "run it by itself to see why");
    match status.code() {
        Some(0) => Ok(()),
        Some(3) => Err(Failure::refused(format!("`isles {command}` was refused"), "it said why above")),
        Some(_) | None => Err(failed()),
    }
}

/// Completes when the user or the system asks this process to end.
pub(crate) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
