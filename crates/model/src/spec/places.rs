//! Finds a place in the spec's text: the parser counts characters, messages need bytes, lines and columns.

use saphyr_parser::{Marker, Span};

use super::finding::Place;

/// Turns the parser's places, counted in characters, into bytes.
pub(super) struct Places<'a> {
    text: &'a str,
    /// The byte of every character; empty for plain ASCII, where they are the same.
    bytes: Vec<usize>,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(i, _)| i).collect() };
        Self { text, bytes }
    }

    fn byte(&self, index: usize) -> usize {
        if self.bytes.is_empty() { index } else { self.bytes.get(index).copied().unwrap_or(self.text.len()) }
            .min(self.text.len())
    }

    fn at(&self, mark: &Marker) -> Place {
        let start = self.byte(mark.index());
        Place { start, end: start, line: mark.line(), column: mark.col() + 1 }
    }

    /// The place of an error: on the last line with text where the parser means the end of the file.
    pub(super) fn of_error(&self, mark: &Marker) -> Place {
        let start = self.byte(mark.index()).min(self.text.trim_end().len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[line_start..].chars().count() + 1;
        Place { start, end: start, line: before.matches('\n').count() + 1, column }
    }

    /// The place of an event, without the blanks that the parser counts to its end.
    pub(super) fn of(&self, span: Span) -> Place {
        let place = self.at(&span.start);
        let end = self.byte(span.end.index()).max(place.start);
        let written = self.text.get(place.start..end).map_or(0, |text| text.trim_end().len());
        Place { end: place.start + written, ..place }
    }
}
