//! ARCHITECTURE.md names only crates, paths and tests that exist.
//!
//! What stands between backticks is a claim: with a `/` or a file's ending it is a path from the root; with three
//! underscores or more it is a test; `isles-…` is a crate.

use super::{Finding, imports::ARCHITECTURE, metadata::Package, tree::Tree};

const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".sh"];
/// Tests' names are sentences; nothing else in Rust has so many words.
const UNDERSCORES_MIN: usize = 3;

pub(super) fn findings(tree: &Tree, workspace: &[Package]) -> Vec<Finding> {
    let Some(text) = tree.text(ARCHITECTURE) else { return Vec::new() };
    let mut findings = Vec::new();
    for (line, claim) in claims(text) {
        let untrue = match kind(claim) {
            Some(Kind::Path) => (!tree.has(claim)).then_some("is no path of this repository"),
            Some(Kind::Crate) => {
                let known = workspace.iter().any(|package| package.name == claim);
                (!known).then_some("is no crate of this workspace")
            }
            Some(Kind::Test) => {
                let head = format!("fn {claim}(");
                let known = tree.texts("rs").any(|(_, text)| text.contains(&head));
                (!known).then_some("is no test of this repository")
            }
            None => None,
        };
        findings.extend(
            untrue.map(|what| Finding::new(format!("{ARCHITECTURE}:{line}"), format!("`{claim}` {what}"))),
        );
    }
    findings
}

enum Kind {
    Path,
    Crate,
    Test,
}

fn kind(claim: &str) -> Option<Kind> {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if claim.contains(' ') || claim.starts_with(['/', '<']) || claim.contains("://") {
        None
    } else if claim.contains('/') || ENDINGS.iter().any(|ending| claim.ends_with(ending)) {
        Some(Kind::Path)
    } else if claim.starts_with("isles-") {
        Some(Kind::Crate)
    } else if claim.chars().all(plain) && claim.matches('_').count() >= UNDERSCORES_MIN {
        Some(Kind::Test)
    } else {
        None
    }
}

/// What stands between backticks outside of code blocks, with its line.
fn claims(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let prose = text.lines().zip(1..).filter(move |(line, _)| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    prose.flat_map(|(line, number)| line.split('`').skip(1).step_by(2).map(move |claim| (number, claim)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let tree = Tree::of(&[(ARCHITECTURE, text), ("crates/a.rs", "fn a_thing_is_as_it_is() {}")]);
        let found: Vec<_> = findings(&tree, &[]).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn what_exists_may_be_named() {
        check("`crates/a.rs`, `a_thing_is_as_it_is`, `cargo xtask`, `Plan`, `until`, `/v3/kv/txn`", &[]);
        check("```\n`crates/b.rs`\n```", &[]);
    }

    #[test]
    fn what_does_not_exist_is_found_with_its_line() {
        check("\n`crates/b.rs`", &["ARCHITECTURE.md:2: `crates/b.rs` is no path of this repository"]);
        check(
            "`a_thing_is_not_so`",
            &["ARCHITECTURE.md:1: `a_thing_is_not_so` is no test of this repository"],
        );
        check("`isles-moon`", &["ARCHITECTURE.md:1: `isles-moon` is no crate of this workspace"]);
    }
}
