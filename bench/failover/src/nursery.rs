//! Adopts the processes that a killed database leaves behind, as a real machine's first process does.
//!
//! PostgreSQL trusts its pid file while a process of that number exists, and a process that nobody waits for exists for
//! ever. Inside a container there may be nobody; so the series runs below a process that waits for all.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::BenchError;

/// Starts this program again as `role` with its own arguments, and adopts every orphan until that has ended.
pub(crate) async fn run(role: &str) -> Result<ExitCode, BenchError> {
    set_child_subreaper(Pid::from_raw(1)).map_err(|errno| BenchError::Tie(errno.into()))?;
    let listen = |kind| signal(kind).map_err(BenchError::Tie);
    let mut ended = listen(SignalKind::child())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let start = |source| BenchError::Start { program: "the series".to_owned(), source };
    let own = std::env::current_exe().map_err(start)?;
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let child = Command::new(own).arg(role).args(args).spawn().map_err(start)?.id();
    loop {
        tokio::select! {
            _ = ended.recv() => {
                if let Some(code) = adopt(child) {
                    return Ok(code);
                }
            }
            // The terminal has told the series, too.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => isles_lab::processes::tree::send(child, Signal::TERM),
        }
    }
}

/// Waits for everything that has ended; gives the exit code of `child` when it is among them.
fn adopt(child: u32) -> Option<ExitCode> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if u32::try_from(pid.as_raw_nonzero().get()) == Ok(child) {
            let exit = status.exit_status().and_then(|status| u8::try_from(status).ok());
            code = Some(exit.map_or(ExitCode::FAILURE, ExitCode::from));
        }
    }
    code
}
