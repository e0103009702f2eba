//! Bodies on their way: a request's, kept while it may have to be sent again; a response's, streamed, its upstream
//! connection given back when it has ended.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::pool::Lease;

/// Longest request body kept for another attempt or while a write is held, in bytes. Longer ones are streamed once.
pub(crate) const KEPT_BODY_BYTES_MAX: u64 = 1024 * 1024;
/// All kept bodies together, in bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What room is counted in, in bytes: a semaphore counts no further than 32 bits.
const ROOM_UNIT: usize = 1024;
/// How long a client may take to send a body that is to be kept.
const KEEP_TIME_MAX: Duration = Duration::from_secs(30);

/// Room for kept bodies.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(KEPT_BYTES_MAX / ROOM_UNIT)))
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).ok()?;
        self.0.clone().try_acquire_many_owned(units).ok()
    }
}

/// Why a body was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// It is longer than [`KEPT_BODY_BYTES_MAX`], or does not say how long it is.
    TooLong,
    /// [`KEPT_BYTES_MAX`] is used up.
    NoRoom,
    /// The client did not send all of it.
    Broken,
    /// It has gone upstream.
    Spent,
}

/// A request's body.
#[derive(Debug)]
pub(crate) enum Payload {
    /// None.
    Empty,
    /// All of it.
    Kept(Bytes, #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    /// Still coming from the client.
    Live(Incoming),
    /// Was streamed upstream.
    Spent,
}

impl Payload {
    pub(crate) fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() { Self::Empty } else { Self::Live(incoming) }
    }

    /// Whether it can be sent (again).
    pub(crate) fn at_hand(&self) -> bool {
        !matches!(self, Self::Spent)
    }

    /// Reads it whole, if it says that it is short.
    pub(crate) async fn keep(&mut self, room: &Room) -> Result<(), NotKept> {
        let incoming = match self {
            Self::Empty | Self::Kept(..) => return Ok(()),
            Self::Spent => return Err(NotKept::Spent),
            Self::Live(incoming) => incoming,
        };
        let length = incoming.size_hint().exact().filter(|&length| length <= KEPT_BODY_BYTES_MAX);
        let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(NotKept::TooLong)?;
        let permit = room.take(length).ok_or(NotKept::NoRoom)?;
        let read = timeout(KEEP_TIME_MAX, async {
            let mut bytes = BytesMut::with_capacity(length);
            while let Some(frame) = incoming.frame().await {
                if let Ok(data) = frame?.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Ok::<_, hyper::Error>(bytes.freeze())
        });
        match read.await {
            Ok(Ok(bytes)) if bytes.len() == length => {
                *self = Self::Kept(bytes, permit);
                Ok(())
            }
            _ => {
                *self = Self::Spent;
                Err(NotKept::Broken)
            }
        }
    }

    /// What goes upstream now.
    pub(crate) fn lend(&mut self) -> Outgoing {
        match self {
            Self::Empty | Self::Spent => Outgoing::Held(None),
            Self::Kept(bytes, _) => Outgoing::Held(Some(bytes.clone())),
            Self::Live(_) => match std::mem::replace(self, Self::Spent) {
                Self::Live(incoming) => Outgoing::Live(incoming),
                Self::Empty | Self::Kept(..) | Self::Spent => Outgoing::Held(None),
            },
        }
    }

    /// Takes back what provably did not go upstream.
    pub(crate) fn give_back(&mut self, outgoing: Outgoing) {
        if let Outgoing::Live(incoming) = outgoing {
            *self = Self::Live(incoming);
        }
    }
}

/// A request's body on its way upstream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// At hand.
    Held(Option<Bytes>),
    /// Streamed from the client.
    Live(Incoming),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Held(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Live(incoming) => Pin::new(incoming).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(bytes) => bytes.is_none(),
            Self::Live(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Live(incoming) => incoming.size_hint(),
        }
    }
}

/// Ends when nothing more is to be expected of a response.
pub(crate) type Gone = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// Why a response's body breaks off. hyper then closes the client's connection, so that it is seen to be incomplete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenOff {
    #[error("the upstream broke off its answer")]
    Upstream(#[from] hyper::Error),
    #[error("the region that answered has fallen silent")]
    Silent,
}

/// A response's body on its way to the client.
pub(crate) enum Answer {
    /// This edge's own words.
    Own(Option<Bytes>),
    /// An app's or a peer's, with the connection it comes by.
    Streamed { incoming: Incoming, lease: Option<Lease>, gone: Option<Gone> },
}

impl Answer {
    /// A response's body, together with the connection it comes by; broken off when `gone` ends.
    pub(crate) fn streamed(incoming: Incoming, lease: Lease, gone: Option<Gone>) -> Self {
        if incoming.is_end_stream() {
            lease.give_back();
            Self::Streamed { incoming, lease: None, gone: None }
        } else {
            Self::Streamed { incoming, lease: Some(lease), gone }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own",
            Self::Streamed { .. } => "Streamed",
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (incoming, lease, gone) = match &mut *self {
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { incoming, lease, gone } => (incoming, lease, gone),
        };
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            if let Some(ended) = gone.as_mut()
                && ended.as_mut().poll(cx).is_ready()
            {
                *gone = None;
                return Poll::Ready(Some(Err(BrokenOff::Silent)));
            }
            return Poll::Pending;
        };
        if (frame.is_none() || incoming.is_end_stream())
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BrokenOff::from)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Streamed { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed { incoming, .. } => incoming.size_hint(),
        }
    }
}
