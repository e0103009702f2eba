//! Follows where messages begin and end in a stream of bytes, however it is cut, without keeping any of it.
//!
//! PostgreSQL, chapter 55.1.1: a letter, a length that counts itself, a body.

/// A part of a message, in order: a head, any number of bodies, an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A message of this letter begins.
    Head(u8),
    /// More of its body.
    Body(&'a [u8]),
    /// It is whole.
    End,
}

/// How far the present message has come.
#[derive(Clone, Default)]
pub(super) struct Frames {
    head: [u8; 5],
    head_bytes: usize,
    body_left: usize,
    lost: bool,
}

impl Frames {
    /// Is everything so far whole messages?
    pub(super) fn between_messages(&self) -> bool {
        !self.lost && self.head_bytes == 0 && self.body_left == 0
    }

    /// Follows more bytes and shows them to `see`. After a length that cannot be, nothing is shown any more.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut see: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() && !self.lost {
            bytes = self.step(bytes, &mut see);
        }
    }

    /// How many of `bytes` come before the first message of letter `before`, or up to the end of the first of letter
    /// `through`.
    pub(super) fn prefix(&self, bytes: &[u8], before: Option<u8>, through: Option<u8>) -> usize {
        let mut ahead = self.clone();
        let mut rest = bytes;
        while !rest.is_empty() && !ahead.lost {
            if ahead.between_messages() && before == rest.first().copied() {
                break;
            }
            let mut ended = false;
            rest = ahead.step(rest, &mut |piece| ended |= piece == Piece::End);
            if ended && through == Some(ahead.head[0]) {
                break;
            }
        }
        if ahead.lost { bytes.len() } else { bytes.len() - rest.len() }
    }

    /// Follows a head or a body, as far as it goes.
    fn step<'a>(&mut self, bytes: &'a [u8], see: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        if self.body_left > 0 {
            let (body, rest) = bytes.split_at(bytes.len().min(self.body_left));
            self.body_left -= body.len();
            see(Piece::Body(body));
            if self.body_left == 0 {
                see(Piece::End);
            }
            return rest;
        }
        let (head, rest) = bytes.split_at(bytes.len().min(self.head.len() - self.head_bytes));
        self.head[self.head_bytes..self.head_bytes + head.len()].copy_from_slice(head);
        self.head_bytes += head.len();
        if self.head_bytes == self.head.len() {
            self.head_bytes = 0;
            let [kind, length @ ..] = self.head;
            match (u32::from_be_bytes(length) as usize).checked_sub(4) {
                Some(body) => {
                    self.body_left = body;
                    see(Piece::Head(kind));
                    if body == 0 {
                        see(Piece::End);
                    }
                }
                None => self.lost = true,
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::message::frame;

    /// Every whole message seen in the chunks.
    fn seen(chunks: &[&[u8]]) -> (Vec<(u8, Vec<u8>)>, Frames) {
        let (mut frames, mut messages, mut now) = (Frames::default(), Vec::new(), (0, Vec::new()));
        for chunk in chunks {
            frames.pass(chunk, |piece| match piece {
                Piece::Head(kind) => now = (kind, Vec::new()),
                Piece::Body(body) => now.1.extend(body),
                Piece::End => messages.push(now.clone()),
            });
        }
        (messages, frames)
    }

    #[test]
    fn messages_are_the_same_however_their_bytes_are_cut() {
        let bytes = [frame(b'S', b""), frame(b'Q', b"SELECT 1\0"), frame(b'X', b"")].concat();
        let whole = vec![(b'S', vec![]), (b'Q', b"SELECT 1\0".to_vec()), (b'X', vec![])];
        for cut in 0..=bytes.len() {
            let (messages, frames) = seen(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(messages, whole, "cut at {cut}");
            assert!(frames.between_messages());
        }
    }

    #[test]
    fn inside_a_message_or_after_nonsense_no_message_ends() {
        let (_, inside) = seen(&[&frame(b'D', b"row")[..6]]);
        assert!(!inside.between_messages());
        let (messages, lost) = seen(&[b"D\0\0\0\x01", &frame(b'Z', b"I")]);
        assert!(!lost.between_messages() && messages.is_empty());
    }

    #[test]
    fn a_length_of_four_gigabytes_keeps_no_byte() {
        let (messages, frames) = seen(&[b"d\xff\xff\xff\xff", &[7; 1_000]]);
        assert!(messages.is_empty() && !frames.between_messages());
    }

    #[test]
    fn a_prefix_ends_before_one_letter_or_after_another() {
        let frames = Frames::default();
        let (row, ready, error) = (frame(b'D', b"row"), frame(b'Z', b"I"), frame(b'E', b"SFATAL\0\0"));
        let bytes = [row.clone(), ready.clone(), error.clone()].concat();
        let answer = row.len() + ready.len();
        assert_eq!(frames.prefix(&bytes, None, Some(b'Z')), answer);
        assert_eq!(frames.prefix(&bytes, Some(b'E'), None), answer);
        assert_eq!(frames.prefix(&error[..1], Some(b'E'), None), 0);
        assert_eq!(frames.prefix(&bytes[..answer - 1], None, Some(b'Z')), answer - 1);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_cuts_are_followed(chunks: Vec<Vec<u8>>) {
            let mut frames = Frames::default();
            for chunk in &chunks {
                prop_assert!(frames.prefix(chunk, Some(b'E'), Some(b'Z')) <= chunk.len());
                frames.pass(chunk, |_| {});
            }
        }

        #[test]
        fn any_messages_in_any_cuts_are_the_same(bodies: Vec<Vec<u8>>, size in 1_usize..9) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(b'D', body)).collect();
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            let (messages, frames) = seen(&chunks);
            prop_assert!(frames.between_messages());
            prop_assert_eq!(messages.into_iter().map(|(_, body)| body).collect::<Vec<_>>(), bodies);
        }
    }
}
