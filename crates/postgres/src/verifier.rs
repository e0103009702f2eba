//! What is kept of a password so that it can be checked and not be known: PostgreSQL's SCRAM-SHA-256 verifier.
//!
//! RFC 5802 section 3, RFC 7677; the text form is of PostgreSQL, chapter 53.8 (`pg_authid.rolpassword`).

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The most iterations accepted from a stored verifier when checking it; more would stall the agent.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Iterations for a password that is itself a key of 256 random bits: nobody guesses one, and hundreds of sessions
/// open in the moment of a failover.
const ITERATIONS_FOR_A_KEY: u32 = 1;
/// Bytes of salt, as PostgreSQL has them (`SCRAM_DEFAULT_SALT_LEN`).
pub(crate) const SALT_BYTES: usize = 16;

/// A SCRAM-SHA-256 verifier. Its text is as good as a password to a server, and is never logged.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) iterations: u32,
    pub(crate) salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub(crate) stored_key: [u8; 32],
    pub(crate) server_key: [u8; 32],
}

impl Verifier {
    /// Of a password that a person may have chosen, prepared as PostgreSQL prepares it, under a fresh salt.
    pub(crate) fn of_password(password: &str) -> Self {
        let text = postgres_protocol::password::scram_sha_256(password.as_bytes());
        Self::parse(&text).expect("the library writes the form that PostgreSQL reads")
    }

    /// Of a password that is a key of 256 bits in base64.
    pub(crate) fn of_key(key: &str, salt: [u8; SALT_BYTES]) -> Self {
        Self::with_salt(key, salt.to_vec(), ITERATIONS_FOR_A_KEY)
    }

    /// Of a password as it is.
    pub(crate) fn with_salt(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted = salted_password(password.as_bytes(), &salt, iterations);
        let stored_key = Sha256::digest(mac(&salted, &[b"Client Key"])).into();
        Self { iterations, salt, stored_key, server_key: mac(&salted, &[b"Server Key"]) }
    }

    /// Reads `SCRAM-SHA-256$iterations:salt$stored:server`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: STANDARD.decode(stored).ok()?.try_into().ok()?,
            server_key: STANDARD.decode(server).ok()?.try_into().ok()?,
        })
    }

    /// Whether it is of this password.
    pub(crate) fn is_of(&self, password: &str) -> bool {
        Self::with_salt(password, self.salt.clone(), self.iterations).stored_key == self.stored_key
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// HMAC-SHA-256 of the parts, one after the other.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `Hi` of RFC 5802 section 2.2.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut block = mac(password, &[salt, &[0, 0, 0, 1]]);
    let mut sum = block;
    for _ in 1..iterations {
        block = mac(password, &[&block]);
        for (to, from) in sum.iter_mut().zip(block) {
            *to ^= from;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_knows_its_own_password_only() {
        let text = postgres_protocol::password::scram_sha_256(b"correct horse");
        let verifier = Verifier::parse(&text).unwrap();
        assert_eq!(verifier.to_string(), text);
        assert!(verifier.is_of("correct horse"));
        assert!(!verifier.is_of("correct horsf"));
        let key = Verifier::of_key("a key", [7; SALT_BYTES]);
        assert!(key.is_of("a key") && !key.is_of("a kez"));
    }

    #[test]
    fn a_text_that_is_no_verifier_or_would_stall_the_agent_is_none() {
        for text in
            ["", "md5abcdef", "SCRAM-SHA-256$99999999:AA==$AA==:AA==", "SCRAM-SHA-256$1:AA==$AA==:AA=="]
        {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }
}
