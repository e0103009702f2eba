//! Shows what the parts of the lab have written.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles logs` is not in this build", ""))
}
