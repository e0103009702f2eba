//! Carries the connections of one way: each chunk arrives one distance after it was read, in order.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{Distance, timer::Timer};
use crate::control::LinkCondition;

/// The most read at once, in bytes.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Bytes that may be on their way in one direction of one connection; beyond it the sender waits, as behind a full
/// TCP window. 8 MiB fill a link of 300 ms at 220 Mbit/s.
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long to wait before accepting again when the machine has no descriptor left.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// One direction of a pair: how far it is, and how it does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direction {
    pub(super) distance: Distance,
    pub(super) condition: LinkCondition,
}

impl Direction {
    fn delay(&self) -> Duration {
        let extra = match self.condition {
            LinkCondition::Slow { extra, .. } => extra,
            LinkCondition::Healthy | LinkCondition::Cut | LinkCondition::Reset => Duration::ZERO,
        };
        let jitter = u64::try_from(self.distance.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = if jitter == 0 { 0 } else { fastrand::u64(0..=jitter) };
        self.distance.one_way + extra + Duration::from_nanos(jitter)
    }

    fn pace(&self, bytes: usize) -> Duration {
        let rate = match self.condition {
            LinkCondition::Slow { rate: Some(rate), .. } => Some(rate),
            LinkCondition::Slow { rate: None, .. }
            | LinkCondition::Healthy
            | LinkCondition::Cut
            | LinkCondition::Reset => self.distance.rate,
        };
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64))
    }
}

/// A way to one address.
pub(super) struct Relay {
    pub(super) target: SocketAddr,
    pub(super) forth: watch::Receiver<Direction>,
    pub(super) back: watch::Receiver<Direction>,
    pub(super) timer: Timer,
}

/// How one direction of a connection ended.
enum End {
    /// The sender finished, and that has arrived.
    Finished,
    /// The connection broke, or the link resets connections.
    Reset,
}

impl Relay {
    /// Accepts until dropped; its connections end with it.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((near, _)) => drop(connections.spawn(self.clone().carry(near))),
                    Err(_) => tokio::time::sleep(ACCEPT_AGAIN_AFTER).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Carries one connection both ways until both are finished or one is reset.
    async fn carry(self: Arc<Self>, mut near: TcpStream) {
        let mut forth = self.forth.clone();
        let mut back = self.back.clone();
        let Some(mut far) = self.connect(&mut forth, &mut back).await else {
            return reset(near);
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let finished = {
            let (near_read, near_write) = near.split();
            let (far_read, far_write) = far.split();
            let there = self.one_direction(near_read, far_write, forth);
            let here = self.one_direction(far_read, near_write, back);
            tokio::pin!(there, here);
            tokio::select! {
                end = &mut there => matches!(end, End::Finished) && matches!(here.await, End::Finished),
                end = &mut here => matches!(end, End::Finished) && matches!(there.await, End::Finished),
            }
        };
        if !finished {
            reset(near);
            reset(far);
        }
    }

    /// Takes one round trip, as a TCP handshake does; `None` when it is refused there or the link resets it.
    async fn connect(
        &self,
        forth: &mut watch::Receiver<Direction>,
        back: &mut watch::Receiver<Direction>,
    ) -> Option<TcpStream> {
        let sent = Instant::now();
        let there = passable(forth).await?.delay();
        let here = passable(back).await?.delay();
        self.timer.sleep_until(sent + there + here).await;
        passable(forth).await?;
        passable(back).await?;
        TcpStream::connect(self.target).await.ok()
    }

    /// Reads here, writes there, one distance later.
    async fn one_direction(
        &self,
        mut read: ReadHalf<'_>,
        write: WriteHalf<'_>,
        mut way: watch::Receiver<Direction>,
    ) -> End {
        let room = Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX));
        let (chunks, arriving) = mpsc::unbounded_channel::<Chunk>();
        let reading = {
            let (room, way) = (room.clone(), way.clone());
            async move {
                let mut due = Instant::now();
                let mut buffer = vec![0; CHUNK_BYTES_MAX];
                loop {
                    let read = read.read(&mut buffer).await;
                    let now = Instant::now();
                    let direction = *way.borrow();
                    let bytes = match &read {
                        Ok(bytes) => buffer[..*bytes].to_vec(),
                        Err(_) => Vec::new(),
                    };
                    due = (now + direction.delay()).max(due) + direction.pace(bytes.len());
                    let last = bytes.is_empty();
                    // The semaphore bounds the channel: in bytes, which a bounded channel could not.
                    let Ok(permit) = room.acquire_many(bytes.len() as u32).await else { return };
                    permit.forget();
                    if chunks.send(Chunk { due, bytes: read.map(|_| bytes) }).is_err() || last {
                        return;
                    }
                }
            }
        };
        let writing = self.deliver(arriving, write, &mut way, &room);
        let mut writing = std::pin::pin!(writing);
        tokio::select! {
            end = &mut writing => end,
            () = reading => writing.await,
        }
    }

    async fn deliver(
        &self,
        mut arriving: mpsc::UnboundedReceiver<Chunk>,
        mut write: WriteHalf<'_>,
        way: &mut watch::Receiver<Direction>,
        room: &Semaphore,
    ) -> End {
        loop {
            let chunk = tokio::select! {
                biased;
                () = until_reset(way) => return End::Reset,
                chunk = arriving.recv() => chunk,
            };
            let Some(Chunk { due, bytes }) = chunk else { return End::Reset };
            tokio::select! {
                () = self.timer.sleep_until(due) => {}
                () = until_reset(way) => return End::Reset,
            }
            if passable(way).await.is_none() {
                return End::Reset;
            }
            let bytes = match bytes {
                Ok(bytes) if bytes.is_empty() => {
                    return if write.shutdown().await.is_ok() { End::Finished } else { End::Reset };
                }
                Ok(bytes) => bytes,
                Err(_) => return End::Reset,
            };
            let written = tokio::select! {
                written = write.write_all(&bytes) => written.is_ok(),
                () = until_reset(way) => false,
            };
            if !written {
                return End::Reset;
            }
            room.add_permits(bytes.len());
        }
    }
}

/// Bytes on their way; none: the sender has finished; an error: its connection broke.
struct Chunk {
    due: Instant,
    bytes: io::Result<Vec<u8>>,
}

/// Waits out a cut link; `None` when the link resets connections, or the lab has ended.
async fn passable(way: &mut watch::Receiver<Direction>) -> Option<Direction> {
    let open = way.wait_for(|direction| direction.condition != LinkCondition::Cut).await.ok()?;
    (open.condition != LinkCondition::Reset).then_some(*open)
}

async fn until_reset(way: &mut watch::Receiver<Direction>) {
    // An error: the lab has ended, and its connections with it.
    let _ = way.wait_for(|direction| direction.condition == LinkCondition::Reset).await;
}

fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}
