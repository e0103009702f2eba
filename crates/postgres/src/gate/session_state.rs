//! Knows of one session, from its messages alone, whether it could go on with another backend at this moment, and
//! what that backend would have to be told first.
//!
//! A session can move while it is idle: outside a transaction, every request answered, every answer delivered. Not
//! one that is *pinned*: it has something that only its backend has. Pinned by a word of its statements or a command
//! tag: LISTEN, temporary objects, session-level advisory locks, cursors WITH HOLD, PREPARE in SQL, LOAD, DO,
//! `set_config`, `setseed`, `currval`, `lastval`, dblink; by a setting that cannot be replayed (made inside a
//! transaction, or in a text that is not certainly understood); by COPY into the database, a fast-path function call,
//! the replication protocol; by remembering more than [`PREPARED_BYTES_MAX`] or
//! [`SETTINGS_BYTES_MAX`](super::memory::SETTINGS_BYTES_MAX). `DISCARD ALL` in a message of its own unpins.
//!
//! What is not seen: a function that does one of these things inside itself under an innocent name, and names in
//! Unicode escapes. Such a session moves and lacks what it had.

use std::collections::{BTreeMap, VecDeque};

use super::{
    frame::{Frames, Piece},
    memory::{self, PREPARED_BYTES_MAX, Prepared, Settings, Statement},
    message,
    statement::{self, Act, TEXT_BYTES_MAX, Words},
};

/// The most requests of one session in flight; with more it is never moved.
const AWAITED_MAX: usize = 1_024;
/// The most bytes kept of a Bind message: two names.
const BIND_BYTES_MAX: usize = 256;
/// The most bytes kept of a message of the database.
const HEARD_BYTES_MAX: usize = 8 * 1024;
/// The most settings a database reports.
const REPORTED_MAX: usize = 64;

/// What the database has yet to answer.
enum Awaited {
    /// A Parse: name and, if it is short enough to be kept, the rest.
    Parse(Vec<u8>, Option<Statement>),
    /// A Close: of a statement, by name, or of a portal.
    Close(Option<Vec<u8>>),
    /// The end of a request.
    Ready(Request),
}

/// What is known of a request when it is sent.
#[derive(Default)]
struct Request {
    acts: Option<Vec<Act>>,
    discards_all: bool,
}

/// What was heard of the request being answered.
#[derive(Default)]
struct Progress {
    /// For each command tag that tells of an act: does it tell of a setting?
    tags: Vec<bool>,
    failed: bool,
    transaction: bool,
}

/// See the module.
pub(super) struct SessionState {
    up: Frames,
    down: Frames,
    told: Told,
    heard: (u8, Vec<u8>),
    awaited: VecDeque<Awaited>,
    batch: Option<Vec<Act>>,
    unsynced: bool,
    in_transaction: bool,
    leaving: bool,
    progress: Progress,
    prepared: Prepared,
    parsing_bytes: usize,
    /// The unnamed statement is too long to be kept.
    unkept: bool,
    settings: Settings,
    reported: BTreeMap<Vec<u8>, Vec<u8>>,
    pinned: Option<&'static str>,
    /// Messages are not followed any more.
    untracked: bool,
}

/// The client's present message.
#[derive(Default)]
struct Told {
    kind: u8,
    kept: Vec<u8>,
    keep: usize,
    whole: bool,
    words: Words,
}

impl SessionState {
    /// Of a session whose greeting is still to be delivered.
    pub(super) fn new(reported: BTreeMap<Vec<u8>, Vec<u8>>, is_replication: bool) -> Self {
        Self {
            up: Frames::default(),
            down: Frames::default(),
            told: Told::default(),
            heard: (0, Vec::new()),
            awaited: VecDeque::from([Awaited::Ready(Request::default())]),
            batch: Some(Vec::new()),
            unsynced: false,
            in_transaction: false,
            leaving: false,
            progress: Progress::default(),
            prepared: Prepared::default(),
            parsing_bytes: 0,
            unkept: false,
            settings: Settings::default(),
            reported,
            pinned: is_replication.then_some("the replication protocol"),
            untracked: is_replication,
        }
    }

