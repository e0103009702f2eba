//! Asks a process on this machine one thing over HTTP, with a deadline and a limit.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The conversation failed.
    #[error("no answer from {0}")]
    Talk(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("{address} did not answer within {} ms", within.as_millis())]
    Late {
        /// Whom was asked.
        address: SocketAddr,
        /// How long was waited.
        within: Duration,
    },
}

/// `GET path` from `address`: the status and the body.
///
/// # Errors
/// When it does not connect, breaks off, says too much or takes longer than `within`.
pub async fn get(address: SocketAddr, path: &str, within: Duration) -> Result<(u16, Bytes), HttpError> {
    let late = HttpError::Late { address, within };
    tokio::time::timeout(within, ask(address, path)).await.unwrap_or(Err(late))
}

async fn ask(address: SocketAddr, path: &str) -> Result<(u16, Bytes), HttpError> {
    let talk = |source: Box<dyn std::error::Error + Send + Sync>| HttpError::Talk(address, source);
    let stream = TcpStream::connect(address).await.map_err(|source| HttpError::Connect(address, source))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| talk(e.into()))?;
    let request = hyper::Request::get(path)
        .header("host", address.to_string())
        .header("user-agent", "isles")
        .body(Empty::<Bytes>::new())
        .map_err(|e| talk(e.into()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|e| talk(e.into()))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(talk)?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}
