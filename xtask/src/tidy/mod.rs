//! Holds the repository to what it says of itself.
//!
//! The laws are written where people read them (ARCHITECTURE.md, deny.toml); this only compares.

mod claims;
mod documents;
mod imports;
mod licences;
mod metadata;
mod sources;
mod tree;

use std::{fmt, path::Path};

use tree::Tree;

/// One thing that is not as it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `path` or `path:line`, from the root.
    pub place: String,
    /// What is wrong, and how to mend it.
    pub what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is untidy, in the order of the places.
pub fn findings(root: &Path) -> Vec<Finding> {
    let mut findings = match looked_over(root) {
        Ok(findings) => findings,
        Err(error) => vec![Finding::new(".", format!("could not be looked over: {error}"))],
    };
    findings.sort();
    findings
}

/// Why the repository could not be looked over.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("{path} could not be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("`cargo metadata` did not run: {0}")]
    Cargo(#[source] std::io::Error),
    #[error("`cargo metadata` failed: {0}")]
    Metadata(String),
    #[error("`cargo metadata` prints something else than expected: {0}")]
    Shape(#[from] serde_json::Error),
}

fn looked_over(root: &Path) -> Result<Vec<Finding>, LookError> {
    let tree = Tree::read(root)?;
    let workspace = metadata::workspace(root)?;
    let dependencies = metadata::with_dependencies(root)?;
    Ok([
        sources::findings(&tree),
        imports::findings(&tree, &workspace),
        claims::findings(&tree, &workspace),
        documents::findings(&tree),
        licences::findings(&tree, &dependencies),
    ]
    .concat())
}
