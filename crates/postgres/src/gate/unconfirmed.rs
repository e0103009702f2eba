//! Notices a commit that was let go before another region had confirmed it, so that its client is not told of success.
//!
//! A statement that is cancelled while its commit waits for a synchronous standby ends with a warning and success: the
//! commit is on this disk, and may be nowhere else (PostgreSQL, chapter 27.2.8.3). With `commit: remote` that is no acknowledgement. The warning is known by the routine that it comes from,
//! which no language setting changes.

use super::frame::{Frames, Piece};

/// Field `R` of the warning (PostgreSQL, chapter 55.8), with its closing zero.
const ROUTINE: &[u8] = b"RSyncRepWaitForLSN\0";

/// The most bytes kept of one notice; the warning has about 200.
const NOTICE_BYTES_MAX: usize = 4 * 1024;

/// Looks for the warning among a database's messages.
#[derive(Default)]
pub(super) struct Unconfirmed {
    frames: Frames,
    is_notice: bool,
    notice: Vec<u8>,
}

impl Unconfirmed {
    /// Of a session whose database has said this already.
    pub(super) fn after(said: &[u8]) -> Self {
        let mut unconfirmed = Self::default();
        unconfirmed.frames.pass(said, |_| {});
        unconfirmed
    }

    /// Whether these bytes of the database end a warning that a commit is not confirmed.
    pub(super) fn is_in(&mut self, bytes: &[u8]) -> bool {
        let Self { frames, is_notice, notice } = self;
        let mut found = false;
        frames.pass(bytes, |piece| match piece {
            Piece::Head(kind) => {
                *is_notice = kind == b'N';
                notice.clear();
            }
            Piece::Body(body) if *is_notice && notice.len() + body.len() <= NOTICE_BYTES_MAX => {
                notice.extend_from_slice(body);
            }
            Piece::Body(_) => {}
            Piece::End => found |= *is_notice && names_routine(notice),
        });
        found
    }
}

fn names_routine(fields: &[u8]) -> bool {
    // A field begins after the closing zero of the one before, so that no text of another field looks like it.
    fields.windows(ROUTINE.len() + 1).any(|window| window[0] == 0 && window[1..] == *ROUTINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::message::frame;

    fn notice(routine: &str) -> Vec<u8> {
        let fields = format!("SWARNING\0C01000\0Mcanceling wait\0Fsyncrep.c\0L345\0R{routine}\0\0");
        frame(b'N', fields.as_bytes())
    }

    #[test]
    fn the_warning_is_noticed_however_it_is_cut() {
        let bytes =
            [frame(b'C', b"INSERT 0 1\0"), notice("SyncRepWaitForLSN"), frame(b'C', b"COMMIT\0")].concat();
        for cut in 0..=bytes.len() {
            let mut unconfirmed = Unconfirmed::default();
            let found = [unconfirmed.is_in(&bytes[..cut]), unconfirmed.is_in(&bytes[cut..])];
            assert_eq!(found.iter().filter(|found| **found).count(), 1, "cut at {cut}");
        }
    }

    #[test]
    fn other_notices_and_rows_that_say_the_same_are_not_it() {
        let mut unconfirmed = Unconfirmed::default();
        assert!(!unconfirmed.is_in(&notice("exec_simple_query")));
        assert!(!unconfirmed.is_in(&frame(b'D', b"\0RSyncRepWaitForLSN\0")));
        assert!(!unconfirmed.is_in(&frame(b'N', b"SNOTICE\0MRSyncRepWaitForLSN\0\0")));
        assert!(!unconfirmed.is_in(&frame(b'N', &[7; 10_000])));
        assert!(unconfirmed.is_in(&notice("SyncRepWaitForLSN")));
    }
}
