//! Holds a spec against the description of its keys and reports everything that differs, not only the first thing.

use super::{
    codes::Code,
    duration,
    finding::{FINDINGS_MAX, Finding, Place},
    shape::{Key, KeyKind, Shape},
    suggest::{either, nearest},
    tree::{Node, Value},
};
use crate::{RegionName, rtt};

/// Reports where `node` differs from `shape`. `path` names the value: empty at the top, else `services.web`.
pub(super) fn conform(node: &Node, shape: &Shape, path: &str, findings: &mut Vec<Finding>) {
    if findings.len() > FINDINGS_MAX {
        return;
    }
    let mut add =
        |code, message: String, help: String| findings.push(Finding::new(code, node.at, message, help));
    match (&node.value, shape) {
        (Value::Refused, _) | (_, Shape::Free) => {}
        (Value::Null, _) => {
            let help = format!("Give it {} or remove the key.", shape.expected());
            add(Code::WrongType, format!("`{path}` has no value"), help);
        }
        (_, Shape::Either(a, b)) => conform(node, if same_form(node, b) { b } else { a }, path, findings),
        (Value::List(nodes), Shape::List(of)) => {
            for (index, node) in nodes.iter().enumerate() {
                conform(node, of, &format!("{path}[{index}]"), findings);
            }
        }
        (Value::Map(_), Shape::Map(kind, of)) => conform_map(node, *kind, of, path, findings),
        (Value::Map(_), Shape::Record(keys)) => conform_record(node, keys, path, findings),
        (Value::Text(text), _) if is_single(shape) => {
            if let Some((code, message, help)) = wrong_text(text, shape, path) {
                add(code, message, help);
            }
        }
        (Value::Number(number), Shape::Count { min, max }) => {
            if !number.parse::<u64>().is_ok_and(|n| (*min..=*max).contains(&n)) {
                let help = format!("Use a whole number from {min} to {max}.");
                add(Code::BadValue, format!("`{path}` cannot be {number}"), help);
            }
        }
        (Value::Number(number), Shape::Duration) => {
            let message = format!("`{path}: {number}` has no unit");
            add(Code::BadDuration, message, format!("Write `{number}s` or `{number}ms`."));
        }
        (Value::Flag(_) | Value::Number(_), Shape::Literal) | (Value::Flag(_), Shape::Flag) => {}
        (value, _) => {
            let place = if path.is_empty() { "the spec".to_owned() } else { format!("`{path}`") };
            let message = format!("{place} is {}, not {}", form(value), shape.expected());
            add(Code::WrongType, message, wrong_type_help(value, shape, path));
        }
    }
}

fn conform_record(node: &Node, keys: &[Key], path: &str, findings: &mut Vec<Finding>) {
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        match keys.iter().find(|key| key.name == entry.key) {
            Some(key) => conform(&entry.node, &key.shape, &join(path, key.name), findings),
            None if entry.key.is_empty() => {}
            None => findings.push(unknown_key(&entry.key, entry.key_at, keys, path)),
        }
    }
    for key in keys.iter().filter(|key| key.required && node.get(key.name).is_none()) {
        let owner = if path.is_empty() { "the spec".to_owned() } else { format!("`{path}`") };
        let help = format!("Add `{}: {}`. {}", key.name, key.shape.example(), key.about);
        let at = Place { end: node.at.start, ..node.at };
        findings.push(Finding::new(Code::MissingKey, at, format!("{owner} has no `{}`", key.name), help));
    }
}

fn unknown_key(typed: &str, at: Place, keys: &[Key], path: &str) -> Finding {
    let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
    let owner = if path.is_empty() { "a spec".to_owned() } else { format!("`{path}`") };
    let known = format!("Keys here: {}.", names.join(", "));
    let help = match nearest(typed, names) {
        Some(near) => format!("Did you mean `{near}`? {known}"),
        None => known,
    };
    Finding::new(Code::UnknownKey, at, format!("`{typed}` is not a key of {owner}"), help)
}

fn conform_map(node: &Node, kind: KeyKind, of: &Shape, path: &str, findings: &mut Vec<Finding>) {
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        let wrong = match kind {
            KeyKind::Name => wrong_text(&entry.key, &Shape::Name, path),
            KeyKind::Region => wrong_text(&entry.key, &Shape::Region, path),
            KeyKind::Variable if is_variable(&entry.key) => None,
            KeyKind::Variable => {
                let help = "Use letters, digits and underscores, no digit first.".to_owned();
                Some((Code::BadName, format!("`{}` is not a name for this", entry.key), help))
            }
        };
        if let Some((code, message, help)) = wrong {
            findings.push(Finding::new(code, entry.key_at, message, help));
        }
        // Because `us-east-1:` without details is how a map of regions is begun.
        let bare = entry.node.value == Value::Null
            && matches!(of, Shape::Record(keys) if keys.iter().all(|k| !k.required));
        if !bare {
            conform(&entry.node, of, &join(path, &entry.key), findings);
        }
    }
}

