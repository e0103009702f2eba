//! Compares how soon users can write again after a fault: Isles, Patroni and pg_auto_failover, on one machine, by the same
//! writers.

mod app;
mod auto_failover;
mod case;
mod contender;
mod error;
mod history;
mod host;
mod isles;
mod network;
mod nursery;
mod patroni;
mod peer;
mod results;
mod series;
mod session;
mod stamp;
mod statistics;
mod system;
mod table;
mod trial;
mod writer;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use error::BenchError;

/// Compare failover times.
#[derive(Debug, Parser)]
#[command(name = "failover", max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    series: series::Args,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it has started itself.
#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Run the series.
    #[command(name = "__series", hide = true)]
    Series(series::Args),
    /// Write numbered rows.
    #[command(name = "__writer", hide = true)]
    Writer(writer::Args),
    /// Be an app.
    #[command(name = "__app", hide = true)]
    App,
}

// One thread: what it starts is tied to the thread that started it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.role {
        Some(Role::Writer(args)) => writer::run(args).await,
        Some(Role::App) => app::run().await,
        Some(Role::Series(args)) => compare(&args).await,
        None => match nursery::run("__series").await {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failover: {}", error::causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs the series until it is done or somebody asks it to end; either way, what it started ends with it.
async fn compare(args: &series::Args) -> Result<(), BenchError> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|errno| BenchError::Tie(errno.into()))?;
    let listen = |kind| signal(kind).map_err(BenchError::Tie);
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        done = series::run(args) => done,
        _ = interrupt.recv() => Err(BenchError::Interrupted),
        _ = terminate.recv() => Err(BenchError::Interrupted),
    }
}
