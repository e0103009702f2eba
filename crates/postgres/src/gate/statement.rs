//! Reads of a statement's text only what decides whether a session could go on elsewhere: words that leave something
//! behind in a session, and statements that set one.
//!
//! No parser of SQL: a word counts wherever it stands, in a literal or a comment too, and what is not certainly
//! understood counts as not understood. Both errors only cost a session its survival.

/// The longest text that settings are read from, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 2 * 1024;
/// Longer than every word of interest.
const WORD_BYTES_MAX: usize = 32;

/// Words that leave behind what cannot be made again in another session, and how the client is told of it.
const BINDING: [(&str, &str); 16] = [
    ("listen", "LISTEN"),
    ("temp", "a temporary table"),
    ("temporary", "a temporary table"),
    ("pg_temp", "a temporary table"),
    ("hold", "a cursor WITH HOLD"),
    ("prepare", "PREPARE"),
    ("load", "LOAD"),
    ("set_config", "set_config"),
    ("setseed", "setseed"),
    ("currval", "currval"),
    ("lastval", "lastval"),
    ("pg_advisory_lock", "an advisory lock"),
    ("pg_advisory_lock_shared", "an advisory lock"),
    ("pg_try_advisory_lock", "an advisory lock"),
    ("pg_try_advisory_lock_shared", "an advisory lock"),
    ("dblink_connect", "dblink"),
];
/// Words without which a text neither sets nor forgets anything.
const ACTING: [&str; 3] = ["set", "reset", "deallocate"];

/// Finds words in a text that comes in pieces.
#[derive(Default)]
pub(super) struct Words {
    word: Vec<u8>,
    found: Found,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Something that binds the session to its backend.
    pub(super) binding: Option<&'static str>,
    /// A word that may set or forget something.
    pub(super) acting: bool,
}

impl Words {
    /// Looks at more of the text.
    pub(super) fn read(&mut self, text: &[u8]) {
        for byte in text {
            if byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80 {
                if self.word.len() < WORD_BYTES_MAX {
                    self.word.push(byte.to_ascii_lowercase());
                }
            } else if !self.word.is_empty() {
                self.end_word();
            }
        }
    }

    /// The text has ended.
    pub(super) fn end(&mut self) -> Found {
        self.end_word();
        std::mem::take(&mut self.found)
    }

    fn end_word(&mut self) {
        let word = &self.word[..];
        if let Some((_, what)) = BINDING.iter().find(|(binding, _)| binding.as_bytes() == word) {
            self.found.binding = Some(what);
        }
        self.found.acting |= ACTING.iter().any(|acting| acting.as_bytes() == word);
        self.word.clear();
    }
}

/// What a statement does to its session, if it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// SET or RESET.
    Set {
        /// Which setting.
        key: Vec<u8>,
        /// The whole statement.
        text: Vec<u8>,
        /// Beyond its transaction.
        lasting: bool,
    },
    /// DEALLOCATE of a name, or of all.
    Deallocate(Option<Vec<u8>>),
}

/// What the statements of a text do, in order; `None` if that is not certain.
pub(super) fn acts(text: &[u8]) -> Option<Vec<Act>> {
    let mut acts = Vec::new();
    for statement in statements(text)? {
        let mut words = Tokens(statement);
        match words.next().as_deref() {
            Some(b"set") => acts.extend(set(statement, &mut words)?),
            Some(b"reset") => acts.push(lasting(setting(&mut words, None)?, statement)),
            Some(b"deallocate") => {
                let name = match words.next()? {
                    prepare if prepare == b"prepare" => words.next()?,
                    name => name,
                };
                acts.push(Act::Deallocate((name != b"all").then_some(name)));
            }
            _ => {}
        }
    }
    Some(acts)
}

fn set(statement: &[u8], words: &mut Tokens<'_>) -> Option<Option<Act>> {
    let first = words.next()?;
    Some(match &first[..] {
        // Its tag is another one.
        b"constraints" => None,
        b"local" | b"transaction" => Some(Act::Set { key: first, text: statement.to_vec(), lasting: false }),
        _ => Some(lasting(setting(words, Some(first))?, statement)),
    })
}

fn setting(words: &mut Tokens<'_>, first: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match first.or_else(|| words.next())? {
        first if first == b"session" => {
            let second = words.next()?;
            let both = matches!(&second[..], b"authorization" | b"characteristics");
            Some(if both { [&b"session "[..], &second].concat() } else { second })
        }
        first => Some(first),
    }
}

fn lasting(key: Vec<u8>, statement: &[u8]) -> Act {
    Act::Set { key, text: statement.to_vec(), lasting: true }
}

/// The words of a statement: names in lower case, quoted ones as they are.
struct Tokens<'a>(&'a [u8]);

