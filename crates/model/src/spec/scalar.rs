//! Tells numbers, truth values and nothing from texts, by YAML 1.2's core schema (chapter 10.3.2).

use std::borrow::Cow;

use super::tree::Value;

/// Types a plain scalar by the core schema.
pub(super) fn plain(text: Cow<'_, str>) -> Value {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Flag(true),
        "false" | "False" | "FALSE" => Value::Flag(false),
        word if is_number(word) => Value::Number(text.into_owned()),
        _ => Value::Text(text.into_owned()),
    }
}

/// Decimal, octal (`0o`), hexadecimal (`0x`) and floating-point numbers; `.inf` and `.nan`.
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if let Some(digits) = word.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    }
    if let Some(digits) = word.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(word, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let numeric =
        unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    let has_digit = unsigned.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.');
    numeric && has_digit && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_was_written() {
        assert_eq!(plain("1.10".into()), Value::Number("1.10".into()));
        for number in ["0", "-1", "1e3", ".5", "0x1F", "0o17", ".inf"] {
            assert_eq!(plain(number.into()), Value::Number(number.into()));
        }
        for text in ["1.2.3", "1-2", "e3", "-", ".", "inf", "nan", "1s", "+"] {
            assert_eq!(plain(text.into()), Value::Text(text.into()));
        }
    }
}
