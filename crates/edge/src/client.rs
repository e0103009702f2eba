//! One user's connection as bytes: lets a request head through only when [`head`](crate::head) finds nothing wrong
//! with it, follows the bodies to find the next head, and closes so that the last answer arrives.
//!
//! A refused head is replaced by a harmless one and its number is noted, so that hyper answers the earlier requests
//! of a pipeline first and the refusal in its turn.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::{
    chunk::{chunk_size, line_of, malformed},
    head::{Framing, HEAD_BYTES_MAX, Refusal, end_of_head, examine, is_token},
};

/// How long a request head may take from its first byte to its last (slowloris).
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a body may stand still, in either direction, while the other side is ready.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long a closed connection is still read from, so that unread data does not reset the answer away.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How many bytes a closed connection is still read.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How much is read from the socket at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// Longest trailer section, in bytes.
const TRAILERS_BYTES_MAX: usize = 16 * 1024;
/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Stands in for a head that was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\n\r\n";

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Sized(u64),
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailers { bytes: usize },
    Opaque,
    Refused,
}

/// The number of the refused head, shared with whoever answers.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    at: OnceLock<(u64, Refusal)>,
    answered: AtomicU64,
}

impl Refused {
    /// Counts a request that hyper has read; gives the refusal when it is the refused one.
    pub(crate) fn next(&self) -> Option<Refusal> {
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        self.at.get().filter(|(refused, _)| *refused == number).map(|(_, refusal)| *refusal)
    }
}

/// The connection.
pub(crate) struct ClientStream<P: Send + 'static> {
    socket: Option<TcpStream>,
    /// Read from the socket; the first `passed` bytes may go on to hyper.
    pending: BytesMut,
    passed: usize,
    /// Where to go on looking for the end of a line or head, from the start of `pending`.
    searched: usize,
    phase: Phase,
    heads: u64,
    refused: Arc<Refused>,
    ended: bool,
    read_deadline: Option<Pin<Box<Sleep>>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
    /// Whatever must live as long as the connection, lingering included.
    permit: Option<P>,
}

