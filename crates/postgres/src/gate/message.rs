//! Writes the few messages that the gate says itself, and takes apart those it must understand.
//!
//! PostgreSQL, chapter 55.7 (message formats).

/// AuthenticationOk.
pub(super) const OK: u32 = 0;
/// AuthenticationSASL.
pub(super) const SASL: u32 = 10;
/// AuthenticationSASLContinue.
pub(super) const SASL_CONTINUE: u32 = 11;
/// AuthenticationSASLFinal.
pub(super) const SASL_FINAL: u32 = 12;

/// A whole message: its letter, its length, its body.
pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(kind);
    bytes.extend(u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// An authentication message of the server.
pub(super) fn authentication(kind: u32, rest: &[u8]) -> Vec<u8> {
    frame(b'R', &[&kind.to_be_bytes(), rest].concat())
}

/// The first zero-ended text of a body, and what follows it.
pub(super) fn text(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = body.iter().position(|byte| *byte == 0)?;
    Some((&body[..zero], &body[zero + 1..]))
}

/// The number an authentication message begins with, and what follows it.
pub(super) fn number(body: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = body.split_first_chunk()?;
    Some((u32::from_be_bytes(*head), rest))
}
