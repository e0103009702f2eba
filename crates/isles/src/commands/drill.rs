//! Breaks the running lab on purpose and measures it.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles drill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles drill` is not in this build", ""))
}
