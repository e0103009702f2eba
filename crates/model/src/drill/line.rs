//! One line of a drill's text, word by word.

use std::time::Duration;

use super::{
    mistake::Mistake,
    subject::{Subject, Subjects},
};
use crate::spec::{
    parse_duration,
    suggest::{either, nearest},
};

/// A word and where it stands in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
}

/// What is left of one line.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub(super) number: usize,
    words: std::vec::IntoIter<Word<'a>>,
    /// The last word taken, or the line's begin.
    last: (usize, usize),
}

/// Words that stand for a role; no region's name is taken for one of them.
const ROLES: [&str; 5] = ["writer", "holder", "replica", "others", "witness"];

impl<'a> Line<'a> {
    /// The line of this number that begins at `start` in the text; its comment is left out, a comma is a word.
    pub(super) fn new(number: usize, start: usize, text: &'a str) -> Self {
        let code = text.split('#').next().unwrap_or_default();
        let mut words = Vec::new();
        for part in code.split_inclusive([' ', '\t', '\r', ',']) {
            let at = start + (part.as_ptr().addr() - text.as_ptr().addr());
            let word = part.trim_end_matches([' ', '\t', '\r', ',']);
            if !word.is_empty() {
                words.push(Word { text: word, start: at });
            }
            if part.ends_with(',') {
                words.push(Word { text: ",", start: at + part.len() - 1 });
            }
        }
        Self { number, words: words.into_iter(), last: (start, start) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.len() == 0
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.as_slice().first().map(|word| word.text)
    }

    /// The next word; `what` says what should have been there.
    pub(super) fn word(&mut self, what: &str, help: &str) -> Result<&'a str, Mistake> {
        match self.words.next() {
            Some(word) => {
                self.last = (word.start, word.start + word.text.len());
                Ok(word.text)
            }
            None => {
                let end = self.last.1;
                self.last = (end, end);
                Err(self.mistake(format!("the line ends where {what} is expected"), help))
            }
        }
    }

    /// Takes the next word if it is this one.
    pub(super) fn takes(&mut self, word: &str) -> bool {
        self.peek() == Some(word) && self.word("", "").is_ok()
    }

    /// The next word must be this one.
    pub(super) fn exactly(&mut self, expected: &str, help: &str) -> Result<(), Mistake> {
        let found = self.word(&format!("`{expected}`"), help)?;
        if found == expected {
            return Ok(());
        }
        Err(self.mistake(format!("`{found}` stands where `{expected}` is expected"), help))
    }

    /// The next word must be one of these.
    pub(super) fn one_of<T: Copy>(&mut self, what: &str, known: &[(&'static str, T)]) -> Result<T, Mistake> {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let found = self.word(what, &format!("write {}", either(&words)))?;
        match known.iter().find(|(word, _)| *word == found) {
            Some((_, meant)) => Ok(*meant),
            None => Err(self.unknown(what, found, &words)),
        }
    }

    /// A word that means nothing here.
    pub(super) fn unknown(&self, what: &str, found: &str, words: &[&str]) -> Mistake {
        let help = match nearest(found, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {}", either(words)),
        };
        self.mistake(format!("`{found}` is not {what}"), help)
    }

    pub(super) fn time(&mut self) -> Result<Duration, Mistake> {
        let help = "write a number with its unit, as in 500ms, 15s or 2m";
        let found = self.word("a time", help)?;
        let time = parse_duration(found).filter(|time| time.subsec_nanos().is_multiple_of(1_000_000));
        time.ok_or_else(|| self.mistake(format!("`{found}` is not a time in whole milliseconds"), help))
    }

    /// One subject or more, with commas between them.
    pub(super) fn subjects(&mut self) -> Result<Subjects, Mistake> {
        let mut subjects = vec![self.subject()?];
        while self.takes(",") {
            let next = self.subject()?;
            if subjects.contains(&next) {
                return Err(self.mistake(format!("`{next}` is named twice"), "name it once"));
            }
            subjects.push(next);
        }
        Ok(Subjects(subjects))
    }

    pub(super) fn subject(&mut self) -> Result<Subject, Mistake> {
        let help = "write writer, holder, replica, replica-2, others, witness or a region's name";
        let found = self.word("a region", help)?;
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| (1..=99).contains(number));
        match found {
            "writer" => Ok(Subject::Writer),
            "holder" => Ok(Subject::Holder),
            "replica" => Ok(Subject::Replica(1)),
            "others" => Ok(Subject::Others),
            "witness" => Ok(Subject::Witness),
            _ => {
                match found.strip_prefix("replica-") {
                    Some(rest) => number(rest).map(Subject::Replica).ok_or_else(|| {
                        self.mistake(format!("`{found}` is no replica"), "they are counted from replica-1")
                    }),
                    None => match (nearest(found, ROLES), found.parse()) {
                        // Because a region's name has digits or a hyphen nearly always, and a mistyped role has none.
                        (Some(role), _) if !found.contains(['-', '1', '2', '3']) => Err(self
                            .mistake(format!("`{found}` is not a role"), format!("did you mean `{role}`?"))),
                        (_, Ok(region)) => Ok(Subject::Named(region)),
                        (_, Err(_)) => Err(self.mistake(format!("`{found}` is not a region's name"), help)),
                    },
                }
            }
        }
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Mistake> {
        let Some(word) = self.words.next() else { return Ok(()) };
        let end = self.words.as_slice().last().unwrap_or(&word);
        self.last = (word.start, end.start + end.text.len());
        let help = "one line says one thing; `#` begins a comment";
        Err(self.mistake(format!("`{}` is too much on this line", word.text), help))
    }

    /// A mistake about the last word taken.
    pub(super) fn mistake(&self, message: String, help: impl Into<String>) -> Mistake {
        Mistake { line: self.number, span: self.last, message, help: help.into() }
    }
}
