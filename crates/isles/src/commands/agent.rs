//! Runs the agent of one region until SIGTERM or SIGINT, with JSON log lines on standard error.

use std::{io, path::PathBuf};

use isles_agent::{AgentError, sentry::SentryProgram};
use isles_model::{AgentConfig, RegionName};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome},
};

/// Threads that carry traffic; the right to write has one of its own.
const TRAFFIC_THREADS: usize = 2;

/// The arguments of `isles agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region it is the agent of.
    #[arg(long)]
    pub(crate) region: RegionName,
    /// Its configuration (JSON, mode 0600): addresses, credentials and the checked spec.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// What to log, as `info` or `isles_agent=debug,info`.
    #[arg(long, env = "ISLES_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// Why the agent's command failed before or after the agent ran.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("cannot read the agent's configuration {file}")]
    Read { file: PathBuf, source: io::Error },
    #[error("the agent's configuration {file} is not valid")]
    Parse { file: PathBuf, source: serde_json::Error },
    #[error("cannot start")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Runs the agent.
pub(crate) fn run(_global: &Global, args: &Args) -> Outcome {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        Failure::usage(format!("`{}` says nothing to log: {error}", args.log), "Try `info`.")
    })?;
    let config = read(args).map_err(Failure::new)?;
    if config.region != args.region {
        let found = format!("{} configures {}, not {}", args.config.display(), config.region, args.region);
        return Err(Failure::usage(found, "Give each region's agent its own configuration file."));
    }
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    serve(config).map_err(Failure::new)?;
    Ok(Exit::Done)
}

fn read(args: &Args) -> Result<AgentConfig, CommandError> {
    let file = args.config.clone();
    let text = std::fs::read(&file).map_err(|source| CommandError::Read { file: file.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| CommandError::Parse { file, source })
}

fn serve(config: AgentConfig) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(TRAFFIC_THREADS)
        .enable_all()
        .build()
        .map_err(CommandError::Start)?;
    let program = std::env::current_exe().map_err(CommandError::Start)?;
    let sentry = SentryProgram { program, arguments: vec!["__sentry".to_owned()] };
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminated = signal(SignalKind::terminate()).map_err(CommandError::Start)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(CommandError::Start)?;
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminated.recv() => {}, _ = interrupted.recv() => {} }
            asked.cancel();
        });
        Ok(isles_agent::run(config, sentry, stop).await?)
    })
}
