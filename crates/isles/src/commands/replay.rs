//! Makes the decisions of an agent's journal again and says whether they come out the same.

use std::path::PathBuf;

use isles_agent::journal::{self, Replayed};
use isles_model::{DatabaseOrder, Moment, Writes};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
};

/// The arguments of `isles replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An agent's `journal.jsonl`.
    #[arg(value_name = "JOURNAL")]
    pub(crate) journal: PathBuf,
}

/// Replays a journal; exit code 1 when a decision differs from the recorded one.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let mut first = None;
    let mut last_line = String::new();
    let (mut shown, mut different) = (0_u64, 0_u64);
    let ticks = journal::replay(&args.journal, |replayed| {
        different += u64::from(replayed.differs_from.is_some());
        let begin = *first.get_or_insert(replayed.at);
        let line = describe(&replayed);
        // A renewal moves only the deadline: people are shown what changed beside it.
        if global.json {
            shown += 1;
            say(&serde_json::json!(replayed).to_string());
        } else if line != last_line || replayed.differs_from.is_some() {
            shown += 1;
            say(&format!("{:>9.3} s  {line}", elapsed(begin, replayed.at)));
            if let Some(then) = &replayed.differs_from {
                say(&format!("             DIFFERS: then it was {then:?}"));
            }
        }
        last_line = line;
    })
    .map_err(Failure::new)?;
    if !global.json {
        say(&format!("{ticks} decisions made again, {shown} shown, {different} differ from the journal."));
    }
    Ok(if different == 0 { Exit::Done } else { Exit::Finding })
}

fn elapsed(begin: Moment, at: Moment) -> f64 {
    at.since(begin).as_secs_f64()
}

fn describe(replayed: &Replayed) -> String {
    let plan = &replayed.verdict.plan;
    let writes = match &plan.writes {
        Writes::Here { epoch, .. } => format!("writes here, epoch {epoch}"),
        Writes::At { region, epoch } => format!("writes at {region}, epoch {epoch}"),
        Writes::Nowhere { because } => format!("writes held: {because}"),
    };
    let database = match &plan.database {
        DatabaseOrder::Fence { because } => format!("database fenced: {because}"),
        DatabaseOrder::Write { epoch, .. } => format!("database writes, epoch {epoch}"),
        DatabaseOrder::Follow { writer, epoch } => format!("database follows {writer}, epoch {epoch}"),
    };
    format!("{writes}; {database} ({})", replayed.verdict.because)
}
