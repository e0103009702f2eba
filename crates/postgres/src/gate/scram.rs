//! Checks that a client knows a password, without it ever crossing the wire: the server's half of SCRAM-SHA-256.
//!
//! RFC 5802 sections 3, 5 and 7, RFC 7677; PostgreSQL, chapter 55.3. No channel binding: the gate stands on the
//! app's own machine and speaks no TLS. Pure: what came in, what goes out.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::verifier::{Verifier, mac};

/// The one mechanism offered.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";
/// The longest message taken from a client, in bytes: PostgreSQL's own `PG_MAX_SASL_MESSAGE_LENGTH`.
pub(super) const MESSAGE_BYTES_MAX: usize = 1_024;

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    /// It does not speak the mechanism.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// It speaks it, and does not know the password.
    #[error("the password does not fit")]
    Rejected,
}

/// An exchange whose first message has been answered.
pub(super) struct Exchange<'a> {
    verifier: &'a Verifier,
    /// What the client's last message must repeat as `c=`.
    binding: &'static str,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

impl<'a> Exchange<'a> {
    /// Takes the client's first message; `nonce` is the server's own part, fresh and unguessable.
    pub(super) fn begin(
        verifier: &'a Verifier,
        client_first: &[u8],
        nonce: &str,
    ) -> Result<Self, ScramError> {
        let text = printable(client_first)?;
        let (binding, rest) = match text.split_at_checked(2) {
            Some(("n,", rest)) => ("biws", rest),
            // The client could bind a channel and believes that this server cannot: so it is.
            Some(("y,", rest)) => ("eSws", rest),
            Some(("p=", _)) => return Err(ScramError::Malformed("channel binding without TLS")),
            _ => return Err(ScramError::Malformed("no GS2 header")),
        };
        let bare = rest.strip_prefix(',').ok_or(ScramError::Malformed("an authorization identity"))?;
        // PostgreSQL takes the user from the start-up packet and ignores the one here.
        let mut attributes = bare.split(',');
        let user = attributes.next().is_some_and(|name| name.starts_with("n="));
        let theirs = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).filter(|n| !n.is_empty());
        let (true, Some(theirs)) = (user, theirs) else {
            return Err(ScramError::Malformed("no user or no nonce"));
        };
        let nonce = format!("{theirs}{nonce}");
        let salt = STANDARD.encode(&verifier.salt);
        Ok(Self {
            verifier,
            binding,
            client_first_bare: bare.to_owned(),
            server_first: format!("r={nonce},s={salt},i={}", verifier.iterations),
            nonce,
        })
    }

    /// The server's first message.
    pub(super) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's last message and returns the server's, which proves that it has the verifier.
    pub(super) fn finish(&self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = printable(client_final)?;
        let (bare, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = bare.split(',');
        let binding = attributes.next().and_then(|binding| binding.strip_prefix("c="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        if binding != Some(self.binding) || nonce != Some(&self.nonce) {
            return Err(ScramError::Malformed("another binding or nonce than before"));
        }
        let proof: [u8; 32] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Malformed("the proof is not 32 bytes"))?;
        let said: [&[u8]; 5] =
            [self.client_first_bare.as_bytes(), b",", self.server_first.as_bytes(), b",", bare.as_bytes()];
        let mut client_key = mac(&self.verifier.stored_key, &said);
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        if !same(&Sha256::digest(client_key), &self.verifier.stored_key) {
            return Err(ScramError::Rejected);
        }
        Ok(format!("v={}", STANDARD.encode(mac(&self.verifier.server_key, &said))))
    }
}

/// Compares without telling by its time where two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b))) == 0
}

fn printable(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message)
        .ok()
        .filter(|text| !text.contains(char::is_control))
        .ok_or(ScramError::Malformed("not printable"))
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 7677 section 3.
    #[test]
    fn the_example_of_the_standard_comes_out() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::with_salt("pencil", salt, 4_096);
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let exchange = Exchange::begin(&verifier, first, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(
            exchange.server_first(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.finish(last).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    fn outcome(stored: &str, given: &str, binding: ChannelBinding) -> Result<(), ScramError> {
        let verifier = Verifier::of_password(stored);
        let mut client = ScramSha256::new(given.as_bytes(), binding);
        let exchange = Exchange::begin(&verifier, client.message(), "nonce").unwrap();
        client.update(exchange.server_first().as_bytes()).unwrap();
        let last = exchange.finish(client.message())?;
        client.finish(last.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn a_client_gets_in_with_its_own_password_only() {
        assert_eq!(outcome("pa ss", "pa ss", ChannelBinding::unsupported()), Ok(()));
        assert_eq!(outcome("pa ss", "pa ss", ChannelBinding::unrequested()), Ok(()));
        assert_eq!(outcome("\u{2168}", "IX", ChannelBinding::unsupported()), Ok(()), "prepared by RFC 4013");
        let wrong = outcome("pa ss", "pa st", ChannelBinding::unsupported());
        assert_eq!(wrong, Err(ScramError::Rejected));
    }

    #[test]
    fn what_is_not_the_mechanism_is_malformed() {
        let verifier = Verifier::of_password("pencil");
        for first in
            ["", "n", "p=tls-unique,,n=,r=a", "n,a=me,n=,r=a", "n,,n=", "n,,r=a", "n,,n=,r=", "n,,m=x,n=,r=a"]
        {
            let refused = Exchange::begin(&verifier, first.as_bytes(), "b");
            assert!(matches!(refused, Err(ScramError::Malformed(_))), "{first}");
        }
        let exchange = Exchange::begin(&verifier, b"n,,n=,r=a", "b").unwrap();
        for last in [
            "",
            "c=biws,r=ab",
            "c=eSws,r=ab,p=AA==",
            "c=biws,r=a,p=AA==",
            "c=biws,r=ab,p=AA==",
            "c=biws,r=ab,p=!",
        ] {
            assert!(matches!(exchange.finish(last.as_bytes()), Err(ScramError::Malformed(_))), "{last}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_may_be_said(first: Vec<u8>, last: Vec<u8>, tail: String) {
            let verifier = Verifier::with_salt("pencil", vec![1], 1);
            let _ = Exchange::begin(&verifier, &first, "b").map(|_| ());
            let _ = Exchange::begin(&verifier, format!("n,,{tail}").as_bytes(), "b").map(|_| ());
            let exchange = Exchange::begin(&verifier, b"n,,n=,r=a", "b").unwrap();
            prop_assert!(exchange.finish(&last).is_err());
            let proof = format!("c=biws,r=ab,p={tail}");
            prop_assert!(exchange.finish(proof.as_bytes()).is_err());
        }
    }
}
