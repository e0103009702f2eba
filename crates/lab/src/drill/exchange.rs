//! One HTTP connection as a user's browser holds it, with deadlines of its own.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle};

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// No connection: refused, or not within the time allowed.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {0}")]
pub(super) struct NotConnected(SocketAddr);

/// What came of a request.
pub(super) enum Answered {
    /// It was served.
    Served,
    /// It never left: another edge may be tried, whatever the request.
    Unsent,
    /// It was refused, or broke off, or took too long.
    Failed,
}

/// An open connection; dropping it closes it.
pub(super) struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Opens one.
    pub(super) async fn open(address: SocketAddr, within: Duration) -> Result<Self, NotConnected> {
        let refused = || NotConnected(address);
        let opening = async {
            let stream = TcpStream::connect(address).await.map_err(|_| refused())?;
            stream.set_nodelay(true).map_err(|_| refused())?;
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| refused())
        };
        let (sender, connection) = tokio::time::timeout(within, opening).await.map_err(|_| refused())??;
        // How the connection ends is seen by whoever sends on it.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { address, sender, driver })
    }

    /// Sends a request and reads its whole answer; 2xx and 3xx are served.
    pub(super) async fn ask(&mut self, method: &str, path: &str, body: Bytes, within: Duration) -> Answered {
        self.read(method, path, body, within).await.0
    }

    /// `GET path`: the body of an answer that is served.
    pub(super) async fn get(&mut self, path: &str, within: Duration) -> Option<Bytes> {
        match self.read("GET", path, Bytes::new(), within).await {
            (Answered::Served, body) => Some(body),
            (Answered::Unsent | Answered::Failed, _) => None,
        }
    }

    async fn read(&mut self, method: &str, path: &str, body: Bytes, within: Duration) -> (Answered, Bytes) {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("user-agent", "isles drill")
            .header("content-type", "application/json")
            .body(Full::new(body));
        let Ok(request) = request else { return (Answered::Failed, Bytes::new()) };
        let exchange = async {
            let answer = match self.sender.send_request(request).await {
                Ok(answer) => answer,
                Err(error) if error.is_canceled() => return (Answered::Unsent, Bytes::new()),
                Err(_) => return (Answered::Failed, Bytes::new()),
            };
            let fine = answer.status().is_success() || answer.status().is_redirection();
            let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            match read {
                Ok(body) if fine => (Answered::Served, body.to_bytes()),
                Ok(_) | Err(_) => (Answered::Failed, Bytes::new()),
            }
        };
        tokio::time::timeout(within, exchange).await.unwrap_or((Answered::Failed, Bytes::new()))
    }
}
