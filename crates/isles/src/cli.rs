//! The command line as it is typed: every command, and the options that all of them take.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// One web application, several regions, one file.
#[derive(Debug, Parser)]
#[command(name = "isles", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 a finding or a missed objective, 2 usage, 3 refused for safety."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The spec.
    #[arg(short, long, global = true, value_name = "FILE", default_value = "isles.yaml")]
    pub(crate) file: PathBuf,
    /// Print JSON for a program instead of text for a person.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Answer yes to every question.
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Print results only, no progress.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// What to do. Each variant's arguments live beside its `run` in `commands/`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a first isles.yaml.
    Init(commands::init::Args),
    /// Check the spec and report every mistake at once.
    Check(commands::check::Args),
    /// Explain a mistake's code.
    Explain(commands::explain::Args),
    /// Print the JSON Schema of the spec.
    Schema(commands::schema::Args),
    /// Say which programs the lab would use here, and how to get the missing ones.
    Doctor(commands::doctor::Args),
    /// Start every region on this machine, with the distance between them emulated.
    Up(commands::up::Args),
    /// Stop what `isles up` started and leave nothing behind.
    Down(commands::down::Args),
    /// Show each region's role, lease, lag and health.
    Status(commands::status::Args),
    /// Show what the parts of the lab have written.
    Logs(commands::logs::Args),
    /// Open psql on one region's database.
    Psql(commands::psql::Args),
    /// Break the running lab on purpose and measure what users would have seen.
    Drill(commands::drill::Args),
    /// Break the running lab in many ways at once, and judge every write that was made.
    Torture(commands::torture::Args),
    /// List and compare what drills have found.
    Report(commands::report::Args),
    /// Move the right to write to another region, losing nothing.
    Switchover(commands::switchover::Args),
    /// Give the right to write to another region after the writer was lost.
    Failover(commands::failover::Args),
    /// Move the right to write back to the primary region.
    Failback(commands::failback::Args),
    /// Keep users and the right to write away from a region, or let them back.
    Region(commands::region::Args),
    /// Let nobody take over by itself while you work.
    Maintenance(commands::maintenance::Args),
    /// Show who ordered what, when and why.
    Audit(commands::audit::Args),
    /// Run the agent of one region in the foreground.
    Agent(commands::agent::Args),
    /// Show the writes that only one region held when it lost the right to write.
    Ledger(commands::ledger::Args),
    /// Make the decisions of an agent's journal again.
    Replay(commands::replay::Args),
    /// Fence a database whose agent has died.
    #[command(name = "__sentry", hide = true)]
    Sentry,
    /// Become another program that ends with this process's parent.
    #[command(name = "__exec", hide = true)]
    Exec(commands::exec::Args),
}
