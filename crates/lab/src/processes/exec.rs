//! What `isles __exec` does: becomes another program that the kernel signals when the supervisor dies, or stands
//! guard over one and takes all its descendants along.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, set_child_subreaper, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::tree;

/// How long a guarded program may take to end after SIGTERM before it is killed.
pub const GUARD_GRACE: Duration = Duration::from_secs(5);

/// Why a program could not be become or guarded.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kernel would not promise the signal.
    #[error("the kernel refused to tie this process to its parent")]
    Tie(#[source] io::Error),
    /// The parent had gone before the tie was made.
    #[error("the supervisor has gone")]
    ParentGone,
    /// The program could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Its name.
        program: String,
        /// The cause.
        source: io::Error,
    },
}

/// Ties this process to its parent with `signal` and becomes `program`. Returns only on failure.
pub fn become_program(parent: u32, on_death: Signal, program: &OsString, args: &[OsString]) -> ExecError {
    if let Err(error) = tie(parent, on_death) {
        return error;
    }
    let source = Command::new(program).args(args).exec();
    ExecError::Start { program: program.to_string_lossy().into_owned(), source }
}

/// Ties this process to its parent, runs `program` below it, and returns the program's exit code. When the parent
/// dies or this process is asked to end, the program and all its descendants end first.
///
/// # Errors
/// When the tie cannot be made or the program cannot be started.
pub fn guard_program(parent: u32, program: &OsString, args: &[OsString]) -> Result<u8, ExecError> {
    tie(parent, Signal::TERM)?;
    set_child_subreaper(Pid::from_raw(1)).map_err(|errno| ExecError::Tie(errno.into()))?;
    let start = |source| ExecError::Start { program: program.to_string_lossy().into_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate()).map_err(start)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(start)?;
        let mut child = tokio::process::Command::new(program).args(args).spawn().map_err(start)?;
        let status = tokio::select! {
            status = child.wait() => Some(status.map_err(start)?),
            _ = ended.recv() => None,
            _ = interrupted.recv() => None,
        };
        end_descendants(&mut child, status.is_none()).await;
        Ok(status.map_or(0, exit_code))
    })
}

fn tie(parent: u32, on_death: Signal) -> Result<(), ExecError> {
    set_parent_process_death_signal(Some(on_death)).map_err(|errno| ExecError::Tie(errno.into()))?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(ExecError::ParentGone) }
}

/// Ends what is left below this process: gently first where time was given, then with SIGKILL.
async fn end_descendants(child: &mut tokio::process::Child, gently: bool) {
    let own = std::process::id();
    if gently {
        tree::signal_below(own, Signal::TERM);
        let _ = tokio::time::timeout(GUARD_GRACE, child.wait()).await;
    }
    tree::kill_below(own);
}

/// The exit code as a shell would report it: 128 and the signal's number for a program that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
