//! Writes a first spec.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles init` is not in this build", ""))
}
