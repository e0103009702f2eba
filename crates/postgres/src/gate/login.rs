//! Logs in at a database on behalf of a client, and keeps what the database says of itself until the client gets it.
//!
//! Takes SCRAM-SHA-256 and nothing weaker: a database that lets anybody in would hold no fence.

use std::{collections::BTreeMap, io, time::Duration};

use bytes::BytesMut;
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, ScramSha256},
    message::frontend,
};
use tokio::time::timeout;

use super::{
    answer::{self, Verdict},
    message::{self, OK, SASL, SASL_CONTINUE, SASL_FINAL},
    opening::{CancelKey, Startup},
    scram::MECHANISM,
    talk::Talk,
    upstream::{DialError, Door, Doors, Upstream},
};

/// A database that has not let the gate in within this time is taken for dead: several of the longest round trips.
const LOGIN_WITHIN: Duration = Duration::from_secs(5);
/// The most settings a database reports at login.
const REPORTED_MAX: usize = 64;

/// What a database says of itself and of a session as it begins.
#[derive(Default)]
pub(super) struct Greeting {
    /// The settings it reports (ParameterStatus), by name.
    pub(super) reported: BTreeMap<Vec<u8>, Vec<u8>>,
    /// With what the session's statements can be cancelled there.
    pub(super) key: Option<CancelKey>,
    /// Notices, as they came.
    notices: Vec<u8>,
}

impl Greeting {
    /// What the client is sent, under the key it is given.
    pub(super) fn bytes(&self, key: &CancelKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1_024);
        for (name, value) in &self.reported {
            bytes.extend(parameter_status(name, value));
        }
        bytes.extend(message::frame(b'K', key.body()));
        bytes.extend(&self.notices);
        bytes.extend(message::frame(b'Z', b"I"));
        bytes
    }
}

/// A ParameterStatus message.
pub(super) fn parameter_status(name: &[u8], value: &[u8]) -> Vec<u8> {
    message::frame(b'S', &[name, &[0], value, &[0]].concat())
}

/// Connects through a door, logs in, and reads up to the database's readiness.
pub(super) async fn log_in(
    doors: &Doors,
    door: &Door,
    startup: &Startup,
    password: &str,
) -> Result<(Talk, Greeting), DialError> {
    let upstream = Upstream::connect(doors, door).await?;
    let greeting = async {
        let mut talk = Talk::new(upstream);
        prove(&mut talk, startup, password).await?;
        let greeting = greeting(&mut talk).await?;
        Ok((talk, greeting))
    };
    timeout(LOGIN_WITHIN, greeting).await.map_err(|late| DialError::Talk(late.into()))?
}

/// The first proof goes out with the start-up packet, before the database asks for it: one round trip less, which
/// between regions is a fifth of a second.
async fn prove(talk: &mut Talk, startup: &Startup, password: &str) -> Result<(), DialError> {
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let mut out = BytesMut::from(startup.packet());
    frontend::sasl_initial_response(MECHANISM, scram.message(), &mut out).map_err(DialError::Talk)?;
    talk.send(&out).await.map_err(DialError::Talk)?;
    let offered = expect(talk, SASL).await?;
    if !offered.split(|byte| *byte == 0).any(|mechanism| mechanism == MECHANISM.as_bytes()) {
        return Err(DialError::Weak);
    }
    scram.update(&expect(talk, SASL_CONTINUE).await?).map_err(DialError::Talk)?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(DialError::Talk)?;
    talk.send(&out).await.map_err(DialError::Talk)?;
    scram.finish(&expect(talk, SASL_FINAL).await?).map_err(DialError::Talk)?;
    expect(talk, OK).await?;
    Ok(())
}

/// The rest of the authentication message of this kind that must come next.
async fn expect(talk: &mut Talk, kind: u32) -> Result<Vec<u8>, DialError> {
    loop {
        let said = talk.next().await.map_err(DialError::Talk)?;
        match said.kind {
            b'E' => return Err(refused(&said.body)),
            b'N' => {}
            b'R' => match message::number(&said.body) {
                Some((number, rest)) if number == kind => return Ok(rest.to_vec()),
                _ => return Err(DialError::Weak),
            },
            _ => return Err(DialError::Talk(io::ErrorKind::InvalidData.into())),
        }
    }
}

async fn greeting(talk: &mut Talk) -> Result<Greeting, DialError> {
    let mut greeting = Greeting::default();
    loop {
        let said = talk.next().await.map_err(DialError::Talk)?;
        match said.kind {
            b'Z' => return Ok(greeting),
            b'E' => return Err(refused(&said.body)),
            b'K' => greeting.key = CancelKey::new(&said.body),
            b'S' if greeting.reported.len() < REPORTED_MAX => {
                if let Some((name, rest)) = message::text(&said.body)
                    && let Some((value, _)) = message::text(rest)
                {
                    greeting.reported.insert(name.to_vec(), value.to_vec());
                }
            }
            b'N' if greeting.notices.len() < answer::FIRST_ANSWER_BYTES_MAX => {
                greeting.notices.extend(message::frame(said.kind, &said.body));
            }
            b'S' | b'N' => {}
            _ => return Err(DialError::Talk(io::ErrorKind::InvalidData.into())),
        }
    }
}

fn refused(fields: &[u8]) -> DialError {
    match answer::verdict(fields) {
        Verdict::NotNow(code) => DialError::Denied(code),
        Verdict::Final => DialError::Refused(message::frame(b'E', fields)),
    }
}
