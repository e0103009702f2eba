//! Shows the writes that only one region held when it lost the right to write: what to look at after a failover.

use isles_agent::{
    LEDGER_FILE,
    ledger::{self, LoneWrite, RowValues, WriteKind},
};
use isles_lab::control::RegionState;
use isles_model::{AgentConfig, RegionName};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// The arguments of `isles ledger`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

/// What to show.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// One line a write, of every region or one, without the values of its row.
    List {
        /// Only this region's.
        region: Option<RegionName>,
    },
    /// One transaction's writes with the values of their rows.
    Show {
        /// The region that holds them.
        region: RegionName,
        /// The end of the transaction in that region's log, as `list` prints it.
        lsn: isles_model::Lsn,
    },
}

/// Lists or shows.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    running::block_on(async {
        let (_, state) = running::lab(global).await?;
        let wanted = match &args.what {
            What::List { region } => region.as_ref(),
            What::Show { region, .. } => Some(region),
        };
        let mut shown: u64 = 0;
        for region in state.regions.iter().filter(|state| wanted.is_none_or(|name| *name == state.region)) {
            for write in writes(region)? {
                let write = write.map_err(Failure::new)?;
                let asked = match &args.what {
                    What::List { .. } => true,
                    What::Show { lsn, .. } => write.commit_lsn == *lsn,
                };
                if asked {
                    shown += 1;
                    print(global, &args.what, &write);
                }
            }
        }
        if shown == 0 && !global.json && !global.quiet {
            say("Nothing in the ledger: no region held a write that the others had not.");
        }
        Ok(Exit::Done)
    })
}

fn writes(
    region: &RegionState,
) -> Result<impl Iterator<Item = Result<LoneWrite, impl std::error::Error + Send + Sync + 'static>>, Failure>
{
    let text = std::fs::read(&region.config).map_err(Failure::new)?;
    let config: AgentConfig = serde_json::from_slice(&text).map_err(Failure::new)?;
    ledger::read(&config.data_dir.join(LEDGER_FILE)).map_err(Failure::new)
}

fn print(global: &Global, what: &What, write: &LoneWrite) {
    let kind = match write.kind {
        WriteKind::Insert => "insert",
        WriteKind::Update => "update",
        WriteKind::Delete => "delete",
        WriteKind::Truncate => "truncate",
    };
    match what {
        What::List { .. } if global.json => {
            let line = LoneWrite { old: None, new: None, ..write.clone() };
            say(&serde_json::json!(line).to_string());
        }
        What::Show { .. } if global.json => say(&serde_json::json!(write).to_string()),
        What::List { .. } | What::Show { .. } => {
            let LoneWrite { epoch, region, commit_lsn, committed_at, table, .. } = write;
            say(&format!("{region:<15} epoch {epoch:<4} {commit_lsn:<12} {committed_at}  {kind:<8} {table}"));
        }
    }
    if matches!(what, What::Show { .. }) && !global.json {
        row("before", write.old.as_ref());
        row("after", write.new.as_ref());
    }
}

fn row(label: &str, values: Option<&RowValues>) {
    for (column, value) in values.into_iter().flatten() {
        say(&format!("    {label:<7} {column} = {}", value.as_deref().unwrap_or("NULL")));
    }
}
