//! Shows who ordered what, when and why, newest first, as it stands in the lease store.

use isles_agent::ledger::rfc3339;
use isles_model::{AuditEntry, Epoch};

use crate::{
    cli::Global,
    operate::{Agents, Where, words},
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// From 1970 to 2000, in microseconds: where the two counts of time begin.
const TO_2000_US: i64 = 946_684_800_000_000;

/// The arguments of `isles audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// At most so many, newest first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    last: u32,
    #[command(flatten)]
    place: Where,
}

/// Prints the entries.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    running::block_on(async {
        let agents = Agents::find(global, &args.place).await?;
        let entries = agents.audit(args.last).await?;
        if global.json {
            say(&serde_json::to_string(&entries).map_err(Failure::new)?);
        } else if entries.is_empty() {
            say("Nobody has ordered anything yet.");
        } else {
            entries.iter().for_each(|entry| say(&line(entry)));
        }
        Ok(Exit::Done)
    })
}

fn line(entry: &AuditEntry) -> String {
    let since_2000_us = i64::try_from(entry.at_ms).unwrap_or(i64::MAX).saturating_mul(1_000) - TO_2000_US;
    let at = rfc3339(since_2000_us);
    let at = at.get(..19).unwrap_or(&at);
    let AuditEntry { number, who, why, epoch: Epoch(epoch), .. } = entry;
    let what = words::order(&entry.change);
    let why = if why.is_empty() { String::new() } else { format!("  \"{why}\"") };
    format!("{number:>5}  {at}Z  epoch {epoch:<4}  {who:<12}  {what}{why}")
}

#[cfg(test)]
mod tests {
    use isles_model::Change;

    use super::*;

    #[test]
    fn a_line_says_when_who_what_and_why() {
        let entry = AuditEntry {
            number: 7,
            at_ms: 1_772_240_523_000,
            who: "ada".into(),
            why: "kernel update".into(),
            change: Change::Drain { region: "us-east-1".parse().unwrap() },
            epoch: Epoch(4),
            by: "eu-west-1".parse().unwrap(),
        };
        assert_eq!(
            line(&entry),
            "    7  2026-02-28T01:02:03Z  epoch 4     ada           drain us-east-1  \"kernel update\""
        );
    }
}
