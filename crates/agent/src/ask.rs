//! Asks agents over their control ports, as an operator's command or a peer does: one question, one connection, one
//! deadline.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use isles_model::{AuditEntry, OrderRequest, Orders, OrdersAnswer, Snapshot};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too late.
    #[error("the agent at {address} did not answer within {} ms", within.as_millis())]
    Late {
        /// Which agent.
        address: SocketAddr,
        /// The deadline.
        within: Duration,
    },
    /// Nobody listens there.
    #[error("cannot connect to the agent at {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The conversation broke off.
    #[error("the agent at {0} broke off")]
    Broken(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answered, but not with what was asked for.
    #[error("the agent at {address} answered {status}: {said}")]
    Refused {
        /// Which agent.
        address: SocketAddr,
        /// HTTP status.
        status: StatusCode,
        /// Its own words.
        said: String,
    },
    /// It is of another version.
    #[error("the answer of the agent at {0} is not understood")]
    NotUnderstood(SocketAddr, #[source] serde_json::Error),
}

/// One agent's control port, and what proves that an operator of the application asks.
#[derive(Clone)]
pub struct Agent {
    /// The control port.
    pub address: SocketAddr,
    /// The application's secret.
    pub secret: String,
    /// How long an answer may take.
    pub within: Duration,
}

impl Agent {
    /// What it shows of itself to people.
    ///
    /// # Errors
    /// When it does not answer so.
    pub async fn status(&self) -> Result<Snapshot, AskError> {
        self.ask(Method::GET, "/v1/status", None::<&()>).await
    }

    /// The standing orders, read by it from the lease store now.
    ///
    /// # Errors
    /// When it does not answer, or the lease store does not answer it.
    pub async fn orders(&self) -> Result<Orders, AskError> {
        self.ask(Method::GET, "/v1/orders", None::<&()>).await
    }

    /// Has it change the orders.
    ///
    /// # Errors
    /// When it does not answer, or the lease store does not answer it; the change may have been made then.
    pub async fn order(&self, request: &OrderRequest) -> Result<OrdersAnswer, AskError> {
        self.ask(Method::POST, "/v1/orders", Some(request)).await
    }

    /// The newest changes of the orders, newest first.
    ///
    /// # Errors
    /// When it does not answer, or the lease store does not answer it.
    pub async fn audit(&self, at_most: u32) -> Result<Vec<AuditEntry>, AskError> {
        self.ask(Method::GET, &format!("/v1/audit?last={at_most}"), None::<&()>).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, AskError> {
        let Self { address, within, .. } = *self;
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| AskError::NotUnderstood(address, e))?,
            None => Vec::new(),
        };
        let talked = tokio::time::timeout(within, self.talk(method, path, body.into())).await;
        let (status, said) = talked.unwrap_or(Err(AskError::Late { address, within }))?;
        if status.is_success() {
            return serde_json::from_slice(&said).map_err(|error| AskError::NotUnderstood(address, error));
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(AskError::Refused { address, status, said })
    }

    async fn talk(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), AskError> {
        let address = self.address;
        let broken = |error: hyper::Error| AskError::Broken(address, error.into());
        let stream = TcpStream::connect(address).await.map_err(|e| AskError::Connect(address, e))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends by itself when the sender is dropped or the peer closes.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.secret))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| AskError::Broken(address, error.into()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| AskError::Broken(address, error))?.to_bytes()))
    }
}
