//! The gate's own conversation with a database, message by message, while no client's bytes flow.

use std::io;

use tokio::io::Interest;

use super::upstream::Upstream;

/// The longest message taken in such a conversation, in bytes; errors and notices are far shorter.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// One message of the database.
pub(super) struct Said {
    /// Its letter.
    pub(super) kind: u8,
    /// What follows the length.
    pub(super) body: Vec<u8>,
}

/// A connection, and what came over it and has not been looked at.
pub(super) struct Talk {
    upstream: Upstream,
    unread: Vec<u8>,
}

impl Talk {
    /// Over a fresh connection.
    pub(super) fn new(upstream: Upstream) -> Self {
        Self { upstream, unread: Vec::new() }
    }

    /// The connection, and what the database said beyond the last message taken.
    pub(super) fn into_parts(self) -> (Upstream, Vec<u8>) {
        (self.upstream, self.unread)
    }

    /// Says something.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.upstream.write_all(bytes).await
    }

    /// Waits for a message. The caller limits the time.
    pub(super) async fn next(&mut self) -> io::Result<Said> {
        loop {
            if let Some([kind, length @ ..]) = self.unread.first_chunk::<5>() {
                let whole = u32::from_be_bytes(*length) as usize + 1;
                if !(5..=MESSAGE_BYTES_MAX).contains(&whole) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.unread.len() >= whole {
                    let said = Said { kind: *kind, body: self.unread[5..whole].to_vec() };
                    self.unread.drain(..whole);
                    return Ok(said);
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4 * 1024];
        loop {
            self.upstream.ready(Interest::READABLE).await?;
            match self.upstream.try_read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.unread.extend(&chunk[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
