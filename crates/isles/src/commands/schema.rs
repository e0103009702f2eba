//! Prints what a spec may hold: as a JSON Schema for editors, or as a page for people.

use isles_model::spec;

use crate::{
    cli::Global,
    outcome::{Exit, Outcome, say},
};

/// The arguments of `isles schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print a page for people instead.
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}

/// Prints it; the schema indented for people, with `--json` on one line.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    if args.markdown {
        say(spec::reference().trim_end());
    } else if global.json {
        say(&spec::schema().to_string());
    } else {
        say(&format!("{:#}", spec::schema()));
    }
    Ok(Exit::Done)
}
