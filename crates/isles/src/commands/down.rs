//! Stops the lab and leaves nothing behind, also after its supervisor was lost.

use std::time::{Duration, Instant};

use isles_lab::{
    blueprint,
    control::Client,
    layout::Layout,
    processes::{record, tree},
};

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// How long a lab may take to stop.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The arguments of `isles down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the databases for the next `isles up`.
    #[arg(long)]
    keep: bool,
}

/// Stops the lab; having nothing to stop is not an error.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let layout = running::layout(global)?;
    running::block_on(async {
        let was = if layout.is_locked() {
            stop(&layout, args.keep).await?;
            "stopped"
        } else if layout.dir.exists() {
            clean(&layout, args.keep).await?;
            "cleaned"
        } else {
            "absent"
        };
        report(global, was, args.keep);
        Ok(Exit::Done)
    })
}

async fn stop(layout: &Layout, keep: bool) -> Result<(), Failure> {
    let until = Instant::now() + STOP_WAIT_MAX;
    let client = Client::new(layout.control_socket());
    // Because a lab that has just begun to start has no socket yet, asking is repeated until it was heard.
    let mut heard = false;
    let mut supervisor = None;
    while layout.is_locked() || supervisor.as_ref().is_some_and(tree::runs) {
        if supervisor.is_none() {
            supervisor = client.state().await.ok().and_then(|state| tree::process(state.pid));
        }
        heard = heard || client.down(keep).await.is_ok();
        if Instant::now() > until {
            let message = format!("the lab has not stopped within {} s", STOP_WAIT_MAX.as_secs());
            let help = "end its supervisor (the `isles up` process) and run `isles down` again";
            return Err(Failure::message(message, help));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Takes away what a lab left whose supervisor was lost.
async fn clean(layout: &Layout, keep: bool) -> Result<(), Failure> {
    tree::kill_trees(&record::survivors(&layout.process_record())).await;
    if !keep {
        blueprint::remove_data(layout);
    }
    layout.remove(keep).map_err(|error| Failure::with_help(error, "remove the directory by hand"))
}

fn report(global: &Global, was: &str, keep: bool) {
    if global.json {
        say(&serde_json::json!({ "lab": was, "kept": keep }).to_string());
    } else if !global.quiet {
        let kept = if keep { " Its databases are kept for the next `isles up`." } else { "" };
        say(&match was {
            "stopped" => format!("The lab is down.{kept}"),
            "cleaned" => format!("The lab had lost its supervisor; what it left has been taken away.{kept}"),
            _ => format!("No lab of {} runs.", global.file.display()),
        });
    }
}
