//! Asks a client for its password before anything else, and knows with which one the gate goes on to the database.
//!
//! The app's password opens the gate and nothing behind it. A role that does not exist is asked just the same, so
//! that names cannot be found out (PostgreSQL's own `mock_scram_secret`).

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use isles_model::EpochSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    answer::{INVALID_PASSWORD, PROTOCOL_VIOLATION, Refusal},
    message,
    permit::Route,
    scram::{Exchange, MECHANISM, MESSAGE_BYTES_MAX, ScramError},
};
use crate::verifier::{SALT_BYTES, Verifier, mac};

/// Random bytes in the server's part of a nonce: PostgreSQL's own `SCRAM_RAW_NONCE_LEN`.
const NONCE_BYTES: usize = 18;
/// Iterations a role that does not exist pretends to: PostgreSQL's default, which the known roles have.
const MOCK_ITERATIONS: u32 = 4_096;

/// A role that may come through a gate, and its password there.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The role.
    pub name: String,
    /// What a client must know. Never sent.
    pub password: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

/// With what the gate logs in at a database on behalf of a client.
#[derive(Clone)]
pub(super) enum Credential {
    /// With the password of the epoch under which the session is led there.
    PerEpoch(EpochSecret),
    /// With the client's own password.
    Own(Arc<str>),
}

impl Credential {
    /// The password along a route; `None`: there is none for reading.
    pub(super) fn password(&self, route: &Route) -> Option<String> {
        match (self, route) {
            (Self::Own(password), _) => Some(password.to_string()),
            (Self::PerEpoch(secret), Route::Writer(epoch) | Route::Peer { epoch, .. }) => {
                Some(secret.app_password(*epoch))
            }
            (Self::PerEpoch(_), Route::Reader) => None,
        }
    }
}

/// Knows the roles.
#[derive(Clone)]
pub(super) struct Guard(Arc<Known>);

struct Known {
    roles: BTreeMap<String, (Verifier, Credential)>,
    mock_key: [u8; 32],
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    /// It went away, as `psql` does to ask for a password.
    #[error("the client left before it had proved who it is")]
    Left(#[from] io::Error),
    /// It does not speak SCRAM-SHA-256.
    #[error(transparent)]
    Malformed(ScramError),
    /// A wrong password, or no such role.
    #[error("a wrong password, or no such role")]
    Rejected,
}

impl Denied {
    /// What the client is told; the words are PostgreSQL's.
    pub(super) fn refusal(&self, user: &str) -> Option<Refusal> {
        match self {
            Self::Left(_) => None,
            Self::Malformed(error) => Some(Refusal {
                code: PROTOCOL_VIOLATION,
                message: error.to_string(),
                hint: "This gate authenticates with SCRAM-SHA-256 and nothing else.",
            }),
            Self::Rejected => Some(Refusal {
                code: INVALID_PASSWORD,
                message: format!("password authentication failed for user \"{user}\""),
                hint: "Use the roles of DATABASE_URL and DATABASE_READ_URL; `isles psql` is for administration.",
            }),
        }
    }
}

impl Guard {
    /// For these roles; an error means that the system gives no random numbers.
    pub(super) fn new(app: &Account, secret: &EpochSecret, reader: &Account) -> io::Result<Self> {
        let app_credential = Credential::PerEpoch(secret.clone());
        let reader_credential = Credential::Own(reader.password.as_str().into());
        let roles = [(app, app_credential), (reader, reader_credential)]
            .map(|(role, with)| (role.name.clone(), (Verifier::of_password(&role.password), with)));
        Ok(Self(Arc::new(Known { roles: roles.into(), mock_key: random()? })))
    }

    /// Lets a client prove that it knows its role's password, and tells it so. Reads no byte beyond the proof. The
    /// caller limits the time.
    pub(super) async fn authenticate(
        &self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        user: &str,
    ) -> Result<Credential, Denied> {
        let known = self.0.roles.get(user);
        let mock;
        let verifier = match known {
            Some((verifier, _)) => verifier,
            None => {
                mock = self.mock(user);
                &mock
            }
        };
        client
            .write_all(&message::authentication(message::SASL, format!("{MECHANISM}\0\0").as_bytes()))
            .await?;
        let first = read(client).await?;
        let nonce = STANDARD.encode(random::<NONCE_BYTES>()?);
        let exchange =
            Exchange::begin(verifier, initial_response(&first).map_err(Denied::Malformed)?, &nonce)
                .map_err(Denied::Malformed)?;
        let challenge = message::authentication(message::SASL_CONTINUE, exchange.server_first().as_bytes());
        client.write_all(&challenge).await?;
        let last = read(client).await?;
        let proof = match (exchange.finish(&last), known) {
            (Err(error @ ScramError::Malformed(_)), _) => return Err(Denied::Malformed(error)),
            (Err(ScramError::Rejected), _) | (Ok(_), None) => return Err(Denied::Rejected),
            (Ok(proof), Some((_, credential))) => (proof, credential),
        };
        let mut accepted = message::authentication(message::SASL_FINAL, proof.0.as_bytes());
        accepted.extend(message::authentication(message::OK, &[]));
        client.write_all(&accepted).await?;
        Ok(proof.1.clone())
    }

