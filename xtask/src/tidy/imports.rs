//! Holds the crates to the table in ARCHITECTURE.md that says which may import which.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, metadata::Package, tree::Tree};

/// Where the table is.
pub(super) const ARCHITECTURE: &str = "ARCHITECTURE.md";
const HEAD: &str = "| crate | may import |";
const DEVELOPMENT: &str = "dev";

pub(super) fn findings(tree: &Tree, workspace: &[Package]) -> Vec<Finding> {
    let Some(table) = tree.text(ARCHITECTURE).and_then(table) else {
        return vec![Finding::new(
            ARCHITECTURE,
            format!("has no import table (a line that begins `{HEAD}`)"),
        )];
    };
    let crates: BTreeSet<&str> = workspace.iter().map(|package| short(&package.name)).collect();
    let mut findings = Vec::new();
    for package in workspace {
        let name = short(&package.name);
        let Some(allowed) = table.get(name) else {
            findings.push(Finding::new(
                ARCHITECTURE,
                format!("the import table does not name the crate `{name}`"),
            ));
            continue;
        };
        for import in package.dependencies.iter().filter(|line| line.kind.as_deref() != Some(DEVELOPMENT)) {
            let import = short(&import.name);
            if crates.contains(import) && !allowed.contains(import) {
                let what = format!("`{name}` imports `{import}`, which the import table forbids");
                findings.push(Finding::new(ARCHITECTURE, what));
            }
        }
    }
    for (name, allowed) in &table {
        for unknown in allowed.iter().chain([name]).filter(|name| !crates.contains(name.as_str())) {
            findings.push(Finding::new(
                ARCHITECTURE,
                format!("the import table names `{unknown}`, which is no crate"),
            ));
        }
    }
    findings
}

/// A crate as the table calls it: `isles-model` is `model`.
fn short(name: &str) -> &str {
    name.strip_prefix("isles-").unwrap_or(name)
}

/// Crate to the crates it may import.
fn table(text: &str) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let rows = text.lines().skip_while(|line| !line.starts_with(HEAD)).skip(2);
    let mut table = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (names, imports) = (cells.next()?, cells.next()?);
        let imports: BTreeSet<String> = imports
            .split([' ', ','])
            .filter(|word| !word.is_empty() && *word != "-")
            .map(str::to_owned)
            .collect();
        for name in names.split(", ") {
            table.insert(name.to_owned(), imports.clone());
        }
    }
    (!table.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| crate | may import | its wall |\n|---|---|---|\n| model | - | a |\n| edge, postgres | model | b |\n";

    fn package(name: &str, imports: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| {
            serde_json::from_value(serde_json::json!({"name": name, "kind": kind})).unwrap()
        };
        let dependencies = imports.iter().map(dependency).collect();
        Package { name: name.to_owned(), version: String::new(), license: None, source: None, dependencies }
    }

    fn check(edge: &[(&str, Option<&str>)], expect: &[&str]) {
        let tree = Tree::of(&[(ARCHITECTURE, TABLE)]);
        let workspace =
            [package("isles-model", &[]), package("isles-edge", edge), package("isles-postgres", &[])];
        let found: Vec<_> = findings(&tree, &workspace).into_iter().map(|finding| finding.what).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_crate_imports_what_the_table_allows_and_tests_import_what_they_like() {
        check(&[("isles-model", None), ("tokio", None), ("isles-postgres", Some("dev"))], &[]);
        check(&[("isles-postgres", None)], &["`edge` imports `postgres`, which the import table forbids"]);
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_found() {
        let tree = Tree::of(&[(ARCHITECTURE, TABLE)]);
        let found = findings(
            &tree,
            &[package("isles-model", &[]), package("isles-edge", &[]), package("xtask", &[])],
        );
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
