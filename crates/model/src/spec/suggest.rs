//! Finds the word that was probably meant.

use crate::ids::REGION_NAME_BYTES_MAX;

/// The fewest letters by which one may be off.
const EDITS_MIN: usize = 1;

/// The known word nearest to a mistyped one, when it is near: off by at most a third of its letters, or the one that
/// it begins.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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
pub(crate) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// The DNS label nearest to a text (`My Shop` becomes `my-shop`); empty when no letter is left to begin it with.
pub(super) fn slug(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let joined = words.collect::<Vec<_>>().join("-");
    let from_letter = joined.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    from_letter[..from_letter.len().min(REGION_NAME_BYTES_MAX)].trim_end_matches('-').to_owned()
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
        assert_eq!(slug("@my_org/My Shop!"), "my-org-my-shop");
        assert_eq!(slug("2048"), "");
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
