//! Reads what a client says first: who it is and what it wants, or whose statement it wants cancelled.
//!
//! PostgreSQL, chapter 55.2.1 (start-up) and 55.7 (StartupMessage, SSLRequest, GSSENCRequest, CancelRequest).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message;

/// The longest start-up packet, in bytes: PostgreSQL's own `MAX_STARTUP_PACKET_LENGTH`.
pub(super) const STARTUP_BYTES_MAX: usize = 10_000;
/// Encryption may be asked for once of each kind before the start-up packet.
const NEGOTIATIONS_MAX: usize = 2;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const PROTOCOL_MAJOR: u32 = 3;
const PROTOCOL_3_0: u32 = PROTOCOL_MAJOR << 16;

/// What a client wants.
pub(super) enum Opening {
    /// A session.
    Session(Startup),
    /// To cancel a statement of another session.
    Cancel(CancelKey),
}

/// A start-up packet as it was sent.
#[derive(Clone)]
pub(super) struct Startup {
    packet: Vec<u8>,
}

/// The number and secret of a backend, as BackendKeyData carries them. Whoever knows them may cancel: never logged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CancelKey(Vec<u8>);

/// The shortest and longest key, in bytes: process number and secret (protocol 3.0: 4 bytes, 3.2: up to 256).
const CANCEL_KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=260;

/// Why an opening could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpeningError {
    /// The client went away.
    #[error("the client left before it had said what it wants")]
    Read(#[from] std::io::Error),
    /// A length outside of PostgreSQL's limits.
    #[error("a start-up packet of {0} bytes; PostgreSQL takes 8 to {STARTUP_BYTES_MAX}")]
    Length(usize),
    /// Not PostgreSQL's protocol 3.
    #[error("protocol code {0} is not PostgreSQL's protocol 3")]
    Protocol(u32),
    /// Encryption was asked for again and again.
    #[error("encryption was asked for more than {NEGOTIATIONS_MAX} times")]
    Negotiations,
}

impl Startup {
    /// The bytes to send on.
    pub(super) fn packet(&self) -> &[u8] {
        &self.packet
    }

    /// The parameters in order: name and value.
    fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut texts = self.packet.get(8..).unwrap_or_default().split(|byte| *byte == 0);
        std::iter::from_fn(move || {
            let name = texts.next().filter(|name| !name.is_empty())?;
            Some((name, texts.next()?))
        })
    }

    /// Every role named in the packet. PostgreSQL obeys the last; more than one is nobody's honest mistake.
    pub(super) fn users(&self) -> impl Iterator<Item = &[u8]> {
        self.parameters().filter(|(name, _)| *name == b"user").map(|(_, value)| value)
    }

    /// The one role named, if it is one and a name.
    pub(super) fn user(&self) -> Option<&str> {
        let mut users = self.users();
        let user = std::str::from_utf8(users.next()?).ok().filter(|user| !user.is_empty())?;
        users.next().is_none().then_some(user)
    }

    /// Whether the replication protocol is asked for.
    pub(super) fn is_replication(&self) -> bool {
        self.parameters().any(|(name, _)| name == b"replication")
    }

    /// Brings the packet down to protocol 3.0, which the gate speaks itself, and returns the
    /// NegotiateProtocolVersion that says so to a client that asked for more.
    pub(super) fn negotiate(&mut self) -> Option<Vec<u8>> {
        let minor = self.packet.get(6..8).is_some_and(|minor| minor != [0, 0]);
        let is_option = |name: &[u8]| name.starts_with(b"_pq_.");
        let declined: Vec<&[u8]> = self.parameters().map(|(name, _)| name).filter(|n| is_option(n)).collect();
        if !minor && declined.is_empty() {
            return None;
        }
        let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
        body.extend(u32::try_from(declined.len()).unwrap_or(u32::MAX).to_be_bytes());
        for name in declined {
            body.extend(name);
            body.push(0);
        }
        let mut packet = vec![0; 4];
        packet.extend(PROTOCOL_3_0.to_be_bytes());
        for (name, value) in self.parameters().filter(|(name, _)| !is_option(name)) {
            packet.extend([name, &[0], value, &[0]].concat());
        }
        packet.push(0);
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        packet[..4].copy_from_slice(&length.to_be_bytes());
        self.packet = packet;
        Some(message::frame(b'v', &body))
    }
}

impl CancelKey {
    /// A key from the body of a BackendKeyData or CancelRequest message.
    pub(super) fn new(body: &[u8]) -> Option<Self> {
        CANCEL_KEY_BYTES.contains(&body.len()).then(|| Self(body.to_vec()))
    }

    /// A key of 8 random bytes, as a server of protocol 3.0 gives: a number that looks like a process's, a secret.
    pub(super) fn of_random([first, rest @ ..]: [u8; 8]) -> Self {
        Self([&[first & 0x7f][..], &rest].concat())
    }

    /// As BackendKeyData carries it.
    pub(super) fn body(&self) -> &[u8] {
        &self.0
    }

