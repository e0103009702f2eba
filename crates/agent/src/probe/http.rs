//! One question at a time over one kept HTTP/1.1 connection, each with a deadline of its own.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header, request::Builder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest body read from a probed server, in bytes; the rest is not needed to judge it.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    #[error("the answer broke off or was too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An answer and whether the connection was there before.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) reused: bool,
}

/// A server to ask again and again.
pub(crate) struct Probed {
    address: SocketAddr,
    token: Option<String>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Probed {
    /// Connects at the first question. `token` is sent as `Authorization: Bearer`.
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, token, open: None }
    }

    /// Asks for `path`; a connection that failed is not used again.
    pub(crate) async fn get(&mut self, path: &str, deadline: Duration) -> Result<Answer, ProbeError> {
        self.get_other_than(None, path, deadline).await
    }

    /// The same for whoever has something already: its tag goes into `If-None-Match` (RFC 9110, section 13.1.2).
    pub(crate) async fn get_other_than(
        &mut self,
        tag: Option<&HeaderValue>,
        path: &str,
        deadline: Duration,
    ) -> Result<Answer, ProbeError> {
        let mut request = self.request(Method::GET, path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        self.within(deadline, request, Bytes::new()).await
    }

    /// Posts a body in JSON; a connection that failed is not used again.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Answer, ProbeError> {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.within(deadline, request, body).await
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        let request =
            Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn within(
        &mut self,
        deadline: Duration,
        request: Builder,
        body: Bytes,
    ) -> Result<Answer, ProbeError> {
        let asked = tokio::time::timeout(deadline, self.ask(request, body)).await;
        let answer = asked.unwrap_or(Err(ProbeError::Late(deadline)));
        if answer.is_err() {
            self.open = None;
        }
        answer
    }

    async fn ask(&mut self, request: Builder, body: Bytes) -> Result<Answer, ProbeError> {
        let kept = self.open.take().filter(|sender| !sender.is_closed());
        let reused = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await?;
        let request =
            request.body(Full::new(body)).expect("paths are checked by Spec::check, tokens are hexadecimal");
        let answer = sender.send_request(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(ProbeError::Body)?
            .to_bytes();
        self.open = Some(sender);
        Ok(Answer { status, headers, body, reused })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ProbeError> {
        let stream = TcpStream::connect(self.address).await.map_err(ProbeError::Connect)?;
        stream.set_nodelay(true).map_err(ProbeError::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends by itself when the sender is dropped or the peer closes.
        tokio::spawn(connection);
        Ok(sender)
    }
}
