//! Finds the word that was probably meant.

/// The fewest letters by which one may be off.
const EDITS_MIN: usize = 1;

/// The known word nearest to a mistyped one, when it is near: off by at most a third of its letters, or the one that
/// it begins.
pub(super) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |word: &str| word.to_ascii_lowercase().replace(['_', ' '], "-");
    let typed = plain(typed);
    known
        .into_iter()
        .filter_map(|word| {
            let other = plain(word);
            let edits = strsim::damerau_levenshtein(&typed, &other);
            let begins = typed.len() >= 3 && (other.starts_with(&typed) || typed.starts_with(&other));
            let near = edits <= EDITS_MIN.max(other.chars().count() / 3);
            (near || begins).then_some((edits, word))
        })
        .min()
        .map(|(_, word)| word)
}

/// Words with commas, `or` before the last.
pub(super) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        let known = ["healthcheck", "replicas", "command", "env", "read-your-writes"];
        assert_eq!(nearest("helthcheck", known), Some("healthcheck"));
        assert_eq!(nearest("health_check", known), Some("healthcheck"));
        assert_eq!(nearest("Read_Your_Writes", known), Some("read-your-writes"));
        assert_eq!(nearest("cmd", known), None);
        assert_eq!(nearest("comm", known), Some("command"));
        assert_eq!(nearest("", known), None);
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
