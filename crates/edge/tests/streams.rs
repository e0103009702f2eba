//! Bodies that have no end yet, protocols other than HTTP, and stopping while they are under way.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use isles_model::{Because, Metric};
use support::{
    DEADLINE, Region, Setup, app::App, at, eventually, get, here, nowhere, plan, post, relay::Relay, send,
    text,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// `a` has no app of its own: everything goes to `b`.
async fn through_a_peer() -> (Region, Region, App) {
    let app = App::start("app").await;
    let b = Setup::new("b", &[app.address], plan(&["b"], 1, here(1))).start().await;
    let mut setup = Setup::new("a", &[], plan(&["a", "b"], 0, at("b", 1)));
    setup.peers = vec![("b", b.address)];
    (setup.start().await, b, app)
}

async fn directly() -> (Region, App) {
    let app = App::start("app").await;
    (Setup::new("a", &[app.address], plan(&["a"], 1, here(1))).start().await, app)
}

type Sender<B> = hyper::client::conn::http1::SendRequest<B>;

async fn connect<B>(to: SocketAddr) -> Sender<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let socket = TcpStream::connect(to).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn next(body: &mut Incoming) -> Option<Frame<Bytes>> {
    timeout(DEADLINE, body.frame()).await.expect("no frame in time").map(Result::unwrap)
}

async fn events_arrive_one_by_one(edge: SocketAddr, app: &App) {
    let mut sender = connect::<Empty<Bytes>>(edge).await;
    let request = Request::get("/events").header("host", "a").header("te", "trailers");
    let mut response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let first = next(response.body_mut()).await.unwrap().into_data().unwrap();
    assert_eq!(first, "data: first\n\n");
    app.seen.go_on.notify_one();
    let second = next(response.body_mut()).await.unwrap().into_data().unwrap();
    assert_eq!(second, "data: second\n\n");
    let trailers = next(response.body_mut()).await.unwrap().into_trailers().unwrap();
    assert_eq!(trailers["x-sum"], "2");
    assert!(next(response.body_mut()).await.is_none());
}

#[tokio::test]
async fn an_event_arrives_before_the_stream_ends() {
    let (a, app) = directly().await;
    events_arrive_one_by_one(a.address, &app).await;
    let (a, _b, app) = through_a_peer().await;
    events_arrive_one_by_one(a.address, &app).await;
}

async fn a_chunk_comes_back_before_the_next_is_sent(edge: SocketAddr) {
    let (frames, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let body = StreamBody::new(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    }));
    let mut sender = connect(edge).await;
    let request =
        Request::post("/echo").header("host", "a").header("te", "trailers").header("trailer", "x-sum");
    frames.send(Ok(Frame::data(Bytes::from_static(b"one")))).await.unwrap();
    let mut response = sender.send_request(request.body(Box::pin(body)).unwrap()).await.unwrap();
    assert_eq!(next(response.body_mut()).await.unwrap().into_data().unwrap(), "one");
    frames.send(Ok(Frame::data(Bytes::from_static(b"two")))).await.unwrap();
    assert_eq!(next(response.body_mut()).await.unwrap().into_data().unwrap(), "two");
    let sum = http::HeaderMap::from_iter([("x-sum".parse().unwrap(), "3".parse().unwrap())]);
    frames.send(Ok(Frame::trailers(sum))).await.unwrap();
    drop(frames);
    assert_eq!(next(response.body_mut()).await.unwrap().into_trailers().unwrap()["x-sum"], "3");
}

#[tokio::test]
async fn a_body_is_streamed_both_ways_at_once() {
    let (a, _app) = directly().await;
    a_chunk_comes_back_before_the_next_is_sent(a.address).await;
    let (a, _b, _app) = through_a_peer().await;
    a_chunk_comes_back_before_the_next_is_sent(a.address).await;
}

#[tokio::test]
async fn a_large_body_passes_whole() {
    let large = "0123456789".repeat(800_000);
    let (a, _b, _app) = through_a_peer().await;
    let response = send(a.address, post("/echo", &large)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(&response) == large);
}

