//! Gives the right to write to another region after the writer was lost, though it may lack the last writes.

use isles_model::{Change, RegionName, TransferKind};

use crate::{
    cli::Global,
    operate::{self, How},
    outcome::Outcome,
};

/// The arguments of `isles failover`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region that should write.
    region: RegionName,
    #[command(flatten)]
    how: How,
}

/// Shows what may be lost, orders it, and follows it to its end.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let change = Change::Transfer { to: args.region.clone(), kind: TransferKind::Failover };
    operate::carry_out(global, &args.how, |_| change)
}