    /// The same for the same name every time, as a true one would be.
    fn mock(&self, user: &str) -> Verifier {
        let of = |what: &[u8]| mac(&self.0.mock_key, &[what, user.as_bytes()]);
        let salt = of(b"salt ").into_iter().take(SALT_BYTES).collect();
        Verifier { iterations: MOCK_ITERATIONS, salt, stored_key: of(b"stored "), server_key: of(b"server ") }
    }
}

/// One message of a client's proof.
async fn read(client: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Denied> {
    let mut head = [0; 5];
    client.read_exact(&mut head).await?;
    let [kind, length @ ..] = head;
    let body = (u32::from_be_bytes(length) as usize).checked_sub(4).filter(|body| *body <= MESSAGE_BYTES_MAX);
    let (b'p', Some(body)) = (kind, body) else {
        return Err(Denied::Malformed(ScramError::Malformed("another message, or one too long")));
    };
    let mut bytes = vec![0; body];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The mechanism's own bytes of a SASLInitialResponse.
fn initial_response(body: &[u8]) -> Result<&[u8], ScramError> {
    let zero = body.iter().position(|byte| *byte == 0).ok_or(ScramError::Malformed("no mechanism"))?;
    let (mechanism, rest) = body.split_at(zero);
    if mechanism != MECHANISM.as_bytes() {
        return Err(ScramError::Malformed("another mechanism"));
    }
    match rest {
        [0, a, b, c, d, said @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == said.len() => Ok(said),
        _ => Err(ScramError::Malformed("no initial response")),
    }
}

/// Random bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    fn account(name: &str) -> Account {
        Account { name: name.to_owned(), password: format!("{name}'s password") }
    }

    fn guard() -> Guard {
        Guard::new(&account("app"), &EpochSecret::new("shared"), &account("reader")).unwrap()
    }

    async fn said(far: &mut tokio::io::DuplexStream) -> (u32, Vec<u8>) {
        let mut head = [0; 9];
        far.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize - 8];
        far.read_exact(&mut body).await.unwrap();
        (u32::from_be_bytes(head[5..].try_into().unwrap()), body)
    }

    /// What a client that gives this password for this user sees of the challenge, and how it ends.
    async fn outcome(guard: &Guard, user: &str, password: &str) -> (String, Result<Credential, Denied>) {
        let (mut far, mut near) = tokio::io::duplex(4_096);
        let talking = async {
            assert_eq!(said(&mut far).await.0, message::SASL);
            let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
            let mut body = [MECHANISM.as_bytes(), b"\0"].concat();
            body.extend((scram.message().len() as u32).to_be_bytes());
            body.extend(scram.message());
            far.write_all(&message::frame(b'p', &body)).await.unwrap();
            let (_, challenge) = said(&mut far).await;
            scram.update(&challenge).unwrap();
            far.write_all(&message::frame(b'p', scram.message())).await.unwrap();
            String::from_utf8(challenge).unwrap()
        };
        tokio::join!(talking, guard.authenticate(&mut near, user))
    }

    #[tokio::test]
    async fn a_known_role_gets_in_with_its_own_password_and_goes_on_with_another() {
        let guard = guard();
        let (_, app) = outcome(&guard, "app", "app's password").await;
        let route = Route::Writer(isles_model::Epoch(3));
        let password = app.unwrap().password(&route).unwrap();
        assert_eq!(password, EpochSecret::new("shared").app_password(isles_model::Epoch(3)));
        let (_, wrong) = outcome(&guard, "app", "reader's password").await;
        assert!(matches!(wrong, Err(Denied::Rejected)));
    }

    #[tokio::test]
    async fn a_role_that_does_not_exist_is_asked_like_one_that_does() {
        let guard = guard();
        let shape = |challenge: &str| {
            let fields: Vec<_> =
                challenge.split(',').map(|field| (field[..2].to_owned(), field.len())).collect();
            (fields, challenge.split(',').nth(1).unwrap().to_owned())
        };
        let (known, _) = outcome(&guard, "app", "guess").await;
        let (unknown, ended) = outcome(&guard, "nobody", "guess").await;
        assert!(matches!(ended, Err(Denied::Rejected)));
        assert_eq!(shape(&known).0, shape(&unknown).0);
        let (again, _) = outcome(&guard, "nobody", "another guess").await;
        assert_eq!(shape(&unknown).1, shape(&again).1, "its salt stays the same");
    }

    #[tokio::test]
    async fn a_message_that_is_no_proof_or_too_long_is_refused() {
        let long = message::frame(b'p', &vec![b'a'; MESSAGE_BYTES_MAX + 1]);
        let cleartext = message::frame(b'p', b"app's password\0");
        for message in [long, cleartext, message::frame(b'Q', b"SELECT 1\0"), b"p\0\0\0\0".to_vec()] {
            let (mut far, mut near) = tokio::io::duplex(4_096);
            far.write_all(&message).await.unwrap();
            let ended = guard().authenticate(&mut near, "app").await;
            assert!(matches!(ended, Err(Denied::Malformed(_))));
        }
    }
}
