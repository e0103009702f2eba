//! What is wrong in a drill's text, shown with its line, its reason and how to mend it.

use std::{fmt, sync::Arc};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// The most mistakes that are kept of one text.
pub(super) const MISTAKES_MAX: usize = 100;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// Bytes of the text that it is about.
    pub(super) span: (usize, usize),
    /// What is wrong, in one sentence.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (start, end) = self.span;
        let label = LabeledSpan::new(None, start, end.saturating_sub(start));
        Some(Box::new(std::iter::once(label)))
    }
}

/// Every mistake of one text, in the order of its lines; at least one.
#[derive(Debug, Clone)]
pub struct Mistakes {
    source: NamedSource<Arc<str>>,
    list: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn new(name: &str, text: &str, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| mistake.span);
        list.truncate(MISTAKES_MAX);
        Self { source: NamedSource::new(name, text.into()), list }
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, plural) = (self.list.len(), if self.list.len() == 1 { "" } else { "s" });
        let more = if count == MISTAKES_MAX { " or more" } else { "" };
        write!(f, "{count} mistake{plural}{more} in {}", self.source.name())
    }
}

impl std::error::Error for Mistakes {}

impl Diagnostic for Mistakes {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.list.iter().map(|mistake| mistake as &dyn Diagnostic)))
    }
}
