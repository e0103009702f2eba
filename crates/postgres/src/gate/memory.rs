//! What a session would need in another backend: its prepared statements, its settings, what it was told of them.

use std::collections::BTreeMap;

use super::{message::frame, statement::Act};

/// The most bytes of prepared statements remembered of one session.
pub(super) const PREPARED_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of settings remembered of one session.
pub(super) const SETTINGS_BYTES_MAX: usize = 16 * 1024;

/// A statement prepared by message.
pub(super) struct Statement {
    /// The body of its Parse message.
    pub(super) body: Vec<u8>,
    /// What executing it does to the session; `None` if that is not certain.
    pub(super) acts: Option<Vec<Act>>,
}

/// Prepared statements by name; the unnamed one has an empty name.
#[derive(Default)]
pub(super) struct Prepared {
    statements: BTreeMap<Vec<u8>, Statement>,
    bytes: usize,
}

impl Prepared {
    /// Bytes remembered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks one up.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Statement> {
        self.statements.get(name)
    }

    /// Remembers one.
    pub(super) fn put(&mut self, name: Vec<u8>, statement: Statement) {
        self.remove(&name);
        self.bytes += statement.body.len();
        self.statements.insert(name, statement);
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(statement) = self.statements.remove(name) {
            self.bytes -= statement.body.len();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// SET and RESET statements, each the last for its setting, in the order in which they took effect.
#[derive(Default)]
pub(super) struct Settings(Vec<(Vec<u8>, Vec<u8>)>);

impl Settings {
    /// Remembers one; `false` if it does not fit any more.
    pub(super) fn put(&mut self, key: &[u8], text: &[u8]) -> bool {
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_vec(), text.to_vec()));
        self.0.iter().map(|(key, text)| key.len() + text.len()).sum::<usize>() <= SETTINGS_BYTES_MAX
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The messages that make a fresh session like the remembered one, and how many times the database will say after
/// them that it is ready.
pub(super) fn replay(settings: &Settings, prepared: &Prepared) -> (Vec<u8>, usize) {
    let mut bytes = Vec::with_capacity(prepared.bytes + 512);
    for (_, text) in &settings.0 {
        bytes.extend(frame(b'Q', &[text, &[0][..]].concat()));
    }
    for statement in prepared.statements.values() {
        bytes.extend(frame(b'P', &statement.body));
    }
    bytes.extend(frame(b'S', b""));
    (bytes, settings.0.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_each_setting_is_replayed_in_the_order_of_effect() {
        let mut settings = Settings::default();
        for (key, text) in
            [("a", "SET a = 1"), ("all", "RESET ALL"), ("a", "SET a = 2"), ("all", "RESET ALL")]
        {
            assert!(settings.put(key.as_bytes(), text.as_bytes()));
        }
        let (bytes, ready) = replay(&settings, &Prepared::default());
        let expect = [frame(b'Q', b"SET a = 2\0"), frame(b'Q', b"RESET ALL\0"), frame(b'S', b"")].concat();
        assert_eq!((bytes, ready), (expect, 3));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_with_its_bytes() {
        let mut prepared = Prepared::default();
        for size in [10, 20] {
            prepared.put(b"s".to_vec(), Statement { body: vec![0; size], acts: Some(Vec::new()) });
        }
        assert_eq!(prepared.bytes(), 20);
        prepared.remove(b"s");
        assert_eq!(prepared.bytes(), 0);
        let long = vec![b' '; SETTINGS_BYTES_MAX];
        assert!(!Settings::default().put(b"a", &long));
    }
}
