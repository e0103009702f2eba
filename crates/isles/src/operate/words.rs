//! Orders, plans and outcomes as a person reads them.

use std::{fmt::Write as _, time::Duration};

use isles_agent::foresee::{Foresight, Loss};
use isles_model::{Change, RegionName, TransferKind};

use super::{agents::Look, follow::Ended};

/// An order as it is typed.
pub(crate) fn order(change: &Change) -> String {
    match change {
        Change::Drain { region } => format!("drain {region}"),
        Change::Undrain { region } => format!("undrain {region}"),
        Change::Maintenance { on: true } => "maintenance on".into(),
        Change::Maintenance { on: false } => "maintenance off".into(),
        Change::Transfer { to, kind: TransferKind::Switchover } => format!("switchover to {to}"),
        Change::Transfer { to, kind: TransferKind::Failover } => format!("failover to {to}"),
    }
}

/// What would happen.
pub(super) fn plan(place: &str, look: &Look, plan: &Foresight, change: &Change) -> String {
    let mut text = format!("{} in {place}, epoch {}\n", capital(&order(change)), plan.epoch);
    if plan.done {
        text.push_str("  It is so already: nothing to do.\n");
        return text;
    }
    if plan.standing {
        text.push_str("  Ordered before and not done yet: goes on from there.\n");
    }
    let name = |region: &Option<RegionName>| {
        region.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string)
    };
    if plan.writer == plan.next_writer {
        let _ = writeln!(text, "  writer    {} stays", name(&plan.writer));
    } else {
        let _ = writeln!(text, "  writer    {} -> {}", name(&plan.writer), name(&plan.next_writer));
        let _ = writeln!(text, "  loss      {}", loss(plan.loss));
    }
    let _ = writeln!(text, "  users     {}", users(change, plan.pause));
    let silent: Vec<&str> = look
        .shown
        .values()
        .flat_map(|snapshot| snapshot.peers.keys())
        .filter(|region| !look.shown.contains_key(region))
        .map(RegionName::as_str)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if !silent.is_empty() {
        let _ = writeln!(text, "  silent    {}", silent.join(", "));
    }
    text
}

fn loss(loss: Loss) -> String {
    match loss {
        Loss::Nothing => "none: nothing that was acknowledged".into(),
        Loss::Unknown => "unknown: nothing is known of how far the copy is behind".into(),
        Loss::UpTo { bytes: 0, .. } => {
            "none that is known; what the writer acknowledged unseen would be lost".into()
        }
        Loss::UpTo { bytes, age } => {
            let age = age.map_or_else(String::new, |age| format!(", of the last {:.1} s", age.as_secs_f64()));
            format!("up to {bytes} bytes of the writer's log{age}; kept in its ledger once it is back")
        }
    }
}

fn users(change: &Change, pause: Option<Duration>) -> String {
    let waits = pause.map(|pause| format!("writes wait about {:.1} s", pause.as_secs_f64()));
    match change {
        Change::Transfer { .. } => {
            format!("{}; reads go on", waits.unwrap_or_else(|| "writes wait".into()))
        }
        Change::Drain { region } => {
            let waits = waits.map_or_else(String::new, |waits| format!("; {waits}"));
            format!("those of {region} are answered by other regions{waits}")
        }
        Change::Undrain { region } => format!("may be sent to {region} again; it may take the writes again"),
        Change::Maintenance { on: true } => {
            "notice nothing; a lost writer is not replaced until it is off".into()
        }
        Change::Maintenance { on: false } => "notice nothing; a lost writer is replaced again".into(),
    }
}

/// How it ended.
pub(super) fn ended(ended: &Ended) -> String {
    match ended {
        Ended::Done { writer: Some(writer), epoch, pause_ms_max, elapsed_ms } => {
            let pause = pause_ms_max
                .map_or_else(String::new, |ms| format!("; no region took writes for at most {ms} ms"));
            format!("Done after {elapsed_ms} ms: {writer} writes, epoch {epoch}{pause}.")
        }
        Ended::Done { writer: None, elapsed_ms, .. } => format!("Done after {elapsed_ms} ms."),
        Ended::NotYet { writer, because } => {
            let writer = writer.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            format!(
                "Not done yet: {writer} writes; the target says: {because}.\n\
                 Next: isles status; the same command follows the order further"
            )
        }
        Ended::Superseded => "Somebody has ordered another move meanwhile; see isles audit.".into(),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_never_rounded_away() {
        let behind = Loss::UpTo { bytes: 1, age: Some(Duration::from_millis(1_240)) };
        assert!(loss(behind).starts_with("up to 1 bytes of the writer's log, of the last 1.2 s"));
        assert!(!loss(Loss::UpTo { bytes: 0, age: None }).starts_with("none:"));
    }
}
