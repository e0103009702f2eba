//! Writes the description of the spec as a page for people: every key, what it takes, what it is for.

use std::fmt::Write as _;

use super::{
    keys::SPEC,
    shape::{Key, Shape},
    suggest::either,
};

/// The reference of the spec in Markdown: a section for every map with keys of its own.
pub fn reference() -> String {
    let mut page = String::from(
        "# Reference of `isles.yaml`\n\n\
         Written by `isles schema --markdown` from the description that the reader itself uses. Keys in **bold** must be there.\n\
         A time is a number with `ms`, `s`, `m` or `h`. `isles explain` lists what can be wrong.\n",
    );
    section(&mut page, "The spec", "", &SPEC);
    page
}

fn section(page: &mut String, title: &str, path: &str, shape: &Shape) {
    let Shape::Record(keys) = shape else { return };
    let _ = write!(page, "\n## {title}\n\n| key | takes | what for |\n|---|---|---|\n");
    for key in *keys {
        let name = if key.required { format!("**`{}`**", key.name) } else { format!("`{}`", key.name) };
        let _ = writeln!(page, "| {name} | {} | {} |", takes(&key.shape), key.about);
    }
    for key in *keys {
        for (inner_path, inner) in records(key, path) {
            section(page, &format!("`{inner_path}`"), &inner_path, inner);
        }
    }
}

/// The maps with keys of their own right below a key, with the path that leads there.
fn records(key: &'static Key, path: &str) -> Vec<(String, &'static Shape)> {
    let here = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
    let mut found = Vec::new();
    let mut left = vec![(here, &key.shape)];
    while let Some((path, shape)) = left.pop() {
        match shape {
            Shape::Record(_) => found.push((path, shape)),
            Shape::Map(_, of) => left.push((format!("{path}.NAME"), of)),
            Shape::List(of) => left.push((format!("{path}[]"), of)),
            Shape::Either(a, b) => left.extend([(path.clone(), *b), (path, *a)]),
            Shape::Name
            | Shape::Region
            | Shape::Host
            | Shape::Text
            | Shape::Literal
            | Shape::UrlPath
            | Shape::Endpoint
            | Shape::Count { .. }
            | Shape::Flag
            | Shape::Duration
            | Shape::Choice(_)
            | Shape::Free => {}
        }
    }
    found
}

fn takes(shape: &Shape) -> String {
    match shape {
        Shape::Choice(words) => either(words),
        Shape::Count { min, max } => format!("{min} to {max}"),
        Shape::List(of) => format!("a list: {}", takes(of)),
        Shape::Map(_, of) => format!("a map of names: {}", takes(of)),
        Shape::Either(a, b) => format!("{}; or {}", takes(a), takes(b)),
        Shape::Name
        | Shape::Region
        | Shape::Host
        | Shape::Text
        | Shape::Literal
        | Shape::UrlPath
        | Shape::Endpoint
        | Shape::Flag
        | Shape::Duration
        | Shape::Record(_)
        | Shape::Free => shape.expected(),
    }
}
