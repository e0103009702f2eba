//! The repository is what its documents say.

use xtask::{root, tidy};

#[test]
fn the_repository_keeps_its_own_word() {
    let findings: Vec<String> = tidy::findings(&root()).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
