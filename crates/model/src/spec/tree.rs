//! Reads YAML 1.2 into a tree in which every value knows its place in the file.
//!
//! `no` is a text and `1.10` keeps its zero. Anchors, aliases, tags and a second document are refused by name: a spec
//! must mean what it says where it says it. Knows nothing of the spec's keys.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::{
    codes::Code,
    finding::{Finding, Place},
    places::Places,
    scalar::plain,
};

/// The largest spec read, in bytes.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;
/// The deepest nesting read, in levels.
pub const SPEC_DEPTH_MAX: usize = 24;
/// The most values read from one file.
pub const SPEC_VALUES_MAX: usize = 20_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// A value as YAML 1.2's core schema (chapter 10.3) types it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something already reported: say nothing more about it.
    Refused,
}

/// A key, its place and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Place,
    pub(super) node: Node,
}

impl Node {
    /// The value of a key, when this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Null
            | Value::Flag(_)
            | Value::Number(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Refused => None,
        }
    }

    /// As a JSON value; what was refused is null.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Refused => serde_json::Value::Null,
            Value::Flag(flag) => (*flag).into(),
            Value::Number(number) => serde_json::from_str(number).unwrap_or_else(|_| number.clone().into()),
            Value::Text(text) => text.clone().into(),
            Value::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect())
            }
        }
    }
}

/// The tree of a text, or `None` when nothing can be made of it; what is wrong goes to `findings` either way.
pub(super) fn read(text: &str, findings: &mut Vec<Finding>) -> Option<Node> {
    if text.len() > SPEC_BYTES_MAX {
        let message = format!("the file has {} bytes; a spec has at most {SPEC_BYTES_MAX}", text.len());
        findings.push(Finding::new(Code::TooLarge, Place::START, message, "Is this the right file?"));
        return None;
    }
    let mut reader = Reader { places: Places::new(text), findings, open: Vec::new(), root: None, values: 0 };
    for event in Parser::new_from_str(text).keep_tags(true) {
        let carry_on = match event {
            Ok((event, span)) => reader.take(event, reader.places.of(span)),
            Err(error) => reader.refuse_syntax(&error),
        };
        if !carry_on {
            return None;
        }
    }
    let root = reader.root;
    if root.as_ref().is_none_or(|root| root.value == Value::Null) {
        let help = "Start with `name:`, `regions:` and `services:`, or let `isles init` write a first spec.";
        findings.push(Finding::new(Code::Empty, Place::START, "the spec is empty".to_owned(), help));
        return None;
    }
    root
}

struct Reader<'a> {
    places: Places<'a>,
    findings: &'a mut Vec<Finding>,
    open: Vec<Open>,
    root: Option<Node>,
    values: usize,
}

/// A list or map whose end has not been read yet.
enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<Entry>, Option<(String, Place)>),
}

