//! Keeps users and the right to write away from one region while it is worked on, and lets them back.

use isles_model::{Change, RegionName};

use crate::{
    cli::Global,
    operate::{self, How},
    outcome::Outcome,
};

/// The arguments of `isles region`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

/// What to do with the region.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Send its users elsewhere and give it no right to write until it is undrained.
    Drain {
        /// The region.
        region: RegionName,
        #[command(flatten)]
        how: How,
    },
    /// Let users and the right to write back.
    Undrain {
        /// The region.
        region: RegionName,
        #[command(flatten)]
        how: How,
    },
}

/// Shows what will happen, orders it, and follows it to its end.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let (change, how) = match &args.what {
        What::Drain { region, how } => (Change::Drain { region: region.clone() }, how),
        What::Undrain { region, how } => (Change::Undrain { region: region.clone() }, how),
    };
    operate::carry_out(global, how, |_| change)
}
