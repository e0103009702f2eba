//! Judges whether the rows here are of the history that is to be followed. Pure.

use isles_model::{Epoch, RegionName};

use crate::bookkeeping::{Node, Promotion};

/// What a database's rows are worth to a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The subscription follows this writer's history already.
    Keep,
    /// Nothing was ever copied here.
    First,
    /// The rows are a copy, of another history or an unfinished one.
    Copy,
    /// The rows were written here, under an older epoch.
    Rejoin,
    /// The rows are of a newer epoch than the order.
    Ahead,
}

/// Judges what a database holds against the writer it is to follow and that writer's history.
pub(crate) fn judge(
    node: &Node,
    subscribed: bool,
    writer: &RegionName,
    epoch: Epoch,
    history: &[Promotion],
) -> Judgement {
    if node.lineage.epoch > epoch {
        return Judgement::Ahead;
    }
    if node.lineage.wrote {
        return Judgement::Rejoin;
    }
    match &node.following {
        Some((whom, since)) if subscribed && whom == writer && continues(history, writer, *since, epoch) => {
            Judgement::Keep
        }
        None if node.lineage.epoch == Epoch::NONE => Judgement::First,
        Some(_) | None => Judgement::Copy,
    }
}

/// Whether `writer` was the only writer from `since` to `epoch`.
pub(crate) fn continues(history: &[Promotion], writer: &RegionName, since: Epoch, epoch: Epoch) -> bool {
    let between = history.iter().filter(|promotion| promotion.epoch > since && promotion.epoch <= epoch);
    let mut last = since;
    for promotion in between {
        if promotion.from_epoch != last
            || &promotion.region != writer
            || promotion.from.as_ref() != Some(writer)
        {
            return false;
        }
        last = promotion.epoch;
    }
    last == epoch
}

#[cfg(test)]
mod tests {
    use isles_model::Lsn;

    use super::*;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn promotion(epoch: u64, by: &str, from: &str, from_epoch: u64) -> Promotion {
        Promotion {
            epoch: Epoch(epoch),
            region: region(by),
            from: Some(region(from)),
            from_epoch: Epoch(from_epoch),
            applied: Lsn(1),
            last_commit: Lsn(1),
            catalogue: String::new(),
        }
    }

    #[test]
    fn a_copy_is_kept_while_its_writer_continues_its_own_history() {
        let eu = region("eu");
        let history = [promotion(2, "eu", "us", 1), promotion(3, "eu", "eu", 2), promotion(5, "eu", "eu", 3)];
        assert!(continues(&history, &eu, Epoch(2), Epoch(5)));
        assert!(continues(&history, &eu, Epoch(5), Epoch(5)));
        assert!(!continues(&history, &eu, Epoch(1), Epoch(5)));
        assert!(!continues(&history, &eu, Epoch(5), Epoch(6)));
    }
}
