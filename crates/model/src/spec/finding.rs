//! What is wrong or weak in a spec, shown with its line, its reason and how to mend it.

use std::{fmt, sync::Arc};

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode, SourceSpan};

use super::codes::Code;

/// A stretch of the spec's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// The line of its first byte, from 1.
    pub line: usize,
    /// The column of its first character, from 1.
    pub column: usize,
}

impl Place {
    /// The beginning of the file.
    pub const START: Self = Self { start: 0, end: 0, line: 1, column: 1 };

    /// From here to the end of `other`.
    pub(super) fn until(self, other: Self) -> Self {
        Self { end: other.end.max(self.end), ..self }
    }
}

/// One mistake or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    code: Code,
    place: Place,
    message: String,
    help: String,
}

impl Finding {
    pub(super) fn new(code: Code, place: Place, message: String, help: impl Into<String>) -> Self {
        Self { code, place, message, help: help.into() }
    }

    /// Which kind it is; `isles explain` says more.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to mend it.
    pub fn mend(&self) -> &str {
        &self.help
    }

    /// Whether it stands in the way; a warning does not.
    pub fn is_error(&self) -> bool {
        self.code.is_error()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Finding {}

impl Diagnostic for Finding {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(if self.is_error() { Severity::Error } else { Severity::Warning })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let length = self.place.end.saturating_sub(self.place.start);
        let span = SourceSpan::new(self.place.start.into(), length);
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, span))))
    }
}

/// The most findings that are kept of one spec: nobody reads more, and a file that is no spec has thousands.
pub const FINDINGS_MAX: usize = 200;

/// A file's name and text.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) text: Arc<str>,
}

/// All that was found in one spec, in the order of its lines, up to [`FINDINGS_MAX`]. As an error it holds at least one
/// mistake.
#[derive(Debug, Clone)]
pub struct Findings {
    source: NamedSource<Arc<str>>,
    list: Vec<Finding>,
}

/// Why a spec was refused: every mistake, and the warnings among them.
pub type SpecErrors = Findings;

impl Findings {
    pub(super) fn new(source: &Source, mut list: Vec<Finding>) -> Self {
        list.sort_by_key(|finding| (finding.place.start, finding.code));
        list.dedup();
        // Because mistakes must not make room for warnings, those go first.
        if list.len() > FINDINGS_MAX {
            list.sort_by_key(|finding| !finding.is_error());
            list.truncate(FINDINGS_MAX);
            list.sort_by_key(|finding| (finding.place.start, finding.code));
        }
        Self { source: NamedSource::new(&source.name, Arc::clone(&source.text)), list }
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many mistakes stand in the way.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|finding| finding.is_error()).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
        let (errors, warnings) = (self.errors(), self.warnings());
        match (errors, warnings) {
            (_, 0) => f.write_str(&count(errors, "mistake"))?,
            (0, _) => f.write_str(&count(warnings, "warning"))?,
            _ => write!(f, "{} and {}", count(errors, "mistake"), count(warnings, "warning"))?,
        }
        let more = if self.list.len() == FINDINGS_MAX { " or more" } else { "" };
        write!(f, "{more} in {}", self.source.name())
    }
}

impl std::error::Error for Findings {}

impl Diagnostic for Findings {
    fn severity(&self) -> Option<Severity> {
        Some(if self.errors() > 0 { Severity::Error } else { Severity::Warning })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.list.iter().map(|finding| finding as &dyn Diagnostic)))
    }
}