/// What is wrong with a text of a shape that takes one.
fn wrong_text(text: &str, shape: &Shape, path: &str) -> Option<(Code, String, String)> {
    let is_not =
        |code, what: &str, help: &str| Some((code, format!("`{text}` is not {what}"), help.to_owned()));
    match shape {
        Shape::Name if text.parse::<RegionName>().is_err() => is_not(
            Code::BadName,
            "a name that can stand in DNS",
            "Use 1 to 63 lower-case letters, digits and hyphens, a letter first, no hyphen last.",
        ),
        Shape::Region if text.parse::<RegionName>().is_err() => {
            let near = rtt::nearest_names(text).into_iter().next();
            let guess = near.map(|near| format!("Did you mean `{near}`? ")).unwrap_or_default();
            let help =
                format!("{guess}A region's name has lower-case letters, digits and hyphens, a letter first.");
            Some((Code::BadName, format!("`{text}` is not a name of a region"), help))
        }
        Shape::Host if !is_host(text) => is_not(
            Code::BadValue,
            "a host name",
            "Write it as in api.example.com: no scheme, no port, no path.",
        ),
        Shape::UrlPath if !is_url_path(text) => {
            is_not(Code::BadValue, "a path", "Begin it with a slash, as in /healthz, and use no spaces.")
        }
        Shape::Endpoint if !is_endpoint(text) => is_not(
            Code::BadEndpoint,
            "the URL of an etcd member",
            "Write the scheme, the host and the port, as in https://etcd-1.example.com:2379.",
        ),
        Shape::Duration if duration::parse(text).is_none() => is_not(
            Code::BadDuration,
            &format!("a length of time for `{path}`"),
            "Write a number and a unit: 500ms, 3s, 2m, 1h.",
        ),
        Shape::Choice(words) if !words.contains(&text) => {
            let help = match nearest(text, words.iter().copied()) {
                Some(near) => format!("Did you mean `{near}`? It can be {}.", either(words)),
                None => format!("It can be {}.", either(words)),
            };
            Some((Code::BadChoice, format!("`{path}` cannot be `{text}`"), help))
        }
        Shape::Text if text.trim().is_empty() => {
            let help = "Give it a value or remove the key.".to_owned();
            Some((Code::BadValue, format!("`{path}` is empty"), help))
        }
        Shape::Count { .. } => {
            let help = format!("Write a number without quotes, as in `{}`.", shape.example());
            Some((Code::WrongType, format!("`{path}` is the text `{text}`, not a whole number"), help))
        }
        Shape::Flag => {
            let help = format!("Write it without quotes: `{}`.", shape.example());
            Some((Code::WrongType, format!("`{path}` is the text `{text}`, not true or false"), help))
        }
        Shape::Name
        | Shape::Region
        | Shape::Host
        | Shape::Text
        | Shape::Literal
        | Shape::UrlPath
        | Shape::Endpoint
        | Shape::Duration
        | Shape::Choice(_)
        | Shape::List(_)
        | Shape::Map(..)
        | Shape::Record(_)
        | Shape::Either(..)
        | Shape::Free => None,
    }
}

fn wrong_type_help(value: &Value, shape: &Shape, path: &str) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    match (value, shape) {
        (Value::Number(_), Shape::Name | Shape::Region) => {
            format!("A name begins with a letter, as in `{key}: {}`.", shape.example())
        }
        (Value::Number(_), Shape::Flag) => format!("Write it as in `{key}: {}`.", shape.example()),
        (Value::Number(written), _) if is_single(shape) => format!("Put it in quotes: `\"{written}\"`."),
        (Value::Flag(flag), _) if is_single(shape) => {
            format!("If the word is meant, put it in quotes: `\"{flag}\"`.")
        }
        (Value::Text(text), Shape::List(_)) => format!("Write it as a list: `{key}: [{text}]`."),
        _ => format!("Write it as in `{key}: {}`.", shape.example()),
    }
}

/// Whether a shape takes a single value.
fn is_single(shape: &Shape) -> bool {
    !matches!(shape, Shape::List(_) | Shape::Map(..) | Shape::Record(_) | Shape::Either(..))
}

/// Whether a value is single, a list or a map, as the shape wants it.
fn same_form(node: &Node, shape: &Shape) -> bool {
    match &node.value {
        Value::List(_) => matches!(shape, Shape::List(_)),
        Value::Map(_) => matches!(shape, Shape::Map(..) | Shape::Record(_)),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::Refused => is_single(shape),
    }
}

fn form(value: &Value) -> String {
    match value {
        Value::Null | Value::Refused => "nothing".to_owned(),
        Value::Flag(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::Text(_) => "a text".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn is_variable(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// At least two labels of letters, digits and inner hyphens (RFC 1123 section 2.1), 253 bytes at most.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(label)
}

fn is_url_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    };
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_a_host_and_perhaps_a_port() {
        for good in
            ["http://127.0.0.1:2379", "https://etcd-1.example.com:2379", "http://[::1]:2379", "https://etcd/"]
        {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "etcd:2379",
            "https://",
            "https://a b",
            "ftp://a:1",
            "http://a:0",
            "http://a:99999",
            "http://a/b",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn a_host_has_two_labels_or_more() {
        assert!(is_host("api.my-site.com") && !is_host("api") && !is_host("https://a.b") && !is_host("a..b"));
    }
}