#[tokio::test]
async fn a_get_may_carry_a_chunked_body() {
    let (a, _app) = directly().await;
    let mut socket = TcpStream::connect(a.address).await.unwrap();
    let request = "GET /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                   5;x=y\r\nhello\r\n0\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut socket).await;
    assert!(answer.contains("hello"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let (a, app) = directly().await;
    let mut socket = TcpStream::connect(a.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    timeout(DEADLINE, socket.read_exact(&mut line)).await.unwrap().unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"order").await.unwrap();
    assert!(read_to_end(&mut socket).await.starts_with("HTTP/1.1 200"));
    assert_eq!(app.writes(), 1);
}

async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut answer = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("not closed in time").unwrap();
    answer
}

async fn websocket(edge: SocketAddr) -> WebSocketStream<TcpStream> {
    let socket = TcpStream::connect(edge).await.unwrap();
    let (socket, response) =
        timeout(DEADLINE, client_async("ws://shop.example/ws", socket)).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    socket
}

async fn says_back(socket: &mut WebSocketStream<TcpStream>, word: &str) {
    socket.send(Message::text(word)).await.unwrap();
    let echo = timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(echo, Message::text(word));
}

#[tokio::test]
async fn a_websocket_passes_here_and_through_a_peer() {
    let (direct, _app) = directly().await;
    let (remote, _b, _app_b) = through_a_peer().await;
    for edge in [direct.address, remote.address] {
        let mut socket = websocket(edge).await;
        for word in ["one", "two"] {
            says_back(&mut socket, word).await;
        }
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_websocket_ends_when_its_app_dies() {
    let (a, _b, app) = through_a_peer().await;
    let mut socket = websocket(a.address).await;
    says_back(&mut socket, "one").await;
    app.kill().await;
    // The test app's own task holds the socket: it ends with its runtime's next word.
    let _ = socket.send(Message::binary(Bytes::new())).await;
    let end = timeout(DEADLINE, socket.next()).await.expect("not closed in time");
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "{end:?}");
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken() {
    let (a, app) = directly().await;
    let socket = TcpStream::connect(a.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let headers = Request::builder()
        .uri("http://shop.example/headers?x")
        .version(Version::HTTP_2)
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let response = sender.send_request(headers.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    let seen = std::str::from_utf8(&seen).unwrap();
    assert!(seen.starts_with("GET /headers?x\n"), "{seen}");
    assert!(seen.contains("host: shop.example\n"), "{seen}");
    assert!(seen.contains("cookie: a=1; b=2\n"), "{seen}");

    let many = (0..20).map(|_| {
        let write = Request::builder().method(Method::POST).uri("http://shop.example/");
        sender.send_request(write.body(Full::from("order")).unwrap())
    });
    for response in futures_util::future::join_all(many).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(app.writes(), 20);
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way_and_takes_nothing_new() {
    let (mut a, app) = directly().await;
    let address = a.address;
    let slow = tokio::spawn(async move { send(address, get("/slow")).await });
    eventually("it is under way", || async { app.requests() == 1 }).await;
    a.stop.cancel();
    eventually("nothing new is taken", || async { TcpStream::connect(address).await.is_err() }).await;
    app.seen.go_on.notify_waiters();
    assert_eq!(text(&slow.await.unwrap()), "app");
    timeout(DEADLINE, &mut a.task).await.expect("not stopped in time").unwrap().unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_idle_connections() {
    let (mut a, _app) = directly().await;
    let mut idle = connect::<Full<Bytes>>(a.address).await;
    assert_eq!(idle.send_request(get("/")).await.unwrap().status(), StatusCode::OK);
    let silent = TcpStream::connect(a.address).await.unwrap();
    a.stop.cancel();
    timeout(Duration::from_secs(5), &mut a.task).await.expect("not stopped in time").unwrap().unwrap();
    drop((idle, silent));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let (a, app) = directly().await;
    let mut socket = TcpStream::connect(a.address).await.unwrap();
    socket.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it is under way", || async { app.requests() == 1 }).await;
    drop(socket);
    eventually("the app's connection is closed", || async { std::sync::Arc::strong_count(&app.seen) <= 3 })
        .await;
}

#[tokio::test]
async fn a_stream_and_a_websocket_from_a_region_cut_off_end_when_the_plan_says_so() {
    let app = App::start("app").await;
    let b = Setup::new("b", &[app.address], plan(&["b"], 1, here(1))).start().await;
    let wire = Relay::to(b.address).await;
    let mut setup = Setup::new("a", &[], plan(&["a", "b"], 0, at("b", 1)));
    setup.peers = vec![("b", wire.address)];
    let a = setup.start().await;

    let mut socket = websocket(a.address).await;
    says_back(&mut socket, "one").await;
    let mut sender = connect::<Full<Bytes>>(a.address).await;
    let mut events = sender.send_request(get("/events")).await.unwrap().into_body();
    assert!(next(&mut events).await.is_some());

    wire.cut();
    let mut silent = plan(&["a", "b"], 0, nowhere());
    silent.serve[1].app = false;
    silent.serve[1].because = Because::PeerSilent;
    a.plans.send_replace(silent);
    let end = timeout(DEADLINE, events.frame()).await.expect("the stream went on");
    assert!(end.is_some_and(|frame| frame.is_err()));
    let end = timeout(DEADLINE, socket.next()).await.expect("the tunnel went on");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}

#[tokio::test]
async fn a_held_write_is_told_when_the_edge_stops() {
    let mut a = Setup::new("a", &[], plan(&["a"], 0, nowhere())).start().await;
    let address = a.address;
    let write = tokio::spawn(async move { send(address, post("/", "order")).await });
    eventually("the write is held", || async { a.counts.get(Metric::Held, &[]) == 1.0 }).await;
    a.stop.cancel();
    let response = write.await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&response).contains("stopping"), "{}", text(&response));
    timeout(DEADLINE, &mut a.task).await.expect("not stopped in time").unwrap().unwrap();
}
