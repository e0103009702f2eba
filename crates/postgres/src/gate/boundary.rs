//! Follows where PostgreSQL's messages end in the bytes given to a client, so that the gate can put in a word of
//! its own there; and picks up the key with which that client may cancel.
//!
//! Looks at five bytes of each message and at no content (PostgreSQL, chapter 55.1.1).

use super::opening::CancelKey;

/// The longest BackendKeyData body kept, in bytes.
const KEY_BYTES_MAX: usize = 260;
const BACKEND_KEY_DATA: u8 = b'K';

/// How far the present message has been passed on.
#[derive(Default)]
pub(super) struct Boundary {
    head: [u8; 5],
    head_bytes: usize,
    body_left: usize,
    key: Option<Vec<u8>>,
    lost: bool,
}

impl Boundary {
    /// Is everything passed on so far whole messages?
    pub(super) fn between_messages(&self) -> bool {
        !self.lost && self.head_bytes == 0 && self.body_left == 0
    }

    /// Notes that `bytes` were passed on; returns a cancel key that became complete with them.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Option<CancelKey> {
        let mut complete = None;
        while !bytes.is_empty() && !self.lost {
            if self.body_left == 0 {
                bytes = self.pass_head(bytes);
            } else {
                bytes = self.pass_body(bytes);
            }
            if self.body_left == 0 && self.head_bytes == 0 {
                complete = self.key.take().and_then(|body| CancelKey::new(&body)).or(complete);
            }
        }
        complete
    }

    fn pass_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let taken = bytes.len().min(self.head.len() - self.head_bytes);
        let (head, rest) = bytes.split_at(taken);
        self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(head);
        self.head_bytes += taken;
        if self.head_bytes == self.head.len() {
            self.head_bytes = 0;
            let [kind, length @ ..] = self.head;
            match (u32::from_be_bytes(length) as usize).checked_sub(4) {
                Some(body) => {
                    self.body_left = body;
                    self.key = (kind == BACKEND_KEY_DATA && body <= KEY_BYTES_MAX).then(Vec::new);
                }
                None => self.lost = true,
            }
        }
        rest
    }

    fn pass_body<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (body, rest) = bytes.split_at(bytes.len().min(self.body_left));
        self.body_left -= body.len();
        if let Some(key) = &mut self.key {
            key.extend(body);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_key_is_picked_up_however_the_bytes_are_cut() {
        let bytes = [message(b'R', &[0; 4]), message(b'K', b"\0\0\0\x07abcd"), message(b'Z', b"I")].concat();
        for cut in 0..=bytes.len() {
            let mut boundary = Boundary::default();
            let first = boundary.pass(&bytes[..cut]);
            let second = boundary.pass(&bytes[cut..]);
            assert!(first.or(second) == CancelKey::new(b"\0\0\0\x07abcd"), "cut at {cut}");
            assert!(boundary.between_messages());
        }
    }

    #[test]
    fn the_gate_has_no_word_inside_a_message_or_after_nonsense() {
        let mut boundary = Boundary::default();
        boundary.pass(&message(b'D', b"row")[..6]);
        assert!(!boundary.between_messages());
        let mut boundary = Boundary::default();
        boundary.pass(b"HTTP\0\0");
        boundary.pass(b"D\0\0\0\x01");
        assert!(!boundary.between_messages());
    }

    proptest! {
        #[test]
        fn any_cut_of_any_messages_is_followed(bodies: Vec<Vec<u8>>, cuts: Vec<usize>) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'D', body)).collect();
            let mut boundary = Boundary::default();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                boundary.pass(now);
                rest = later;
            }
            boundary.pass(rest);
            prop_assert!(boundary.between_messages());
        }

        #[test]
        fn any_bytes_may_be_passed(bytes: Vec<u8>) {
            Boundary::default().pass(&bytes);
        }
    }
}
