//! Finds its way in the SQL text that `pg_dump` writes: names, quotes, brackets.

/// A possibly qualified, possibly quoted name at the start of a text: `public."my table"`.
pub(crate) fn leading_name(text: &str) -> Option<&str> {
    let mut quoted = false;
    let end = text
        .char_indices()
        .find(|(_, letter)| {
            if *letter == '"' {
                quoted = !quoted;
            }
            let in_name = letter.is_alphanumeric() || "\"._$".contains(*letter);
            !(quoted || in_name)
        })
        .map_or(text.len(), |(at, _)| at);
    (end > 0 && !quoted).then(|| &text[..end])
}

/// The name behind the first of some words: `name_after("CREATE RULE r AS ON INSERT TO public.t", " TO ")`.
pub(crate) fn name_after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    leading_name(&text[text.find(word)? + word.len()..])
}

/// Where a text is outside quotes and brackets: byte offsets and letters.
fn plain_letters(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut depth = 0_i32;
    let mut quote: Option<(char, bool)> = None;
    let mut escaped = false;
    let mut before = ' ';
    text.char_indices().filter(move |(_, letter)| {
        let previous = std::mem::replace(&mut before, *letter);
        if let Some((mark, escapes)) = quote {
            if escaped {
                escaped = false;
            } else if escapes && *letter == '\\' {
                escaped = true;
            } else if *letter == mark {
                quote = None;
            }
            return false;
        }
        match letter {
            '\'' | '"' => {
                quote = Some((*letter, *letter == '\'' && previous == 'E'));
                false
            }
            '(' | '[' => {
                depth += 1;
                false
            }
            ')' | ']' => {
                depth -= 1;
                depth < 0
            }
            _ => depth == 0,
        }
    })
}

/// Splits a list at its outermost commas.
pub(crate) fn split_list(text: &str) -> Vec<&str> {
    let mut start = 0;
    let mut items = Vec::new();
    for (at, letter) in plain_letters(text) {
        if letter == ',' {
            items.push(text[start..at].trim());
            start = at + 1;
        }
    }
    items.push(text[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}

/// Splits a text that stands behind an opening bracket at the bracket that closes it.
pub(crate) fn split_closing(text: &str) -> Option<(&str, &str)> {
    let (at, _) = plain_letters(text).find(|(_, letter)| *letter == ')')?;
    Some((&text[..at], &text[at + 1..]))
}

/// Splits at the first occurrence of a word outside quotes and brackets.
pub(crate) fn split_word<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let first = word.chars().next()?;
    let (at, _) =
        plain_letters(text).find(|(at, letter)| *letter == first && text[*at..].starts_with(word))?;
    Some((&text[..at], &text[at + word.len()..]))
}

/// Splits a text into statements at its outermost semicolons. Not for function bodies.
pub(crate) fn statements(text: &str) -> Vec<&str> {
    let mut start = 0;
    let mut all = Vec::new();
    for (at, letter) in plain_letters(text) {
        if letter == ';' {
            all.push(text[start..at].trim());
            start = at + 1;
        }
    }
    all.push(text[start..].trim());
    all.retain(|statement| !statement.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_their_quotes() {
        assert_eq!(leading_name("public.\"my table\" (id"), Some("public.\"my table\""));
        assert_eq!(name_after("CREATE RULE r AS ON INSERT TO public.t DO", " TO "), Some("public.t"));
        assert_eq!(leading_name("(x"), None);
    }

    #[test]
    fn lists_are_split_outside_quotes_and_brackets_only() {
        let list =
            "a numeric(10,2) DEFAULT 'x,''y)'::text, \"b,c\" text, d text DEFAULT E'\\',', CHECK ((a > 0))";
        assert_eq!(split_list(list).len(), 4);
        assert_eq!(split_closing("a (b) ')' c) rest"), Some(("a (b) ')' c", " rest")));
        assert_eq!(split_word("text DEFAULT ' DEFAULT '", " DEFAULT "), Some(("text", "' DEFAULT '")));
        assert_eq!(statements("A ';'; B;\n").len(), 2);
    }
}
