//! Says which programs the lab would use here.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles doctor` is not in this build", ""))
}
