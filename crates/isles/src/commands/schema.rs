//! Prints the JSON Schema of the spec, for editors.

use crate::{
    cli::Global,
    outcome::{Exit, Outcome, say},
};

/// The arguments of `isles schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints it, indented for people; with `--json` on one line.
pub(crate) fn run(global: &Global, _args: &Args) -> Outcome {
    let schema = isles_model::spec::schema();
    say(&if global.json { schema.to_string() } else { format!("{schema:#}") });
    Ok(Exit::Done)
}
