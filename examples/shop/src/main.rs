//! Starts the shop: environment, log, port, and an orderly end on SIGTERM.

use std::{io, net::Ipv4Addr, process::ExitCode, time::Duration};

use shop::{Config, Shop, config::ConfigError, pulse, router};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{info, warn};

/// How long requests may take to finish once the process was asked to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen { port: u16, source: io::Error },
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, cause, "The shop cannot run.");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), StartError> {
    let config = Config::from_lookup(|name| std::env::var(name).ok())?;
    let port = config.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|source| StartError::Listen { port, source })?;
    let mut asked_to_end = signal(SignalKind::terminate()).map_err(StartError::Serve)?;
    let (ending, mut ended) = tokio::sync::watch::channel(());

    let shop = Shop::new(&config);
    let pulse = tokio::spawn(pulse::run(shop.clone()));
    info!(region = %config.region, port, "The shop is open.");
    let server = axum::serve(listener, router(shop)).with_graceful_shutdown(async move {
        // Either a signal came, or the other half is gone: in both cases it is time.
        drop(ended.changed().await);
    });
    let mut server = tokio::spawn(async move { server.await });
    tokio::select! {
        _ = asked_to_end.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        finished = &mut server => return finished.map_err(io::Error::other).flatten().map_err(StartError::Serve),
    }
    drop(ending);
    if timeout(DRAIN_DEADLINE, server).await.is_err() {
        warn!(region = %config.region, "Requests were cut off at the end of the drain.");
    }
    pulse.abort();
    info!(region = %config.region, "The shop is closed.");
    Ok(())
}
