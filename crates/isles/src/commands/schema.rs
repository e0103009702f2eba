//! Prints the JSON Schema of the spec.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles schema` is not in this build", ""))
}
