//! The words in which `keys.rs` describes the spec: what a value may look like, and what a key is for.
//!
//! The reader and the JSON Schema are both drawn from such a description, so they cannot disagree.

/// What a value may look like.
#[derive(Debug)]
pub(super) enum Shape {
    /// A DNS label (RFC 1035 section 2.3.1): names of applications, services and regions.
    Name,
    /// The name of a region: a DNS label too.
    Region,
    /// A host name of at least two labels.
    Host,
    /// Any text that is not empty.
    Text,
    /// A text, number or truth value, kept as written.
    Literal,
    /// A text that begins with a slash.
    UrlPath,
    /// An `http://` or `https://` address of an etcd member.
    Endpoint,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// `true` or `false`.
    Flag,
    /// A length of time, see [`super::duration`].
    Duration,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A map whose keys the user chooses.
    Map(KeyKind, &'static Shape),
    /// A map with known keys.
    Record(&'static [Key]),
    /// One or the other, told apart by being a single value, a list or a map.
    Either(&'static Shape, &'static Shape),
    /// Anything; read by a later part of Isles.
    Free,
}

/// What the keys of a [`Shape::Map`] may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// DNS labels.
    Name,
    /// Names of regions.
    Region,
    /// Names of environment variables (POSIX: letters, digits, underscores, no digit first).
    Variable,
}

/// A key with its value's shape.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) required: bool,
    /// What it is for, in one or two sentences; shown by editors.
    pub(super) about: &'static str,
    pub(super) shape: Shape,
}

pub(super) const fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, required: true, about, shape }
}

pub(super) const fn optional(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, required: false, about, shape }
}

impl Shape {
    /// What belongs here, as the end of "not …".
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Name => "a name".to_owned(),
            Self::Region => "a region".to_owned(),
            Self::Host => "a host name".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Literal => "a text or a number".to_owned(),
            Self::UrlPath => "a path".to_owned(),
            Self::Endpoint => "a URL".to_owned(),
            Self::Count { .. } => "a whole number".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Duration => "a length of time".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::List(_) => "a list".to_owned(),
            Self::Map(..) | Self::Record(_) => "a map".to_owned(),
            Self::Either(a, b) => format!("{} or {}", a.expected(), b.expected()),
            Self::Free => "any value".to_owned(),
        }
    }

    /// A value of this shape, to show how one is written.
    pub(super) fn example(&self) -> String {
        match self {
            Self::Name => "web".to_owned(),
            Self::Region => "eu-west-1".to_owned(),
            Self::Host => "api.example.com".to_owned(),
            Self::Text | Self::Literal => "\"…\"".to_owned(),
            Self::UrlPath => "/healthz".to_owned(),
            Self::Endpoint => "https://etcd-1.example.com:2379".to_owned(),
            Self::Count { min, .. } => min.max(&2).to_string(),
            Self::Flag => "true".to_owned(),
            Self::Duration => "3s".to_owned(),
            Self::Choice(words) => words.first().copied().unwrap_or_default().to_owned(),
            Self::List(of) => format!("[{}]", of.example()),
            Self::Map(KeyKind::Name, of) => format!("{{ web: {} }}", of.example()),
            Self::Map(KeyKind::Region, _) => "{ eu-west-1: {} }".to_owned(),
            Self::Map(KeyKind::Variable, of) => format!("{{ NAME: {} }}", of.example()),
            Self::Record(keys) => {
                let shown = keys.iter().filter(|key| key.required).chain(keys.first()).next();
                shown.map_or("{}".to_owned(), |key| format!("{{ {}: {} }}", key.name, key.shape.example()))
            }
            Self::Either(a, _) => a.example(),
            Self::Free => "{}".to_owned(),
        }
    }
}
