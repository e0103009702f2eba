//! Starts every region on this machine.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles up` is not in this build", ""))
}
