//! Probes this region's app instances as the spec's `healthcheck` says.

use std::net::SocketAddr;

use isles_model::{AppReport, Fact, topology::HealthCheck};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::http::Probed;

/// What to probe, and how.
pub struct AppProbe {
    /// The instances, in the order of the configuration.
    pub instances: Vec<SocketAddr>,
    /// Path, interval, timeout and threshold.
    pub healthcheck: HealthCheck,
}

/// Probes every instance until stopped; reports all of them whenever one changes.
pub async fn probe_apps(probe: AppProbe, facts: mpsc::Sender<Fact>, stop: CancellationToken) {
    let AppProbe { instances, healthcheck } = probe;
    let (healthy, mut changes) = watch::channel(AppReport { healthy: vec![false; instances.len()] });
    for (index, address) in instances.into_iter().enumerate() {
        tokio::spawn(probe_instance(index, address, healthcheck.clone(), healthy.clone(), stop.clone()));
    }
    drop(healthy);
    while tokio::select! { changed = changes.changed() => changed.is_ok(), () = stop.cancelled() => false } {
        let report = changes.borrow_and_update().clone();
        if facts.send(Fact::App(report)).await.is_err() {
            return;
        }
    }
}

async fn probe_instance(
    index: usize,
    address: SocketAddr,
    healthcheck: HealthCheck,
    report: watch::Sender<AppReport>,
    stop: CancellationToken,
) {
    let mut probed = Probed::new(address, None);
    let mut failures: u32 = 0;
    let mut turn = tokio::time::interval(healthcheck.interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        turn.tick().await;
        let (well, seen) = match probed.get(&healthcheck.path, healthcheck.timeout).await {
            Ok(answer) => {
                let status = answer.status;
                (status.is_success() || status.is_redirection(), format!("answered {status}"))
            }
            Err(error) => (false, crate::lease::Chain(&error).to_string()),
        };
        failures = if well { 0 } else { failures.saturating_add(1) };
        let was = report.borrow().healthy[index];
        let is = well || (was && failures < healthcheck.unhealthy_threshold);
        if is == was {
            continue;
        }
        if is {
            info!(instance = index, %address, "App instance is healthy.");
        } else {
            warn!(instance = index, %address, failures, seen, "App instance is unhealthy.");
        }
        report.send_modify(|report| report.healthy[index] = is);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn answer_once(listener: &TcpListener, status: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.unwrap() > 0);
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn an_instance_turns_unhealthy_only_after_the_threshold() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let healthcheck = HealthCheck {
            path: "/healthz".into(),
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(5),
            unhealthy_threshold: 3,
            start_period: Duration::ZERO,
        };
        let instances = vec![listener.local_addr().unwrap()];
        let (facts, mut seen) = mpsc::channel(8);
        let stop = CancellationToken::new();
        tokio::spawn(probe_apps(AppProbe { instances, healthcheck }, facts, stop.clone()));

        answer_once(&listener, "200 OK").await;
        assert_eq!(seen.recv().await, Some(Fact::App(AppReport { healthy: vec![true] })));
        answer_once(&listener, "500 Oops").await;
        answer_once(&listener, "500 Oops").await;
        assert!(seen.try_recv().is_err(), "two failures are below the threshold of three");
        answer_once(&listener, "500 Oops").await;
        assert_eq!(seen.recv().await, Some(Fact::App(AppReport { healthy: vec![false] })));
        stop.cancel();
    }
}
