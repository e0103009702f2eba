//! Runs the agent of one region.

use crate::{
    cli::Global,
    outcome::{Failure, Outcome},
};

/// The arguments of `isles agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region it is the agent of.
    #[arg(long)]
    pub(crate) region: String,
    /// Its configuration (JSON, see `isles_model::AgentConfig`).
    #[arg(long)]
    pub(crate) config: std::path::PathBuf,
}

/// Not in this build yet.
pub(crate) fn run(_global: &Global, _args: &Args) -> Outcome {
    Err(Failure::message("`isles agent` is not in this build", ""))
}