impl<P: Send + 'static> ClientStream<P> {
    /// Reads just enough to know the protocol. `None`: nobody spoke in time.
    pub(crate) async fn open(mut socket: TcpStream, permit: P) -> Option<(Self, Protocol)> {
        let mut first = BytesMut::with_capacity(READ_BYTES);
        let protocol = timeout(HEAD_TIME_MAX, async {
            loop {
                let known = first.len().min(H2_PREFACE.len());
                if first[..known] != H2_PREFACE[..known] {
                    return Some(Protocol::Http1);
                }
                if known == H2_PREFACE.len() {
                    return Some(Protocol::Http2);
                }
                match socket.read_buf(&mut first).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
        .ok()??;
        let phase = match protocol {
            Protocol::Http1 => Phase::Head,
            Protocol::Http2 => Phase::Opaque,
        };
        let mut stream = Self {
            socket: Some(socket),
            pending: first,
            passed: 0,
            searched: 0,
            phase,
            heads: 0,
            refused: Arc::default(),
            ended: false,
            read_deadline: None,
            write_deadline: None,
            permit: Some(permit),
        };
        stream.scan().ok()?;
        Some((stream, protocol))
    }

    /// Which of its heads was refused, once one is.
    pub(crate) fn refused(&self) -> Arc<Refused> {
        self.refused.clone()
    }

    /// Lets through as much of `pending` as is known to be sound.
    fn scan(&mut self) -> io::Result<()> {
        loop {
            let rest = &self.pending[self.passed..];
            if rest.is_empty() {
                return Ok(());
            }
            match self.phase {
                Phase::Head => {
                    if !self.scan_head() {
                        return Ok(());
                    }
                }
                Phase::Sized(left) => {
                    let take = left.min(rest.len() as u64);
                    self.pass(take);
                    self.phase = if take == left { Phase::Head } else { Phase::Sized(left - take) };
                }
                Phase::ChunkData(left) => {
                    let take = left.min(rest.len() as u64);
                    self.pass(take);
                    self.phase = if take == left { Phase::ChunkEnd } else { Phase::ChunkData(left - take) };
                }
                Phase::ChunkEnd => {
                    if rest.len() < 2 {
                        return Ok(());
                    }
                    if !rest.starts_with(b"\r\n") {
                        return Err(malformed("a chunk does not end where it says"));
                    }
                    self.pass(2);
                    self.phase = Phase::ChunkLine;
                }
                Phase::ChunkLine => {
                    let Some(line) = line_of(rest)? else { return Ok(()) };
                    let size = chunk_size(&rest[..line])?;
                    self.pass(line as u64 + 2);
                    self.phase =
                        if size == 0 { Phase::Trailers { bytes: 0 } } else { Phase::ChunkData(size) };
                }
                Phase::Trailers { bytes } => {
                    let Some(line) = line_of(rest)? else { return Ok(()) };
                    let bytes = bytes + line + 2;
                    if bytes > TRAILERS_BYTES_MAX {
                        return Err(malformed("the trailers are too long"));
                    }
                    self.pass(line as u64 + 2);
                    self.phase = if line == 0 { Phase::Head } else { Phase::Trailers { bytes } };
                }
                Phase::Opaque => {
                    self.passed = self.pending.len();
                }
                Phase::Refused => {
                    self.pending.truncate(self.passed);
                }
            }
        }
    }

    /// Whether there may be more to scan.
    fn scan_head(&mut self) -> bool {
        // A server should ignore an empty line before a request line (RFC 9112 section 2.2).
        while self.pending[self.passed..].starts_with(b"\r\n") {
            let rest = self.pending.split_off(self.passed + 2);
            self.pending.truncate(self.passed);
            self.pending.unsplit(rest);
            self.searched = 0;
        }
        let rest = &self.pending[self.passed..];
        let end = end_of_head(&rest[..rest.len().min(HEAD_BYTES_MAX)], self.searched.min(rest.len()));
        let verdict = match end {
            Some(end) => examine(&rest[..end]).map(|head| (end, head)),
            None if rest.len() >= HEAD_BYTES_MAX => {
                let line_ends = rest[..HEAD_BYTES_MAX].contains(&b'\n');
                Err(if line_ends { Refusal::HeadTooLarge } else { Refusal::TargetTooLong })
            }
            None if rest.first().is_some_and(|&b| !is_token(b) && b != b'\r') => Err(Refusal::RequestLine),
            None => {
                self.searched = rest.len();
                return false;
            }
        };
        match verdict {
            Ok((end, head)) => {
                self.pass(end as u64);
                self.heads += 1;
                self.read_deadline = None;
                self.phase = match (head.upgrade, head.framing) {
                    // Because what follows may be another protocol; the answer, if not 101, closes the connection.
                    (true, _) => Phase::Opaque,
                    (false, Framing::Nothing) => Phase::Head,
                    (false, Framing::Sized(length)) => Phase::Sized(length),
                    (false, Framing::Chunked) => Phase::ChunkLine,
                };
                true
            }
            Err(refusal) => {
                self.refuse(refusal);
                false
            }
        }
    }

    fn pass(&mut self, bytes: u64) {
        self.passed += usize::try_from(bytes).expect("at most as long as the buffer");
        self.searched = 0;
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.pending.truncate(self.passed);
        self.pending.extend_from_slice(STAND_IN);
        self.passed = self.pending.len();
        self.phase = Phase::Refused;
        self.read_deadline = None;
        // Because only one head can be refused: nothing is scanned after it.
        let _ = self.refused.at.set((self.heads, refusal));
    }

    /// Until when more bytes must have come, if they must.
    fn arm_read_deadline(&mut self) {
        let patience = match self.phase {
            Phase::Head if self.pending.len() == self.passed => None,
            Phase::Head => Some(HEAD_TIME_MAX),
            Phase::Sized(_)
            | Phase::ChunkLine
            | Phase::ChunkData(_)
            | Phase::ChunkEnd
            | Phase::Trailers { .. } => Some(STALL_MAX),
            Phase::Opaque | Phase::Refused => None,
        };
        if let (None, Some(patience)) = (&self.read_deadline, patience) {
            self.read_deadline = Some(Box::pin(sleep_until(Instant::now() + patience)));
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = self.socket.as_mut() else { return Poll::Ready(Ok(())) };
        self.pending.reserve(READ_BYTES);
        let before = self.pending.len();
        let mut reader = std::pin::pin!(socket.read_buf(&mut self.pending));
        match reader.as_mut().poll(cx) {
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(_)) => {
                debug_assert!(self.pending.len() > before);
                if self.phase != Phase::Head {
                    self.read_deadline = None;
                }
                Poll::Ready(self.scan())
            }
            Poll::Ready(Err(error)) => {
                self.ended = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                self.arm_read_deadline();
                let late = self.read_deadline.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready());
                match self.phase {
                    _ if !late => Poll::Pending,
                    Phase::Head => {
                        self.refuse(Refusal::Late);
                        Poll::Ready(Ok(()))
                    }
                    _ => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                }
            }
        }
    }

    fn watch_write<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.write_deadline = None;
            return done;
        }
        let at = self.write_deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + STALL_MAX)));
        ready!(at.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    Http2,
}

impl<P: Send + Unpin + 'static> AsyncRead for ClientStream<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed == 0 {
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
        let take = this.passed.min(buf.remaining());
        buf.put_slice(&this.pending[..take]);
        this.pending.advance(take);
        this.passed -= take;
        Poll::Ready(Ok(()))
    }
}

impl<P: Send + Unpin + 'static> AsyncWrite for ClientStream<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(socket) = self.socket.as_mut() else { return Poll::Ready(Ok(0)) };
        let done = Pin::new(socket).poll_write(cx, buf);
        self.watch_write(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(socket) = self.socket.as_mut() else { return Poll::Ready(Ok(0)) };
        let done = Pin::new(socket).poll_write_vectored(cx, bufs);
        self.watch_write(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_mut().map_or(Poll::Ready(Ok(())), |socket| Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_mut().map_or(Poll::Ready(Ok(())), |socket| Pin::new(socket).poll_shutdown(cx))
    }
}

impl<P: Send + 'static> Drop for ClientStream<P> {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take().filter(|_| !self.ended) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(linger(socket, self.permit.take()));
        }
    }
}

/// Closes our direction, then reads what the client had already sent: closing with unread data resets the
/// connection, and the reset destroys an answer that is still on its way (RFC 9112 section 9.6).
async fn linger<P>(mut socket: TcpStream, permit: Option<P>) {
    let _ = timeout(LINGER_MAX, async {
        socket.shutdown().await?;
        let mut scratch = vec![0; READ_BYTES];
        let mut left = LINGER_BYTES_MAX;
        loop {
            match socket.read(&mut scratch).await? {
                0 => return Ok::<(), io::Error>(()),
                read if read >= left => return Ok(()),
                read => left -= read,
            }
        }
    })
    .await;
    drop(permit);
}
