//! Says which statements turn one schema into another, given both as entries of a dump.
//!
//! Pure. Steps that only let more rows in may run while older changes are still on their way ([`Phase::Grow`]);
//! steps that take something away wait until those have been applied ([`Phase::Settle`]). What it cannot express
//! is [`Step::CopyTable`] or [`Step::Rebuild`]. Whoever runs the steps compares again until none is left.

use super::dump::Entry;

/// When a step may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// At once.
    Grow,
    /// Once all changes made under the old schema are applied.
    Settle,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Run these statements.
    Run {
        /// When.
        phase: Phase,
        /// What for: kind, schema and name of an entry.
        what: String,
        /// The statements.
        sql: String,
        /// The table to copy afresh should they fail.
        table: Option<String>,
    },
    /// Drop this table (quoted, qualified); the next comparison makes it anew and the subscription copies it.
    CopyTable {
        /// Which.
        table: String,
        /// Why.
        because: String,
    },
    /// Copy the whole database afresh.
    Rebuild {
        /// Why.
        because: String,
    },
}

/// The steps from `ours` to `theirs`, in the order to take them.
pub(crate) fn steps(theirs: &[Entry], ours: &[Entry]) -> Vec<Step> {
    let mut steps = Vec::new();
    for entry in theirs {
        let same = |other: &&Entry| {
            (&other.kind, &other.schema, &other.name) == (&entry.kind, &entry.schema, &entry.name)
        };
        match ours.iter().find(same) {
            None => steps.push(Step::Run {
                phase: Phase::Grow,
                what: describe(entry),
                sql: entry.sql.clone(),
                table: None,
            }),
            Some(own) if own.sql == entry.sql => {}
            Some(_) => steps.push(Step::Rebuild { because: format!("{} differs", describe(entry)) }),
        }
    }
    steps
}

fn describe(entry: &Entry) -> String {
    format!("{} {}.{}", entry.kind.to_lowercase(), entry.schema, entry.name)
}