    /// Is nothing under way?
    fn is_idle(&self) -> bool {
        self.awaited.is_empty()
            && !self.unsynced
            && !self.in_transaction
            && !self.untracked
            && self.up.between_messages()
            && self.down.between_messages()
    }

    /// Could it go on with another backend now?
    pub(super) fn can_move(&self) -> bool {
        self.is_idle() && self.pinned.is_none() && !self.unkept && !self.leaving
    }

    /// Why an idle session cannot move.
    pub(super) fn pinned(&self) -> Option<&'static str> {
        self.pinned.filter(|_| self.is_idle() && !self.leaving)
    }

    /// Is everything given to the client whole messages?
    pub(super) fn between_answers(&self) -> bool {
        self.down.between_messages()
    }

    /// How many of the bytes from the database may be given to the client before looking again: an answer, or
    /// anything but the word that ends a session which can move.
    pub(super) fn deliverable(&self, bytes: &[u8]) -> usize {
        if self.can_move() {
            self.down.prefix(bytes, Some(b'E'), None)
        } else if self.untracked {
            bytes.len()
        } else {
            self.down.prefix(bytes, None, Some(b'Z'))
        }
    }

    /// The settings that the client was told of.
    pub(super) fn reported(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.reported
    }

    /// The messages that make a fresh backend like this session's, and how often it will say that it is ready.
    pub(super) fn replay(&self) -> (Vec<u8>, usize) {
        memory::replay(&self.settings, &self.prepared)
    }

    /// Notes what was sent to the database.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if self.untracked {
            return;
        }
        let mut up = std::mem::take(&mut self.up);
        up.pass(bytes, |piece| match piece {
            Piece::Head(kind) => self.told.begin(kind),
            Piece::Body(body) => self.told.read(body),
            Piece::End if self.untracked => {}
            Piece::End => self.take_request(),
        });
        self.up = up;
    }

    /// Notes what was given to the client.
    pub(super) fn given(&mut self, bytes: &[u8]) {
        let mut down = std::mem::take(&mut self.down);
        down.pass(bytes, |piece| match piece {
            Piece::Head(kind) => self.heard = (kind, Vec::new()),
            Piece::Body(body) => {
                let (kind, kept) = &mut self.heard;
                if matches!(kind, b'C' | b'S' | b'Z') && kept.len() + body.len() <= HEARD_BYTES_MAX {
                    kept.extend(body);
                }
            }
            Piece::End if self.untracked => {}
            Piece::End => self.take_answer(),
        });
        self.down = down;
    }

    fn take_request(&mut self) {
        let found = self.told.words.end();
        let kept = std::mem::take(&mut self.told.kept);
        if let Some(binding) = found.binding {
            self.pinned = Some(binding);
        }
        match self.told.kind {
            b'Q' => {
                self.prepared.remove(b"");
                self.unkept = false;
                let text = kept.strip_suffix(&[0]).unwrap_or(&kept);
                let acts = if found.acting { self.told.acts(text) } else { Some(Vec::new()) };
                let discards_all = self.told.whole && statement::is_only(text, b"discard all");
                self.awaited.push_back(Awaited::Ready(Request { acts, discards_all }));
            }
            b'P' => {
                self.unsynced = true;
                self.parse(kept, found.acting);
            }
            b'B' => {
                self.unsynced = true;
                self.bind(&kept);
            }
            b'C' => {
                self.unsynced = true;
                let name = kept.strip_prefix(b"S").and_then(message::text).map(|(name, _)| name.to_vec());
                self.awaited.push_back(Awaited::Close(name));
            }
            b'D' | b'E' | b'H' => self.unsynced = true,
            b'S' => {
                self.unsynced = false;
                let acts = self.batch.replace(Vec::new());
                self.awaited.push_back(Awaited::Ready(Request { acts, discards_all: false }));
            }
            b'F' => self.untrack("a fast-path function call"),
            b'X' => self.leaving = true,
            _ => {}
        }
        if self.awaited.len() > AWAITED_MAX {
            self.untrack("too many requests in flight");
        }
    }

    fn parse(&mut self, body: Vec<u8>, acting: bool) {
        let Some((name, rest)) = message::text(&body) else { return self.untrack("a statement's long name") };
        let name = name.to_vec();
        let text = message::text(rest).map(|(text, _)| text);
        let acts = match text {
            _ if !acting => Some(Vec::new()),
            Some(text) => self.told.acts(text),
            None => None,
        };
        let fits = self.prepared.bytes() + self.parsing_bytes + body.len() <= PREPARED_BYTES_MAX;
        let kept = (self.told.whole && fits).then_some(Statement { body, acts });
        self.parsing_bytes += kept.as_ref().map_or(0, |statement| statement.body.len());
        self.awaited.push_back(Awaited::Parse(name, kept));
    }

    fn bind(&mut self, body: &[u8]) {
        let name = message::text(body).and_then(|(_, rest)| message::text(rest)).map(|(name, _)| name);
        let known = name.and_then(|name| {
            let parsing = self.awaited.iter().rev().find_map(|awaited| match awaited {
                Awaited::Parse(parsed, kept) if parsed == name => Some(kept.as_ref()),
                _ => None,
            });
            parsing.unwrap_or_else(|| self.prepared.get(name))
        });
        match (known.and_then(|statement| statement.acts.as_ref()), &mut self.batch) {
            (Some(acts), Some(batch)) if batch.len() + acts.len() <= AWAITED_MAX => {
                batch.extend(acts.iter().cloned());
            }
            _ => self.batch = None,
        }
    }

    fn take_answer(&mut self) {
        let (kind, body) = std::mem::take(&mut self.heard);
        match kind {
            b'1' => match self.awaited.pop_front() {
                Some(Awaited::Parse(name, kept)) => self.parsed(name, kept),
                _ => self.untrack("an answer out of order"),
            },
            b'3' => match self.awaited.pop_front() {
                Some(Awaited::Close(Some(name))) => self.prepared.remove(&name),
                Some(Awaited::Close(None)) => {}
                _ => self.untrack("an answer out of order"),
            },
            b'C' => self.completed(body.strip_suffix(&[0]).unwrap_or(&body)),
            b'E' => self.progress.failed = true,
            b'G' | b'W' => self.untrack("COPY"),
            b'S' => {
                if let Some((name, rest)) = message::text(&body)
                    && let Some((value, _)) = message::text(rest)
                    && (self.reported.len() < REPORTED_MAX || self.reported.contains_key(name))
                {
                    self.reported.insert(name.to_vec(), value.to_vec());
                }
            }
            b'Z' => self.ready(body.first() == Some(&b'I')),
            _ => {}
        }
    }

    fn parsed(&mut self, name: Vec<u8>, kept: Option<Statement>) {
        let unnamed = name.is_empty();
        match kept {
            Some(statement) => {
                self.parsing_bytes -= statement.body.len();
                self.prepared.put(name, statement);
            }
            None if unnamed => self.prepared.remove(&name),
            None => self.pinned = Some("more prepared statements than are remembered"),
        }
        if unnamed {
            self.unkept = self.prepared.get(b"").is_none();
        }
    }

    fn completed(&mut self, tag: &[u8]) {
        match tag {
            b"SET" | b"RESET" => self.progress.tags.push(true),
            b"DEALLOCATE" => self.progress.tags.push(false),
            b"DEALLOCATE ALL" => {
                self.progress.tags.push(false);
                self.prepared.clear();
            }
            b"DISCARD ALL" => {
                self.prepared.clear();
                self.settings.clear();
            }
            b"BEGIN" | b"START TRANSACTION" | b"COMMIT" | b"ROLLBACK" => self.progress.transaction = true,
            b"LISTEN" => self.pinned = Some("LISTEN"),
            b"PREPARE" => self.pinned = Some("PREPARE"),
            b"LOAD" => self.pinned = Some("LOAD"),
            b"DO" => self.pinned = Some("DO"),
            _ => {}
        }
        if self.progress.tags.len() > AWAITED_MAX {
            self.untrack("too many settings at once");
        }
    }

    fn ready(&mut self, outside_transaction: bool) {
        let request = loop {
            match self.awaited.pop_front() {
                Some(Awaited::Ready(request)) => break request,
                Some(Awaited::Parse(_, kept)) => {
                    self.parsing_bytes -= kept.map_or(0, |statement| statement.body.len());
                }
                Some(Awaited::Close(_)) => {}
                None => return self.untrack("an answer out of order"),
            }
        };
        let progress = std::mem::take(&mut self.progress);
        let alone = !self.in_transaction && outside_transaction && !progress.transaction;
        self.in_transaction = !outside_transaction;
        if request.discards_all && !progress.failed && self.awaited.is_empty() && !self.unsynced {
            self.pinned = None;
        }
        if !progress.tags.is_empty() {
            self.perform(request.acts, &progress, alone);
        }
    }

    /// Settings of a request that failed were taken back by PostgreSQL; DEALLOCATE is for good.
    fn perform(&mut self, acts: Option<Vec<Act>>, progress: &Progress, alone: bool) {
        let acts = acts.unwrap_or_default();
        let told = acts.iter().map(|act| matches!(act, Act::Set { .. }));
        let fits = if progress.failed {
            told.clone().take(progress.tags.len()).eq(progress.tags.iter().copied())
        } else {
            told.eq(progress.tags.iter().copied())
        };
        if !fits {
            self.pinned = Some("a setting or DEALLOCATE that is not certainly understood");
            return;
        }
        for act in acts.into_iter().take(progress.tags.len()) {
            match act {
                Act::Deallocate(Some(name)) => self.prepared.remove(&name),
                Act::Deallocate(None) | Act::Set { lasting: false, .. } => {}
                Act::Set { .. } if !alone => self.pinned = Some("a setting made inside a transaction"),
                Act::Set { .. } if progress.failed => {}
                Act::Set { key, text, .. } => {
                    if !self.settings.put(&key, &text) {
                        self.pinned = Some("more settings than are remembered");
                    }
                }
            }
        }
    }

    /// Gives up following for good: the session is never moved.
    fn untrack(&mut self, why: &'static str) {
        self.pinned = Some(why);
        self.untracked = true;
        self.awaited.clear();
        self.prepared.clear();
        self.settings.clear();
    }

    /// The session goes on with a backend that reports these settings.
    pub(super) fn moved(&mut self, reported: BTreeMap<Vec<u8>, Vec<u8>>) {
        self.reported = reported;
    }
}

impl Told {
    fn begin(&mut self, kind: u8) {
        let keep = match kind {
            b'Q' => TEXT_BYTES_MAX,
            b'P' => PREPARED_BYTES_MAX,
            b'B' | b'C' => BIND_BYTES_MAX,
            _ => 0,
        };
        *self = Self { kind, keep, whole: true, ..Self::default() };
    }

    fn read(&mut self, body: &[u8]) {
        let kept = body.len().min(self.keep - self.kept.len());
        self.kept.extend(&body[..kept]);
        self.whole &= kept == body.len();
        if matches!(self.kind, b'Q' | b'P') {
            self.words.read(body);
        }
    }

    fn acts(&self, text: &[u8]) -> Option<Vec<Act>> {
        if self.whole && text.len() <= TEXT_BYTES_MAX { statement::acts(text) } else { None }
    }
}

#[cfg(test)]
mod tests;
