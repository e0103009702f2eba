//! Says which programs the lab would use here, and how to get the missing ones.

use isles_lab::requirements::{Examined, examine};

use crate::{
    cli::Global,
    outcome::{Exit, Outcome, say},
};

/// The arguments of `isles doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints what was found; exit code 1 when something is missing.
pub(crate) fn run(global: &Global, _args: &Args) -> Outcome {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let examined = examine(&path, &std::env::temp_dir());
    let good = examined.iter().all(|one| one.good);
    if global.json {
        say(&serde_json::json!({ "good": good, "examined": examined }).to_string());
    } else {
        say(&text(&examined));
        say(if good { "Next: isles up" } else { "Next: mend what is marked, then isles doctor again" });
    }
    Ok(if good { Exit::Done } else { Exit::Finding })
}

fn text(examined: &[Examined]) -> String {
    let line = |one: &Examined| {
        let mark = if one.good { "ok     " } else { "MISSING" };
        let remedy = one.remedy.iter().flat_map(|remedy| remedy.lines());
        let remedy: String = remedy.map(|line| format!("\n                    {line}")).collect();
        format!("  {mark}  {:9}  {}{remedy}", one.what, one.found)
    };
    examined.iter().map(line).collect::<Vec<_>>().join("\n")
}
