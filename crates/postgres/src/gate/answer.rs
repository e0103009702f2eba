//! Speaks for the gate in PostgreSQL's own words: one FATAL ErrorResponse, with a code drivers know how to treat.
//!
//! PostgreSQL, chapter 55.7 (message formats) and appendix A (SQLSTATE codes).

/// The longest first answer examined, in bytes; a longer one is passed on unread.
pub(super) const FIRST_ANSWER_BYTES_MAX: usize = 8 * 1024;

/// A gate's refusal, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// SQLSTATE.
    pub(super) code: &'static str,
    /// What happened.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: &'static str,
}

/// `cannot_connect_now`: drivers and pools try again later.
pub(super) const CANNOT_CONNECT_NOW: &str = "57P03";
/// `admin_shutdown`: drivers and pools drop the connection and open another.
pub(super) const ADMIN_SHUTDOWN: &str = "57P01";
/// `statement_completion_unknown`.
pub(super) const COMPLETION_UNKNOWN: &str = "40003";
/// `crash_shutdown`.
const CRASH_SHUTDOWN: &str = "57P02";
/// `too_many_connections`.
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";
/// `invalid_password`.
pub(super) const INVALID_PASSWORD: &str = "28P01";
/// `invalid_authorization_specification`.
pub(super) const INVALID_AUTHORIZATION: &str = "28000";
/// `protocol_violation`.
pub(super) const PROTOCOL_VIOLATION: &str = "08P01";
/// Said by a peer gate to a write gate, never to an app: this region may not write. (Classes that begin with I to
/// Z are free for implementations, ISO 9075-2 subclause 24.1.)
pub(super) const NOT_THE_WRITER: &str = "IS001";

impl Refusal {
    /// The ErrorResponse: `E`, length, then fields, each with its letter and a closing zero.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(256);
        let texts =
            [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', self.code), (b'M', &self.message), (b'H', self.hint)];
        for (letter, text) in texts {
            fields.push(letter);
            fields.extend(text.bytes().filter(|byte| *byte != 0));
            fields.push(0);
        }
        fields.push(0);
        let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(fields.len() + 5);
        bytes.push(b'E');
        bytes.extend(length.to_be_bytes());
        bytes.extend(fields);
        bytes
    }
}

/// What a database's refusal of a login means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing for the app, which has proved who it is: the database is starting or ending, its fence is shut, or
    /// it expects the credential of another epoch. By SQLSTATE.
    NotNow(String),
    /// The app's own business: no such database, too many connections.
    Final,
}

/// The database does not let the role in at all (`invalid_authorization_specification`, `invalid_password`,
/// `insufficient_privilege`): so it looks behind a fence.
const FENCED: [&str; 3] = [INVALID_AUTHORIZATION, INVALID_PASSWORD, "42501"];
const TURNED_AWAY: [&str; 4] = [NOT_THE_WRITER, CANNOT_CONNECT_NOW, ADMIN_SHUTDOWN, CRASH_SHUTDOWN];

/// Whether a SQLSTATE says that the server itself is ending or starting.
pub(super) fn is_shutdown(code: &str) -> bool {
    TURNED_AWAY.contains(&code)
}

/// Reads the fields of an ErrorResponse to a login of the gate.
pub(super) fn verdict(fields: &[u8]) -> Verdict {
    match code(fields) {
        Some(code) if TURNED_AWAY.contains(&code) || FENCED.contains(&code) => {
            Verdict::NotNow(code.to_owned())
        }
        _ => Verdict::Final,
    }
}

/// What the first bytes of a server's answer mean for a session that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstAnswer {
    /// More bytes are needed to tell.
    Incomplete,
    /// The server talks to the app: pass everything on.
    Session,
    /// The server cannot take a session just now; the app has seen nothing of it and the gate may try again.
    NotNow,
}

/// Reads the head of a server's answer to a startup packet.
pub(super) fn first_answer(bytes: &[u8]) -> FirstAnswer {
    match bytes {
        [] => FirstAnswer::Incomplete,
        [b'E', a, b, c, d, rest @ ..] => {
            let body = u32::from_be_bytes([*a, *b, *c, *d]).saturating_sub(4) as usize;
            if body > FIRST_ANSWER_BYTES_MAX {
                return FirstAnswer::Session;
            }
            match rest.get(..body) {
                None => FirstAnswer::Incomplete,
                Some(fields) => match code(fields) {
                    Some(code) if TURNED_AWAY.contains(&code) => FirstAnswer::NotNow,
                    _ => FirstAnswer::Session,
                },
            }
        }
        [b'E', ..] => FirstAnswer::Incomplete,
        _ => FirstAnswer::Session,
    }
}

fn code(fields: &[u8]) -> Option<&str> {
    let field = fields.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'))?;
    std::str::from_utf8(field.get(1..)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(code: &'static str) -> Vec<u8> {
        Refusal { code, message: "no".into(), hint: "wait" }.bytes()
    }

    #[test]
    fn a_refusal_of_a_peer_gate_is_told_from_an_answer_for_the_app() {
        let check = |bytes: &[u8], expect| assert_eq!(first_answer(bytes), expect, "{bytes:?}");
        check(&refusal(NOT_THE_WRITER), FirstAnswer::NotNow);
        check(&refusal(CANNOT_CONNECT_NOW), FirstAnswer::NotNow);
        check(&refusal("28P01"), FirstAnswer::Session);
        check(b"R\0\0\0\x08\0\0\0\0", FirstAnswer::Session);
        check(b"", FirstAnswer::Incomplete);
        let whole = refusal(NOT_THE_WRITER);
        for end in 1..whole.len() {
            check(&whole[..end], FirstAnswer::Incomplete);
        }
    }

    #[test]
    fn a_zero_inside_a_message_does_not_end_the_field() {
        let bytes = Refusal { code: "57P03", message: "a\0b".into(), hint: "" }.bytes();
        assert!(bytes.windows(4).any(|four| four == b"Mab\0"));
    }

    proptest! {
        #[test]
        fn any_bytes_may_answer(bytes: Vec<u8>) {
            let _ = first_answer(&bytes);
            let mut error = vec![b'E'];
            error.extend(bytes);
            let _ = first_answer(&error);
        }
    }
}
