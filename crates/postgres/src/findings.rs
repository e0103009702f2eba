//! What a person should know about this region's database: table names and reasons, never values.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The most findings kept at once; past it a new one is only counted, in the last line.
pub const FINDINGS_MAX: usize = 31;

/// A bounded list shared between those who find and those who show. Each finding has a key, so that whoever set
/// it can clear it when it has passed.
#[derive(Clone, Default)]
pub struct Findings(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    texts: BTreeMap<String, String>,
    /// Keys turned away while the board was full.
    more: std::collections::BTreeSet<u64>,
}

impl Findings {
    /// Adds or replaces a finding. Says whether it is new or differs, so that it is logged once.
    pub fn set(&self, key: impl Into<String>, text: impl Into<String>) -> bool {
        let (key, text) = (key.into(), text.into());
        let mut board = self.board();
        if board.texts.len() >= FINDINGS_MAX && !board.texts.contains_key(&key) {
            if board.more.len() < FINDINGS_MAX {
                board.more.insert(fingerprint(&key));
            }
            return false;
        }
        board.texts.insert(key, text.clone()).as_ref() != Some(&text)
    }

    /// Removes a finding that has passed.
    pub fn clear(&self, key: &str) {
        let mut board = self.board();
        board.texts.remove(key);
        board.more.remove(&fingerprint(key));
    }

    /// Removes every finding whose key starts so and is not among `keep`.
    pub fn retain(&self, prefix: &str, keep: &[String]) {
        self.board().texts.retain(|key, _| !key.starts_with(prefix) || keep.contains(key));
    }

    /// All of them, ordered by key.
    pub fn list(&self) -> Vec<String> {
        let board = self.board();
        let mut list: Vec<String> = board.texts.values().cloned().collect();
        if !board.more.is_empty() {
            list.push(format!("{} more findings do not fit; see the log", board.more.len()));
        }
        list
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

fn fingerprint(key: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_new_once_and_goes_when_it_is_cleared() {
        let findings = Findings::default();
        assert!(findings.set("key/public.t", "Table public.t has no key."));
        assert!(!findings.set("key/public.t", "Table public.t has no key."));
        assert_eq!(findings.list().len(), 1);
        findings.clear("key/public.t");
        assert!(findings.list().is_empty());
    }

    #[test]
    fn a_full_board_counts_what_it_turns_away() {
        let findings = Findings::default();
        for n in 0..FINDINGS_MAX + 5 {
            findings.set(format!("k{n:03}"), "text");
        }
        let list = findings.list();
        assert_eq!(list.len(), FINDINGS_MAX + 1);
        assert_eq!(list.last().unwrap(), "5 more findings do not fit; see the log");
    }
}
