//! Remembers behind which door each open session's backend lives, so that its statement can be cancelled there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    frame::{Frames, Piece},
    opening::CancelKey,
    upstream::Door,
};

const BACKEND_KEY_DATA: u8 = b'K';

/// Where the backends of open sessions live and by which key they are known there, by the key the client has. Holds no more entries than there are sessions: each leaves with its
/// [`Remembered`].
#[derive(Clone, Default)]
pub(super) struct Keys(Arc<Mutex<BTreeMap<CancelKey, (Door, CancelKey)>>>);

/// Forgets the key when its session ends.
pub(super) struct Remembered {
    keys: Keys,
    key: CancelKey,
}

impl Keys {
    /// Remembers, while the returned guard lives, that the client's `key` means `theirs` behind `door`.
    pub(super) fn remember(&self, key: CancelKey, door: Door, theirs: CancelKey) -> Remembered {
        self.map(|map| map.insert(key.clone(), (door, theirs)));
        Remembered { keys: self.clone(), key }
    }

    /// The door behind which the backend lives and its key there, if its session came through this agent.
    pub(super) fn find(&self, key: &CancelKey) -> Option<(Door, CancelKey)> {
        self.map(|map| map.get(key).cloned())
    }

    fn map<T>(&self, change: impl FnOnce(&mut BTreeMap<CancelKey, (Door, CancelKey)>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Follows `bytes` on their way to a client; returns a cancel key that lies whole in them. PostgreSQL sends the key and
/// the readiness after it in one piece; a key that is cut is not noted, and its session cannot be cancelled.
pub(super) fn passing(frames: &mut Frames, bytes: &[u8]) -> Option<CancelKey> {
    let (mut key, mut is_key) = (None, false);
    frames.pass(bytes, |piece| match piece {
        Piece::Head(kind) => is_key = kind == BACKEND_KEY_DATA,
        Piece::Body(body) if is_key => key = CancelKey::new(body),
        Piece::Body(_) | Piece::End => {}
    });
    key
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.keys.map(|map| map.remove(&self.key));
    }
}
