//! What a hostile client gets: a clear refusal, never a second meaning, never a dead edge.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::{net::SocketAddr, sync::LazyLock};

use isles_model::Metric;
use proptest::prelude::*;
use support::{DEADLINE, Region, Setup, app::App, eventually, get, here, plan, send, text};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

async fn edge() -> (Region, App) {
    let app = App::start("app").await;
    (Setup::new("a", &[app.address], plan(&["a"], 1, here(1))).start().await, app)
}

/// Sends bytes and reads until the edge closes; a refusal must close.
async fn say(to: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // The edge may close before it has read all of it.
        let _ = socket.write_all(bytes).await;
        let _ = socket.read_to_end(&mut answer).await;
    };
    let late = timeout(DEADLINE, talk).await.is_err();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(!late, "not closed in time after {:?}, said {answer:?}", String::from_utf8_lossy(bytes));
    answer
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_malformed_request_gets_its_status_and_reaches_no_app() {
    let (a, app) = edge().await;
    let with = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n");
    let many = "A: b\r\n".repeat(101);
    let large = format!("A: {}\r\n", "b".repeat(40_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "b".repeat(40_000));
    let table = [
        (with(""), 400),
        (with("Host: a\r\nHost: a\r\n"), 400),
        (with("Host: a b\r\n"), 400),
        (with("Host: \r\n"), 400),
        (with("Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400),
        (with("Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n"), 400),
        (with("Host: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n"), 400),
        (with("Host: a\r\nContent-Length: 3, 3\r\n"), 400),
        (with("Host: a\r\nContent-Length: -1\r\n"), 400),
        (with("Host: a\r\nContent-Length: 0x10\r\n"), 400),
        (with("Host: a\r\nContent-Length : 3\r\n"), 400),
        (with("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501),
        (with("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), 501),
        (with("Host: a\r\nTransfer-Encoding: \x0bchunked\r\n"), 400),
        (with("Host: a\r\nTransfer-Encoding\r\n"), 400),
        (with("Host: a\r\nX: a\0b\r\n"), 400),
        (with("Host: a\r\nX: a\rb\r\n"), 400),
        (with("Host: a\r\nX: a\nb: c\r\n"), 400),
        (with("Host: a\r\nX: a\r\n folded\r\n"), 400),
        (with("Host: a\r\nX Y: a\r\n"), 400),
        (with("Host: a\r\n: a\r\n"), 400),
        (with(&format!("Host: a\r\n{many}")), 431),
        (with(&format!("Host: a\r\n{large}")), 431),
        (long, 414),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("GET / FTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        ("\x16\x03\x01\x02\x00\x01".to_owned(), 400),
    ];
    for (request, expect) in table {
        let shown: String = request.chars().take(120).collect();
        let answer = say(a.address, request.as_bytes()).await;
        assert_eq!(status(&answer), expect, "{shown:?} got {answer:?}");
        assert!(answer.contains("isles-edge: a\r\n"), "{shown:?} got {answer}");
    }
    assert_eq!(app.requests(), 0);
    assert!(a.counts.get(Metric::RequestErrors, &["two_lengths"]) >= 2.0);
}

#[tokio::test]
async fn a_refusal_comes_in_its_turn_and_ends_the_connection() {
    let (a, app) = edge().await;
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n";
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n";
    let answer = say(a.address, format!("\r\n{good}{chunked}{sized}{good}{bad}{good}").as_bytes()).await;
    let statuses: Vec<_> = answer.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 5, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 4, "{answer}");
    assert!(answer.rfind("HTTP/1.1 400") > answer.rfind("HTTP/1.1 200"), "{answer}");
    assert_eq!(app.requests(), 4);
}

#[tokio::test]
async fn a_request_hidden_behind_a_body_is_not_seen() {
    let (a, app) = edge().await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    ] {
        say(a.address, format!("{head}{hidden}").as_bytes()).await;
    }
    // A request that asks for another protocol and stays with HTTP is the last of its connection.
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = say(a.address, format!("{upgrade}{hidden}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(app.writes(), 0);
}

#[tokio::test]
async fn a_refusal_arrives_although_the_client_is_still_sending() {
    let (a, _app) = edge().await;
    let mut request = b"POST / HTTP/1.1\r\nContent-Length: 400000\r\n\r\n".to_vec();
    request.resize(request.len() + 400_000, b'x');
    for _ in 0..10 {
        assert_eq!(status(&say(a.address, &request).await), 400);
    }
}

#[tokio::test]
async fn an_absolute_target_is_asked_of_the_host_it_names() {
    let (a, _app) = edge().await;
    let request = "GET http://b.example/headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = say(a.address, request.as_bytes()).await;
    assert!(answer.contains("GET /headers\n"), "{answer}");
    assert!(answer.contains("host: b.example\n"), "{answer}");
}

#[tokio::test]
async fn half_a_head_keeps_nobody_else_waiting() {
    let (a, _app) = edge().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(a.address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
        slow.push(socket);
    }
    assert_eq!(text(&send(a.address, get("/")).await), "app");
    let answer = timeout(DEADLINE, async {
        let mut answer = Vec::new();
        slow[0].read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    });
    assert_eq!(status(&answer.await.expect("never timed out")), 408);
    eventually("all are told", || async { a.counts.get(Metric::RequestErrors, &["head_late"]) == 50.0 })
        .await;
}

static RUNTIME: LazyLock<(Runtime, Region, App)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let (region, app) = runtime.block_on(edge());
    (runtime, region, app)
});

/// Bytes that look like HTTP often enough to get past the first check.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "POST /echo HTTP/1.1\r\n", "Host: a\r\n", "\r\n", "\n", "\r",
            "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: upgrade\r\n",
            "Upgrade: websocket\r\n", "Expect: 100-continue\r\n", "3\r\nabc\r\n", "0\r\n\r\n", "abc", " ", ":",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "isles-hop: 1;b;1;00\r\n", "TE: trailers\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_end_the_edge(bytes in nearly_http()) {
        let (runtime, region, _app) = &*RUNTIME;
        runtime.block_on(async {
            let mut socket = TcpStream::connect(region.address).await.unwrap();
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
            let mut answer = Vec::new();
            let end = timeout(DEADLINE, socket.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "not closed in time after {bytes:?}");
            assert_eq!(text(&send(region.address, get("/")).await), "app");
        });
    }
}
