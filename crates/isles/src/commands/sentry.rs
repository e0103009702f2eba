//! Runs beside an agent and fences its database when the agent has died or hangs. An agent starts it; it is not meant for
//! people.

use std::{io, os::fd::AsFd as _, sync::Arc};

use tracing_subscriber::EnvFilter;

use crate::{
    outcome::{Exit, Failure, Outcome},
    running,
};

/// Guards what the pipe on standard input names, until the agent says goodbye or has been stood in for.
pub(crate) fn run() -> Outcome {
    // A session of its own: what is sent to the agent's terminal or group does not reach it. One that leads a group
    // already has its own.
    let _ = rustix::process::setsid();
    // What the agent was tied to by the kernel must not end it.
    let _ = rustix::process::set_parent_process_death_signal(None);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(io::stderr)
        .init();
    running::block_on(async {
        let pipe = io::stdin().as_fd().try_clone_to_owned().map_err(Failure::new)?;
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe).map_err(Failure::new)?;
        let clock = Arc::new(isles_agent::clock::now);
        isles_agent::sentry::guard(tokio::io::BufReader::new(pipe), clock).await.map_err(Failure::new)?;
        Ok(Exit::Done)
    })
}
