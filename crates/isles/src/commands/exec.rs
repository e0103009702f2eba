//! Becomes another program that ends with this process's parent.

use crate::outcome::{Failure, Outcome};

/// The arguments of `isles exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_args: &Args) -> Outcome {
    Err(Failure::message("`isles exec` is not in this build", ""))
}
