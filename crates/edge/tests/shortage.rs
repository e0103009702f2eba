//! A shortage of file descriptors passes. Alone in its file: the limit is the whole process's.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Setup, app::App, get, here, plan, send, text};
use tokio::net::TcpStream;

/// Enough for the test itself and some connections.
const DESCRIPTORS: u64 = 80;

#[tokio::test]
async fn a_shortage_of_file_descriptors_is_waited_out() {
    let app = App::start("app").await;
    let mut a = Setup::new("a", &[app.address], plan(&["a"], 1, here(1))).start().await;
    assert_eq!(text(&send(a.address, get("/")).await), "app");
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: before.maximum }).unwrap();

    // Each takes a descriptor here and, while there are any, one at the edge.
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect(a.address).await {
        clients.push(client);
        tokio::task::yield_now().await;
    }
    assert!(clients.len() as u64 > DESCRIPTORS / 4, "{}", clients.len());
    tokio::select! {
        ended = &mut a.task => panic!("{ended:?}"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
    }
    drop(clients);
    assert_eq!(text(&send(a.address, get("/")).await), "app");
    setrlimit(Resource::Nofile, before).unwrap();
}
