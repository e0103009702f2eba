//! Moves the right to write to another region while the writer is well: nothing that was acknowledged is lost.

use isles_model::{Change, RegionName, TransferKind};

use crate::{
    cli::Global,
    operate::{self, How},
    outcome::Outcome,
};

/// The arguments of `isles switchover`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region that should write.
    region: RegionName,
    #[command(flatten)]
    how: How,
}

/// Shows what will happen, orders it, and follows it to its end.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let change = Change::Transfer { to: args.region.clone(), kind: TransferKind::Switchover };
    operate::carry_out(global, &args.how, |_| change)
}
