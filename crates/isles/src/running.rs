//! Finds the lab of the spec that `--file` names, and asks it what runs.

use std::{future::Future, io};

use isles_lab::{
    control::{Client, LabState},
    layout::{Layout, LayoutError},
};

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// Where the spec's lab is or would be.
///
/// # Errors
/// When the spec does not exist, or another user has put something where the lab's files would be.
pub(crate) fn layout(global: &Global) -> Result<Layout, Failure> {
    let found = Layout::of(&global.file, &std::env::temp_dir());
    let safe = found.and_then(|layout| layout.refuse_foreign().map(|()| layout));
    safe.map_err(|error| {
        let help = match &error {
            LayoutError::Foreign { .. } => {
                "ask its owner to remove it, or set TMPDIR to a directory of your own"
            }
            LayoutError::Spec { .. } => "write one with `isles init`, or name another with -f FILE",
            LayoutError::Make { .. } | LayoutError::Busy => "",
        };
        Failure::with_help(error, help)
    })
}

/// A client of the spec's lab and its state.
///
/// # Errors
/// When no lab of this spec runs.
pub(crate) async fn lab(global: &Global) -> Result<(Client, LabState), Failure> {
    let layout = layout(global)?;
    let client = Client::new(layout.control_socket());
    match client.state().await {
        Ok(state) => Ok((client, state)),
        Err(_) if !layout.is_locked() => {
            let message = format!("no lab of {} runs", global.file.display());
            Err(Failure::message(message, "start one with `isles up`"))
        }
        Err(error) => Err(Failure::new(error)),
    }
}

/// Runs a command's asynchronous part on this thread.
///
/// # Errors
/// The command's own, and that the kernel gives no event queue.
pub(crate) fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    runtime().map_err(Failure::new)?.block_on(work)
}

/// A runtime of one thread, the current one.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
