//! A visitor: sends requests over HTTP and keeps the cookie.

use std::sync::{Arc, Mutex};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use shop::{Config, Shop, pulse, router};
use tokio::net::TcpListener;

use crate::cluster::eventually;

/// A region's instance of the shop, inside the test's process.
pub(crate) async fn open_shop(
    region: &str,
    write: tokio_postgres::Config,
    read: tokio_postgres::Config,
) -> Visitor {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config { port, database_url: write, database_read_url: read, region: region.to_owned() };
    let shop = Shop::new(&config);
    tokio::spawn(pulse::run(shop.clone()));
    tokio::spawn(axum::serve(listener, router(shop)).into_future());
    Visitor::to(port)
}

#[derive(Clone)]
pub(crate) struct Visitor {
    client: Client<HttpConnector, Full<Bytes>>,
    port: u16,
    cookie: Arc<Mutex<Option<String>>>,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Visitor {
    pub(crate) fn to(port: u16) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), port, cookie: Arc::default() }
    }

    /// The same visitor, with the same cookie, at another instance.
    pub(crate) fn at(&self, other: &Self) -> Self {
        Self { port: other.port, ..self.clone() }
    }

    pub(crate) async fn healthy(&self) {
        eventually("the shop is healthy", async || self.get("/healthz").await.status == StatusCode::OK).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(self.url(path)), "").await.unwrap()
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: &Value) -> Reply {
        let request = Request::builder().method(method).uri(self.url(path));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.send(request, &body.to_string()).await.unwrap()
    }

    pub(crate) async fn order(&self, key: Option<&str>, body: &Value) -> Reply {
        let mut request =
            Request::post(self.url("/api/orders")).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request, &body.to_string()).await.unwrap()
    }

    pub(crate) async fn form(&self, path: &str, body: &str) -> Reply {
        let request = Request::post(self.url(path));
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, body).await.unwrap()
    }

    /// `None`: nobody listens, or the connection broke.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Reply> {
        self.send(Request::get(self.url(path)), "").await
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn send(&self, request: axum::http::request::Builder, body: &str) -> Option<Reply> {
        let cookie = self.cookie.lock().unwrap().clone();
        let request = match cookie {
            Some(cookie) => request.header(header::COOKIE, cookie),
            None => request,
        };
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let (head, body) = self.client.request(request).await.ok()?.into_parts();
        if let Some(cookie) = head.headers.get(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
            *self.cookie.lock().unwrap() = Some(pair);
        }
        let body = body.collect().await.ok()?.to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Some(Reply { status: head.status, headers: head.headers, text })
    }
}