impl Iterator for Tokens<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let text = self.0.trim_ascii_start();
        if let [b'"', quoted @ ..] = text {
            let end = quoted.iter().position(|byte| *byte == b'"')?;
            self.0 = &quoted[end + 1..];
            return (!self.0.starts_with(b"\"")).then(|| quoted[..end].to_vec());
        }
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.$".contains(byte) || *byte >= 0x80;
        let end = text.iter().position(|byte| !is_name(byte)).unwrap_or(text.len());
        self.0 = &text[end..];
        (end > 0).then(|| text[..end].to_ascii_lowercase())
    }
}

/// The statements of a text; `None` where their borders are not certain: comments, dollar quotes, escapes.
fn statements(text: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut found, mut begin, mut quote) = (Vec::new(), 0, None);
    for (place, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (_, b'\\' | b'$') => return None,
            (None, b'-') if text.get(place + 1) == Some(&b'-') => return None,
            (None, b'/') if text.get(place + 1) == Some(&b'*') => return None,
            (None, b'\'' | b'"') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            (None, b';') => {
                found.push(text[begin..place].trim_ascii());
                begin = place + 1;
            }
            _ => {}
        }
    }
    found.push(text[begin..].trim_ascii());
    quote.is_none().then_some(found)
}

/// Whether a text is this one statement and nothing else.
pub(super) fn is_only(text: &[u8], statement: &[u8]) -> bool {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii();
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_ascii_lowercase)
        .eq(statement.split(u8::is_ascii_whitespace).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Found {
        let mut words = Words::default();
        for byte in text.as_bytes() {
            words.read(&[*byte]);
        }
        words.end()
    }

    #[test]
    fn words_that_bind_a_session_are_found_wherever_they_stand() {
        for text in [
            "LISTEN jobs",
            "create /* x */ TEMP table t ()",
            "CREATE TEMPORARY VIEW v AS SELECT 1",
            "select pg_advisory_lock(1)",
            "SELECT Pg_Try_Advisory_Lock_Shared(1, 2)",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "SELECT pg_catalog.set_config('a.b', 'c', false)",
            "PREPARE p AS SELECT 1",
            "SELECT 'listen'",
        ] {
            assert!(found(text).binding.is_some(), "{text}");
        }
        for text in
            ["SELECT pg_advisory_xact_lock(1)", "SELECT template FROM listeners", "UPDATE t SET a = 1", ""]
        {
            assert_eq!(found(text).binding, None, "{text}");
        }
        assert!(found("UPDATE t SET a = 1").acting && !found("SELECT settings").acting);
    }

    fn keys(text: &str) -> Option<Vec<String>> {
        let name = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let acts = acts(text.as_bytes())?.into_iter().map(|act| match act {
            Act::Set { key, lasting, .. } => {
                format!("{}{}", name(key), if lasting { "" } else { " (transaction)" })
            }
            Act::Deallocate(of) => format!("forget {}", of.map_or("everything".into(), name)),
        });
        Some(acts.collect())
    }

    #[test]
    fn settings_are_read_by_what_they_set() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(keys(text).unwrap(), expect, "{text}");
        };
        check("SET search_path TO shop, public", &["search_path"]);
        check(" set Session TimeZone = 'UTC' ;", &["timezone"]);
        check("SET TIME ZONE 'UTC'", &["time"]);
        check("SET a.b = 'x;y'; RESET ALL", &["a.b", "all"]);
        check("SET SESSION AUTHORIZATION app", &["session authorization"]);
        check("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", &["session characteristics"]);
        check("SET ROLE reader", &["role"]);
        check(
            "BEGIN; SET LOCAL a.b = 1; SET TRANSACTION READ ONLY",
            &["local (transaction)", "transaction (transaction)"],
        );
        check("SET CONSTRAINTS ALL DEFERRED", &[]);
        check("UPDATE t SET a = 1", &[]);
        check(
            "DEALLOCATE PREPARE \"S_1\"; DEALLOCATE s2; deallocate all",
            &["forget S_1", "forget s2", "forget everything"],
        );
    }

    #[test]
    fn what_is_not_certain_is_not_guessed() {
        for text in [
            "SET a = 1 -- ; x",
            "/* */ SET a = 1",
            "DO $$ BEGIN END $$; SET a = 1",
            "SET a = E'\\''",
            "SET a = 'b",
            "SET",
        ] {
            assert_eq!(keys(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_is_one_statement_or_is_not() {
        assert!(is_only(b" discard  ALL ;", b"discard all"));
        assert!(!is_only(b"DISCARD ALL; SELECT 1", b"discard all"));
        assert!(!is_only(b"", b"discard all"));
    }

    proptest! {
        #[test]
        fn any_text_may_be_read(text: Vec<u8>, tail: String) {
            let _ = (acts(&text), is_only(&text, b"discard all"));
            for word in ["SET ", "RESET ", "DEALLOCATE "] {
                let _ = acts(format!("{word}{tail}").as_bytes());
            }
            let mut words = Words::default();
            words.read(&text);
            words.end();
        }
    }
}
