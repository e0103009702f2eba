//! Documents keep up with the product: every whole spec in them loads, every code in them is explained, every link
//! in them leads somewhere.

use isles_model::spec::{self, Code};

use super::{Finding, tree::Tree};

pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let documents = tree.texts("md").flat_map(|(path, text)| {
        let each = [specs(path, text), links(tree, path, text)];
        each.into_iter().flatten()
    });
    let codes = tree.texts("md").chain(tree.texts("rs")).flat_map(|(path, text)| codes(path, text));
    documents.chain(codes).collect()
}

/// Blocks marked `yaml` with `regions:` and `services:` at their left edge are whole specs.
fn specs(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if line != "```yaml" {
            continue;
        }
        let block: Vec<&str> =
            lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
        let has = |key: &str| block.iter().any(|line| line.starts_with(key));
        if !(has("regions:") && has("services:")) {
            continue;
        }
        let Err(mistakes) = spec::load(path, &block.join("\n")) else { continue };
        for mistake in mistakes.iter().filter(|mistake| mistake.is_error()) {
            let what = format!("this spec does not load: {} {}", mistake.code(), mistake.message());
            findings.push(Finding::new(format!("{path}:{}", number + mistake.place().line), what));
        }
    }
    findings
}

/// `ISL` and three digits, outside of tests: those may name what does not exist.
fn codes(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shown =
        if path.contains("tests/") { "" } else { text.split("#[cfg(test)]").next().unwrap_or_default() };
    for (line, number) in shown.lines().zip(1..) {
        for (at, _) in line.match_indices("ISL") {
            let digits =
                line.get(at + 3..at + 6).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            let Some(digits) = digits else { continue };
            if format!("ISL{digits}").parse::<Code>().is_err() {
                findings.push(Finding::new(
                    format!("{path}:{number}"),
                    format!("ISL{digits} is explained nowhere"),
                ));
            }
        }
    }
    findings
}

/// `](path)`, relative to the document.
fn links(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || link.contains("://") || link.contains(' ') {
                continue;
            }
            if !tree.has(&joined(directory, target)) {
                findings.push(Finding::new(
                    format!("{path}:{number}"),
                    format!("the link to {link} leads nowhere"),
                ));
            }
        }
    }
    findings
}

fn joined(directory: &str, target: &str) -> String {
    let mut steps: Vec<&str> = directory.split('/').filter(|step| !step.is_empty()).collect();
    for step in target.split('/') {
        match step {
            "." | "" => {}
            ".." => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    steps.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expect: &[&str]) {
        let tree = Tree::of(&[(path, text), ("docs/glossary.md", "")]);
        let findings = findings(&tree);
        let found: Vec<_> = findings.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(found, expect, "{findings:?}");
    }

    #[test]
    fn a_whole_spec_loads_and_a_part_of_one_is_left_alone() {
        let spec = "name: shop\nregions: [eu-west-1, us-east-1]\ndatabase: { engine: postgres }\n\
                    services: { web: { command: node server.js, healthcheck: { path: / } } }\n";
        check("a.md", &format!("```yaml\n{spec}```\n"), &[]);
        check("a.md", &format!("\n```yaml\n{spec}colour: blue\n```\n"), &["a.md:7"]);
        check("a.md", "```yaml\ncolour: blue\n```\n", &[]);
    }

    #[test]
    fn a_code_that_is_explained_may_be_named() {
        check("a.md", "ISL001\nISL998, ISLES, ISL", &["a.md:2"]);
    }

    #[test]
    fn a_link_leads_somewhere() {
        check(
            "docs/a.md",
            "[g](glossary.md#word) [w](https://example.org) [up](../docs/glossary.md)\n[x](b.md)",
            &["docs/a.md:2"],
        );
    }
}
