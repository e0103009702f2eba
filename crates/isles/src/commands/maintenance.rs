//! Lets nobody take the right to write over by itself while it is on: for work that looks like an outage.

use clap::ValueEnum;
use isles_model::Change;

use crate::{
    cli::Global,
    operate::{self, How},
    outcome::Outcome,
};

/// The arguments of `isles maintenance`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// On: a lost writer is not replaced. Off: it is.
    switch: Switch,
    #[command(flatten)]
    how: How,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// A lost writer is not replaced.
    On,
    /// A lost writer is replaced.
    Off,
}

/// Shows what will happen and orders it.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let on = args.switch == Switch::On;
    operate::carry_out(global, &args.how, |_| Change::Maintenance { on })
}
