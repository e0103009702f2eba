//! The least an app can be for Isles to run it: it answers its health check. What is compared is the database.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::error::BenchError;

/// The longest request that is read, in bytes; the rest of a longer one is not.
const REQUEST_BYTES_MAX: usize = 4096;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

/// Answers every request on `$PORT` alike.
pub(crate) async fn run() -> Result<(), BenchError> {
    let start = |source| BenchError::Start { program: "the app".to_owned(), source };
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or(BenchError::Unclear("the app's port"))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(start)?;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let mut request = [0; REQUEST_BYTES_MAX];
            if stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                // Whoever has left does not miss the answer.
                let _ = stream.write_all(ANSWER).await;
            }
        });
    }
}
