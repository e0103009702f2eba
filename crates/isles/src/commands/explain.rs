//! Explains a mistake's code.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The code, as `isles check` prints it.
    pub(crate) code: String,
}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles explain` is not in this build", ""))
}