impl Reader<'_> {
    /// Takes one event in; `false` ends the reading.
    fn take(&mut self, event: Event<'_>, at: Place) -> bool {
        match event {
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {
                let second = matches!(event, Event::DocumentStart(_)) && self.root.is_some();
                if second {
                    self.refuse(at, "a second document begins here", "A spec is one document: remove `---`.");
                }
                !second
            }
            Event::Alias(_) => {
                let help = "Write the value out where it is used; Isles reads no anchors and aliases.";
                self.refuse(at, "this is a YAML alias", help);
                self.put(Node { at, value: Value::Refused })
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(at, text, style, tag.as_deref());
                self.warn_of_anchor(anchor, at);
                self.put(Node { at, value })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                self.warn_of_anchor(anchor, at);
                self.enter(Open::List(at, Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                self.warn_of_anchor(anchor, at);
                self.enter(Open::Map(at, Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(start, nodes)) => {
                    self.put(Node { at: start.until(at), value: Value::List(nodes) })
                }
                Some(Open::Map(start, entries, _)) => {
                    self.put(Node { at: start.until(at), value: Value::Map(entries) })
                }
                None => false,
            },
        }
    }

    fn enter(&mut self, open: Open) -> bool {
        let (Open::List(at, _) | Open::Map(at, _, _)) = &open;
        if self.open.len() == SPEC_DEPTH_MAX {
            let message = format!("this is nested deeper than {SPEC_DEPTH_MAX} levels");
            self.findings.push(Finding::new(Code::TooLarge, *at, message, "No spec needs that."));
            return false;
        }
        self.open.push(open);
        true
    }

    fn put(&mut self, node: Node) -> bool {
        self.values += 1;
        if self.values > SPEC_VALUES_MAX {
            let message = format!("the spec has more than {SPEC_VALUES_MAX} values");
            self.findings.push(Finding::new(Code::TooLarge, node.at, message, "Is this the right file?"));
            return false;
        }
        let Some(open) = self.open.pop() else {
            self.root = Some(node);
            return true;
        };
        let open = match open {
            Open::List(at, mut nodes) => {
                nodes.push(node);
                Open::List(at, nodes)
            }
            Open::Map(at, entries, None) => Open::Map(at, entries, Some(self.key(node))),
            Open::Map(at, mut entries, Some((key, key_at))) => {
                match entries.iter().find(|entry| entry.key == key) {
                    Some(first) => self.refuse_duplicate(&key, key_at, first.key_at),
                    None => entries.push(Entry { key, key_at, node }),
                }
                Open::Map(at, entries, None)
            }
        };
        self.open.push(open);
        true
    }

    /// A key is always a text: `no:` is the key `no`, `1:` the key `1`.
    fn key(&mut self, node: Node) -> (String, Place) {
        let key = match node.value {
            Value::Text(text) | Value::Number(text) => text,
            Value::Flag(flag) => flag.to_string(),
            Value::Null => "null".to_owned(),
            Value::Refused => String::new(),
            Value::List(_) | Value::Map(_) => {
                self.refuse(node.at, "a list or map cannot be a key", "Use a plain word as the key.");
                String::new()
            }
        };
        (key, node.at)
    }

    fn scalar(&mut self, at: Place, text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
        if tag.is_some() {
            self.refuse_tag(at, tag);
            return Value::Refused;
        }
        if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.into_owned()) }
    }

    fn refuse_syntax(&mut self, error: &ScanError) -> bool {
        let at = self.places.of_error(error.marker());
        let help = "Check the indentation and the quotes at and just before this place.";
        let message = format!("this is not YAML: {}", error.info());
        self.findings.push(Finding::new(Code::NotYaml, at, message, help));
        false
    }

    fn refuse_duplicate(&mut self, key: &str, at: Place, first: Place) {
        let message = format!("`{key}` is given twice");
        let help = format!("Keep one; the first is in line {}.", first.line);
        self.findings.push(Finding::new(Code::DuplicateKey, at, message, help));
    }

    fn refuse_tag(&mut self, at: Place, tag: Option<&Tag>) {
        if let Some(tag) = tag {
            let message = format!("`{tag}` is a YAML tag");
            let help = "Remove it; put a text that looks like a number in quotes.";
            self.findings.push(Finding::new(Code::YamlFeature, at, message, help));
        }
    }

    fn warn_of_anchor(&mut self, anchor: usize, at: Place) {
        if anchor != 0 {
            self.refuse(at, "this has a YAML anchor (`&`)", "Remove it; Isles reads no anchors and aliases.");
        }
    }

    fn refuse(&mut self, at: Place, message: &str, help: &str) {
        self.findings.push(Finding::new(Code::YamlFeature, at, message.to_owned(), help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, json: &serde_json::Value) {
        let mut findings = Vec::new();
        let tree = read(text, &mut findings).expect(text);
        assert!(findings.is_empty(), "{text}: {findings:?}");
        assert_eq!(&tree.to_json(), json, "{text}");
    }

    fn refused(text: &str, code: Code, line: usize) {
        let mut findings = Vec::new();
        read(text, &mut findings);
        let found: Vec<_> = findings.iter().map(|f| (f.code(), f.place().line)).collect();
        assert_eq!(found, [(code, line)], "{text}");
    }

    #[test]
    fn words_of_older_yaml_are_texts() {
        check(
            "a: no\nb: on\nc: 12:30\nd: 0777",
            &serde_json::json!({"a": "no", "b": "on", "c": "12:30", "d": "0777"}),
        );
        check("no: true", &serde_json::json!({"no": true}));
    }

    #[test]
    fn a_place_counts_bytes_where_letters_are_wide() {
        let text = "a: \"\u{e9}\u{e9}\"\nb: hello   # why\n";
        let mut findings = Vec::new();
        let tree = read(text, &mut findings).expect("it is YAML");
        let at = tree.get("b").expect("b is given").at;
        assert_eq!((&text[at.start..at.end], at.line, at.column), ("hello", 2, 4));
    }

    #[test]
    fn what_a_spec_may_not_contain_is_named_with_its_line() {
        refused("a: 1\na: 2", Code::DuplicateKey, 2);
        refused("a: &x 1", Code::YamlFeature, 1);
        refused("a: 1\nb: !!str 2", Code::YamlFeature, 2);
        refused("a: 1\n---\nb: 2", Code::YamlFeature, 2);
        refused("a: 1\n? [b]\n: c", Code::YamlFeature, 2);
        refused("a: [1", Code::NotYaml, 1);
        refused("# nothing\n", Code::Empty, 1);
        refused(&format!("a: {}", "[".repeat(SPEC_DEPTH_MAX + 1)), Code::TooLarge, 1);
        refused(&format!("a: [{}]", "1,".repeat(SPEC_VALUES_MAX)), Code::TooLarge, 1);
        refused(&"#".repeat(SPEC_BYTES_MAX + 1), Code::TooLarge, 1);
    }
}
