//! Overhears what a database says to a session: what its client must not be told yet, or not at all.
//!
//! **An unconfirmed commit.** A statement that is cancelled while its commit waits for a synchronous standby ends with
//! a warning and success: the commit is on this disk, and may be nowhere else (PostgreSQL, chapter 27.2.8.3). With
//! `commit: remote` that is no acknowledgement. The warning is known by the routine that it comes from, which no
//! language setting changes.
//!
//! **A commit that may have made or changed a table**: a table that a standby lacks is one whose rows it lacks, though
//! it confirms the log that they are in (see [`Coverage`](crate::Coverage)). Known by the command tags. `CREATE TABLE
//! AS` and `SELECT INTO` are tagged as a SELECT is, but send no rows.

use super::frame::{Frames, Piece};

/// Field `R` of the warning (PostgreSQL, chapter 55.8), with its closing zero.
const ROUTINE: &[u8] = b"RSyncRepWaitForLSN\0";

/// The most bytes kept of one message; the warning has about 200, a command tag fewer.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// Tags of commands that can make, rename or change a table. A procedure or a DO block can do anything.
const MAKES_TABLES: &[&[u8]] = &[
    b"CREATE TABLE",
    b"CREATE TABLE AS",
    b"ALTER TABLE",
    b"CREATE SCHEMA",
    b"ALTER SCHEMA",
    b"CALL",
    b"DO",
    b"COMMIT PREPARED",
];

/// What some bytes of the database meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Heard {
    /// A commit was let go that no other region has confirmed.
    pub(super) unconfirmed: bool,
    /// A transaction that may have made or changed a table has ended.
    pub(super) tables: bool,
}

/// Listens to a database's messages.
#[derive(Default)]
pub(super) struct Overheard {
    frames: Frames,
    answer: Answer,
}

/// What is known of the present answer.
#[derive(Default)]
struct Answer {
    kind: u8,
    kept: Vec<u8>,
    /// Inside a transaction block, as the database last said.
    in_block: bool,
    /// A command of the transaction under way may have made a table.
    made_tables: bool,
    /// Rows, or their description, have come since the last command tag.
    rows: bool,
    described: bool,
}

impl Overheard {
    /// Of a session whose database has said this already.
    pub(super) fn after(said: &[u8]) -> Self {
        let mut overheard = Self::default();
        overheard.hear(said);
        overheard
    }

    /// What these bytes of the database end.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Heard {
        let Self { frames, answer } = self;
        let mut heard = Heard::default();
        frames.pass(bytes, |piece| match piece {
            Piece::Head(kind) => answer.begin(kind),
            Piece::Body(body) => answer.keep(body),
            Piece::End => match answer.kind {
                b'N' => heard.unconfirmed |= names_routine(&answer.kept),
                b'C' => heard.tables |= answer.completed(),
                b'Z' => heard.tables |= answer.ready(),
                _ => {}
            },
        });
        heard
    }
}

impl Answer {
    fn begin(&mut self, kind: u8) {
        self.kind = kind;
        self.kept.clear();
        match kind {
            b'D' => self.rows = true,
            // A description of rows; or an answer to Bind, after which rows are described only if that is asked for.
            b'T' | b'2' => self.described = true,
            _ => {}
        }
    }

    fn keep(&mut self, body: &[u8]) {
        if matches!(self.kind, b'N' | b'C' | b'Z') && self.kept.len() + body.len() <= KEPT_BYTES_MAX {
            self.kept.extend_from_slice(body);
        }
    }

    /// A command has ended. Says whether it may have committed a table.
    fn completed(&mut self) -> bool {
        let tag = self.kept.strip_suffix(&[0]).unwrap_or(&self.kept);
        let silent = tag.starts_with(b"SELECT ") && !self.rows && !(self.described && tag == b"SELECT 0");
        let makes = MAKES_TABLES.contains(&tag) || silent;
        self.made_tables |= makes;
        self.rows = false;
        self.described = false;
        // Outside a block a command of its own is committed before its tag is sent.
        self.made_tables && (tag == b"COMMIT" || (makes && !self.in_block))
    }

