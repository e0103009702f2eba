//! Every Rust file opens with what it does, and tells one story.

use super::{Finding, tree::Tree};

/// Past this many lines a file needs a line `//! Because …`.
const LINES_MAX: usize = 500;

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    tree.texts("rs").flat_map(|(path, text)| [opening(path, text), length(path, text)]).flatten().collect()
}

fn opening(path: &str, text: &str) -> Option<Finding> {
    let opens = text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 8);
    (!opens).then(|| Finding::new(path, "open with `//!` and one sentence that says what the file does"))
}

fn length(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    let excused = text.lines().any(|line| line.starts_with("//! Because "));
    (lines > LINES_MAX && !excused).then(|| {
        Finding::new(path, format!("{lines} lines: give the second story a file, or say `//! Because …`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: usize) {
        assert_eq!(findings(&Tree::of(&[("a.rs", text)])).len(), expect, "{text:.40}");
    }

    #[test]
    fn a_file_says_what_it_does_and_a_long_one_why_it_is_long() {
        check("//! Tells time.\nfn main() {}\n", 0);
        check("fn main() {}\n", 1);
        check("//!\nfn main() {}\n", 1);
        let long = "// more\n".repeat(LINES_MAX);
        check(&format!("//! Tells time.\n{long}"), 1);
        check(&format!("//! Tells time.\n//! Because time is long.\n{long}"), 0);
    }
}
