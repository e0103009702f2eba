//! Opens psql on one region's database.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles psql`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles psql` is not in this build", ""))
}