    /// The whole CancelRequest packet.
    pub(super) fn packet(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() + 8).unwrap_or(u32::MAX);
        let mut packet = Vec::with_capacity(self.0.len() + 8);
        packet.extend(length.to_be_bytes());
        packet.extend(CANCEL_REQUEST.to_be_bytes());
        packet.extend(&self.0);
        packet
    }
}

/// Reads one client's opening, declining encryption (the gate stands on the app's own machine; between regions
/// the operator's network encrypts). Reads no byte beyond it. The caller limits the time.
pub(super) async fn read(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Opening, OpeningError> {
    for _ in 0..=NEGOTIATIONS_MAX {
        let packet = read_packet(client).await?;
        let code = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        match code {
            SSL_REQUEST | GSSENC_REQUEST if packet.len() == 8 => client.write_all(b"N").await?,
            CANCEL_REQUEST => {
                let key = CancelKey::new(&packet[8..]).ok_or(OpeningError::Length(packet.len()))?;
                return Ok(Opening::Cancel(key));
            }
            _ if code >> 16 == PROTOCOL_MAJOR => return Ok(Opening::Session(Startup { packet })),
            _ => return Err(OpeningError::Protocol(code)),
        }
    }
    Err(OpeningError::Negotiations)
}

/// A packet with its length, 8 bytes at least.
async fn read_packet(client: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, OpeningError> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head) as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(OpeningError::Length(length));
    }
    let mut packet = vec![0; length];
    packet[..4].copy_from_slice(&head);
    client.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
        packet.extend(code.to_be_bytes());
        packet.extend(body);
        packet
    }

    async fn opened(bytes: &[u8]) -> Result<Opening, OpeningError> {
        let mut client = connection_over_which_came(bytes).await;
        read(&mut client).await
    }

    /// The gate's end of a connection over which `bytes` came, and then its end.
    async fn connection_over_which_came(bytes: &[u8]) -> tokio::io::DuplexStream {
        let (mut far, near) = tokio::io::duplex(64 * 1024);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        tokio::spawn(async move { far.read_to_end(&mut Vec::new()).await });
        near
    }

    #[tokio::test]
    async fn encryption_is_declined_and_the_startup_packet_is_kept_as_it_is() {
        let startup = packet(196_608, b"user\0shop\0database\0shop\0\0");
        let bytes = [packet(SSL_REQUEST, b""), packet(GSSENC_REQUEST, b""), startup.clone()].concat();
        let Ok(Opening::Session(read)) = opened(&bytes).await else { panic!("no session") };
        assert_eq!(read.packet(), startup);
        assert_eq!(read.users().collect::<Vec<_>>(), [b"shop"]);
    }

    #[tokio::test]
    async fn a_second_user_in_a_startup_packet_is_seen() {
        let bytes = packet(196_608, b"user\0shop\0options\0user\0user\0postgres\0\0");
        let Ok(Opening::Session(read)) = opened(&bytes).await else { panic!("no session") };
        assert_eq!(read.users().collect::<Vec<_>>(), [&b"shop"[..], b"postgres"]);
        assert_eq!(read.user(), None);
    }

    #[tokio::test]
    async fn a_client_of_a_newer_protocol_is_brought_down_to_this_one_and_told_so() {
        let newer = packet(196_610, b"user\0shop\0_pq_.later\0on\0database\0shop\0\0");
        let Ok(Opening::Session(mut read)) = opened(&newer).await else { panic!("no session") };
        let told = read.negotiate().unwrap();
        assert_eq!(told, b"v\0\0\0\x17\0\x03\0\0\0\0\0\x01_pq_.later\0");
        assert_eq!(read.packet(), packet(196_608, b"user\0shop\0database\0shop\0\0"));
        assert_eq!(read.user(), Some("shop"));
        assert!(read.negotiate().is_none());
    }

    #[tokio::test]
    async fn a_cancel_request_keeps_its_key() {
        let bytes = packet(CANCEL_REQUEST, b"\0\0\x04\xd2secr");
        let Ok(Opening::Cancel(key)) = opened(&bytes).await else { panic!("no cancel") };
        assert_eq!(key.packet(), bytes);
    }

    #[tokio::test]
    async fn what_postgresql_would_not_take_is_refused() {
        let long = packet(196_608, &vec![b'a'; STARTUP_BYTES_MAX]);
        assert!(matches!(opened(&long).await, Err(OpeningError::Length(_))));
        assert!(matches!(opened(&packet(131_072, b"")).await, Err(OpeningError::Protocol(131_072))));
        assert!(matches!(opened(b"GET / HTTP/1.1\r\n").await, Err(OpeningError::Length(_))));
        let again = packet(SSL_REQUEST, b"").repeat(9);
        assert!(matches!(opened(&again).await, Err(OpeningError::Negotiations)));
    }

    proptest! {
        #[test]
        fn any_bytes_may_open(bytes: Vec<u8>, body: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let _ = opened(&bytes).await;
                if let Ok(Opening::Session(mut startup)) = opened(&packet(196_609, &body)).await {
                    let _ = (startup.user(), startup.is_replication());
                    let _ = startup.negotiate();
                }
            });
        }
    }
}
