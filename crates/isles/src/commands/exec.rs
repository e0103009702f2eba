//! Becomes another program that ends with this process's parent. The lab starts everything through this; it is not
//! meant for people.

use std::ffi::OsString;

use isles_lab::processes::{Leash, exec};

use crate::outcome::{Exit, Failure, Outcome};

/// The arguments of `isles __exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The process that must be the parent still.
    #[arg(long)]
    parent: u32,
    /// The signal that the program gets when the parent dies.
    #[arg(long, value_name = "SIGNAL", required_unless_present = "guard")]
    death_signal: Option<String>,
    /// Stay above the program instead, and end it with all its descendants.
    #[arg(long)]
    guard: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program, or guards it and passes its exit code on.
pub(crate) fn run(args: &Args) -> Outcome {
    let (program, rest) = args.command.split_first().expect("clap requires a program");
    if args.guard {
        return exec::guard_program(args.parent, program, rest).map(Exit::Program).map_err(Failure::new);
    }
    let name = args.death_signal.as_deref().unwrap_or_default();
    let signal = Leash::signal_named(name)
        .ok_or_else(|| Failure::usage(format!("`{name}` is not a signal that is known here"), ""))?;
    Err(Failure::new(exec::become_program(args.parent, signal, program, rest)))
}
