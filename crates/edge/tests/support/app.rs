//! A small real app: counts what it is asked, streams, upgrades, and can die.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

type Body = BoxBody<Bytes, hyper::Error>;

#[derive(Default)]
pub struct Seen {
    pub requests: AtomicUsize,
    pub writes: AtomicUsize,
    /// How often each body was taken by `/order`.
    pub orders: Mutex<BTreeMap<Bytes, usize>>,
    /// Lets `/slow` and `/events` go on.
    pub go_on: Notify,
}

/// Dropped or killed, its listener and connections are gone at once.
pub struct App {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl App {
    pub async fn start(name: &'static str) -> Self {
        Self::start_on(name, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn start_on(name: &'static str, listener: TcpListener) -> Self {
        Self::start_again(name, listener, Arc::default())
    }

    /// As another process of the same app.
    pub fn start_again(name: &'static str, listener: TcpListener, seen: Arc<Seen>) -> Self {
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(accept(name, listener, seen.clone()));
        Self { address, seen, task }
    }

    pub async fn kill(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    pub fn writes(&self) -> usize {
        self.seen.writes.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(name: &'static str, listener: TcpListener, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let seen = seen.clone();
        let service = service_fn(move |request| {
            let seen = seen.clone();
            async move { Ok::<_, Infallible>(answer(name, &seen, request).await) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connections.spawn(connection.with_upgrades());
    }
}

async fn answer(name: &'static str, seen: &Arc<Seen>, mut request: Request<Incoming>) -> Response<Body> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let safe = request.method().is_safe();
    let path = request.uri().path().to_owned();
    if path != "/echo" && !safe {
        let Ok(body) = request.body_mut().collect().await else {
            return full(String::new());
        };
        if path == "/order" {
            *seen.orders.lock().unwrap().entry(body.to_bytes()).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen.writes.fetch_add(1, Ordering::SeqCst);
    }
    match path.as_str() {
        "/slow" => {
            seen.go_on.notified().await;
            full(name.to_owned())
        }
        "/headers" => {
            let lines: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
                .collect();
            full(format!("{} {}\n{}", request.method(), request.uri(), lines.concat()))
        }
        "/claims" => {
            let mut response = full(name.to_owned());
            for (name, value) in [
                ("server", "app/1"),
                ("isles-not-served", "epoch"),
                ("isles-region", "elsewhere"),
                ("connection", "x-secret"),
                ("x-secret", "1"),
            ] {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        }
        "/echo" => {
            let mut response = Response::new(request.into_body().boxed());
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            response
        }
        "/events" => events(seen.clone()),
        "/ws" => websocket(request),
        _ => full(name.to_owned()),
    }
}

fn full(text: String) -> Response<Body> {
    Response::new(Full::from(text).map_err(|never| match never {}).boxed())
}

/// The first event at once, the second when told to, then trailers.
fn events(seen: Arc<Seen>) -> Response<Body> {
    let (frames, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = frames.send(Ok(Frame::data(Bytes::from_static(b"data: first\n\n")))).await;
        seen.go_on.notified().await;
        let _ = frames.send(Ok(Frame::data(Bytes::from_static(b"data: second\n\n")))).await;
        let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("2"))]);
        let _ = frames.send(Ok(Frame::trailers(sum))).await;
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        let mut response = full("no key".to_owned());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_text() || socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut response = full(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", derive_accept_key(key.as_bytes()).parse().unwrap());
    response
}
