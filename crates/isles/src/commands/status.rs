//! Shows each region's role, lease, lag and health.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles status` is not in this build", ""))
}
