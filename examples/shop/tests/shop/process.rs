//! The shop as a process of its own.

use std::process::{Command, Stdio};

use axum::http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cluster::{Cluster, eventually, free_port},
    visitor::Visitor,
};

#[tokio::test]
async fn on_sigterm_it_closes_in_order() {
    let cluster = Cluster::start().await;
    let port = free_port();
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", cluster.port());
    let mut shop = Command::new(env!("CARGO_BIN_EXE_shop"))
        .env("PORT", port.to_string())
        .env("DATABASE_URL", url)
        .env_remove("DATABASE_READ_URL")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let visitor = Visitor::to(port);
    let healthy =
        async || visitor.try_get("/healthz").await.is_some_and(|reply| reply.status == StatusCode::OK);
    eventually("the shop is healthy", healthy).await;
    kill_process(Pid::from_child(&shop), Signal::TERM).unwrap();
    let mut ended = None;
    eventually("the shop has ended", async || {
        ended = shop.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
fn without_its_variables_it_says_which_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_shop")).env_clear().output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the environment variable PORT is not set"), "{told}");
}
