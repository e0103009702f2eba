//! Moves the right to write back to the primary region, as the spec names it: a switchover that loses nothing.

use isles_model::{Change, TransferKind};

use crate::{
    cli::Global,
    operate::{self, How},
    outcome::Outcome,
};

/// The arguments of `isles failback`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
}

/// Shows what will happen, orders it, and follows it to its end.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    operate::carry_out(global, &args.how, |topology| Change::Transfer {
        to: topology.primary().clone(),
        kind: TransferKind::Switchover,
    })
}