    /// The request has ended. Says whether a transaction that may have made a table has ended with it.
    fn ready(&mut self) -> bool {
        self.in_block = self.kept.first() != Some(&b'I');
        self.rows = false;
        self.described = false;
        !self.in_block && std::mem::take(&mut self.made_tables)
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

    fn tag(tag: &str) -> Vec<u8> {
        frame(b'C', format!("{tag}\0").as_bytes())
    }

    fn ready(status: &[u8]) -> Vec<u8> {
        frame(b'Z', status)
    }

    /// Which of these messages end a transaction that may have made a table.
    fn check(messages: &[Vec<u8>], expect: &[usize]) {
        let mut overheard = Overheard::default();
        let ends = messages.iter().map(|message| overheard.hear(message).tables);
        let found: Vec<usize> = ends.enumerate().filter_map(|(at, ends)| ends.then_some(at)).collect();
        assert_eq!(found, expect, "{messages:?}");
    }

    #[test]
    fn the_warning_is_noticed_however_it_is_cut() {
        let bytes =
            [frame(b'C', b"INSERT 0 1\0"), notice("SyncRepWaitForLSN"), frame(b'C', b"COMMIT\0")].concat();
        for cut in 0..=bytes.len() {
            let mut overheard = Overheard::default();
            let found = [overheard.hear(&bytes[..cut]), overheard.hear(&bytes[cut..])];
            assert_eq!(found.iter().filter(|found| found.unconfirmed).count(), 1, "cut at {cut}");
        }
    }

    #[test]
    fn other_notices_and_rows_that_say_the_same_are_not_it() {
        let mut overheard = Overheard::default();
        let mut is_in = |bytes: &[u8]| overheard.hear(bytes).unconfirmed;
        assert!(!is_in(&notice("exec_simple_query")));
        assert!(!is_in(&frame(b'D', b"\0RSyncRepWaitForLSN\0")));
        assert!(!is_in(&frame(b'N', b"SNOTICE\0MRSyncRepWaitForLSN\0\0")));
        assert!(!is_in(&frame(b'N', &[7; 10_000])));
        assert!(is_in(&notice("SyncRepWaitForLSN")));
    }

    #[test]
    fn a_table_made_outside_a_block_counts_at_its_own_tag() {
        check(&[tag("CREATE TABLE"), ready(b"I"), tag("INSERT 0 1"), ready(b"I")], &[0, 1]);
        check(&[tag("UPDATE 1"), ready(b"I"), tag("DROP TABLE"), ready(b"I")], &[]);
        check(&[tag("DO"), ready(b"I")], &[0, 1]);
    }

    #[test]
    fn a_table_made_in_a_transaction_counts_when_that_is_committed() {
        let block = [tag("BEGIN"), ready(b"T"), tag("CREATE TABLE"), ready(b"T"), tag("INSERT 0 1")];
        let end = [ready(b"T"), tag("COMMIT"), ready(b"I"), tag("INSERT 0 1"), ready(b"I")];
        check(&[block.to_vec(), end.to_vec()].concat(), &[6, 7]);
    }

    #[test]
    fn a_select_that_sends_no_rows_has_made_a_table_of_them() {
        let described = frame(b'T', b"");
        check(&[described.clone(), frame(b'D', b""), tag("SELECT 1"), ready(b"I")], &[]);
        check(&[described, tag("SELECT 0"), ready(b"I")], &[]);
        check(&[frame(b'2', b""), tag("SELECT 0"), ready(b"I")], &[]);
        check(&[tag("SELECT 0"), ready(b"I")], &[0, 1]);
        check(&[frame(b'2', b""), tag("SELECT 5"), ready(b"I")], &[1, 2]);
    }
}
