//! Opens the connection behind a session: the local Unix socket, or the peer gate of another region.

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, time::Duration};

use isles_model::RegionName;
use rustix::net::sockopt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, Ready},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    answer::{self, FirstAnswer},
    opening::{CancelKey, Startup},
    permit::Route,
    pipe::Pipe,
};

/// A connection is given up that has not come about within this time: several of the longest round trips.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A server that has not answered a start-up packet within this time is taken for dead.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A cancel request is forgotten after this time; the protocol owes no answer to it.
const CANCEL_WITHIN: Duration = Duration::from_secs(5);
/// Silence on a connection before the kernel asks whether the far end lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Time between its questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Questions without an answer before the connection is dead.
const KEEPALIVE_COUNT: u32 = 3;

/// Bytes that a far end has not acknowledged for so long mean that it is gone; without this it takes a quarter of an
/// hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MS_MAX: u32 = 20_000;

/// What is behind a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Door {
    /// This region's PostgreSQL.
    Local,
    /// A region's peer gate.
    Peer(RegionName),
}

/// Where the doors are.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    /// The Unix socket file of this region's PostgreSQL.
    pub(super) socket: PathBuf,
    /// The peer gates of the other regions, as reached from here.
    pub(super) peers: BTreeMap<RegionName, SocketAddr>,
}

/// Why no session could be opened behind a door.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// No address is known for this region.
    #[error("no peer gate is configured for {0}")]
    UnknownPeer(RegionName),
    /// Connecting failed.
    #[error("the database did not take a connection")]
    Connect(#[source] io::Error),
    /// The connection broke before the first answer.
    #[error("the database left before it answered")]
    Talk(#[source] io::Error),
    /// It refused for the moment, by code.
    #[error("the database cannot take a session just now")]
    NotNow,
    /// It does not let the role in for the moment, by SQLSTATE.
    #[error("the database does not let the role in just now (SQLSTATE {0})")]
    Denied(String),
    /// It asked for no password, or for one in a weaker way.
    #[error("the database does not authenticate with SCRAM-SHA-256")]
    Weak,
    /// A session could not be made like the one before.
    #[error("the session could not be restored there")]
    Unlike,
    /// Only a session that writes has a credential for this role.
    #[error("this role does not read through the read gate")]
    NoCredential,
    /// It refused for a reason that is the app's business: the ErrorResponse.
    #[error("the database refused the session")]
    Refused(Vec<u8>),
}

/// A connection to a database.
pub(super) enum Upstream {
    /// To the local one.
    Local(UnixStream),
    /// To a peer gate.
    Peer(TcpStream),
}

impl Route {
    /// The door this route leads through.
    pub(super) fn door(&self) -> Door {
        match self {
            Self::Writer(_) | Self::Reader => Door::Local,
            Self::Peer { region, .. } => Door::Peer(region.clone()),
        }
    }
}

impl Upstream {
    /// Connects, within a bound.
    pub(super) async fn connect(doors: &Doors, door: &Door) -> Result<Self, DialError> {
        let connecting = async {
            match door {
                Door::Local => {
                    UnixStream::connect(&doors.socket).await.map(Self::Local).map_err(DialError::Connect)
                }
                Door::Peer(region) => {
                    let address =
                        doors.peers.get(region).ok_or_else(|| DialError::UnknownPeer(region.clone()))?;
                    let stream = TcpStream::connect(address).await.map_err(DialError::Connect)?;
                    prepare(&stream).map_err(DialError::Connect)?;
                    Ok(Self::Peer(stream))
                }
            }
        };
        timeout(CONNECT_WITHIN, connecting).await.map_err(|late| DialError::Connect(late.into()))?
    }

    /// Waits until the connection may be read or written, as asked.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Local(stream) => stream.ready(interest).await,
            Self::Peer(stream) => stream.ready(interest).await,
        }
    }

    /// Reads what is there.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Local(stream) => stream.try_read(buffer),
            Self::Peer(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what the kernel takes.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local(stream) => stream.try_write(bytes),
            Self::Peer(stream) => stream.try_write(bytes),
        }
    }

    /// Writes all of it.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(stream) => stream.write_all(bytes).await,
            Self::Peer(stream) => stream.write_all(bytes).await,
        }
    }

    async fn read_to_end(&mut self) -> io::Result<()> {
        let mut ignored = [0; 64];
        loop {
            let read = match self {
                Self::Local(stream) => stream.read(&mut ignored).await?,
                Self::Peer(stream) => stream.read(&mut ignored).await?,
            };
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// Connects, sends the start-up packet, and waits for the first answer, which is left in the returned pipe. An
/// answer that only means "not now" is an error: the app has seen nothing, so the caller may try again.
pub(super) async fn dial(
    doors: &Doors,
    door: &Door,
    startup: &Startup,
) -> Result<(Upstream, Pipe), DialError> {
    let mut upstream = Upstream::connect(doors, door).await?;
    let mut pipe = Pipe::new();
    let answering = async {
        upstream.write_all(startup.packet()).await?;
        loop {
            match answer::first_answer(pipe.bytes()) {
                FirstAnswer::Incomplete => {}
                verdict => return Ok(verdict),
            }
            upstream.ready(Interest::READABLE).await?;
            if pipe.append(|space| upstream.try_read(space))? == Some(0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let verdict = timeout(FIRST_ANSWER_WITHIN, answering)
        .await
        .map_err(|late| DialError::Talk(late.into()))?
        .map_err(DialError::Talk)?;
    match verdict {
        FirstAnswer::Session => Ok((upstream, pipe)),
        FirstAnswer::NotNow | FirstAnswer::Incomplete => Err(DialError::NotNow),
    }
}

/// Passes a cancel request on and waits for the server to hang up, which says that the signal was sent.
pub(super) async fn cancel(doors: &Doors, door: &Door, key: &CancelKey) -> Result<(), DialError> {
    let cancelling = async {
        let mut upstream = Upstream::connect(doors, door).await?;
        upstream.write_all(&key.packet()).await.map_err(DialError::Talk)?;
        upstream.read_to_end().await.map_err(DialError::Talk)
    };
    timeout(CANCEL_WITHIN, cancelling).await.map_err(|late| DialError::Talk(late.into()))?
}

/// Small messages at once, and dead far ends found out.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
    Ok(())
}
