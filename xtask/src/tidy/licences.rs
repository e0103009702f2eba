//! Every dependency's licence is one that deny.toml allows.
//!
//! cargo-deny asks the same and more (advisories, sources); this is asked where it is not installed, too.

use std::collections::BTreeSet;

use super::{Finding, metadata::Package, tree::Tree};

const DENY: &str = "deny.toml";

pub(super) fn findings(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let allowed = tree.text(DENY).map(allowed).unwrap_or_default();
    let refused = packages.iter().filter(|package| package.source.is_some()).filter_map(|package| {
        let licence = package.license.as_deref().unwrap_or("none");
        let name = format!("{} {}", package.name, package.version);
        (!permits(licence, &allowed))
            .then(|| Finding::new(DENY, format!("{name} is licensed {licence}, which is not allowed")))
    });
    refused.collect()
}

/// The strings of the list `allow` in the section `[licenses]`.
fn allowed(text: &str) -> BTreeSet<&str> {
    let section = text.lines().skip_while(|line| line.trim() != "[licenses]");
    let list = section.skip_while(|line| !line.starts_with("allow")).take_while(|line| line.trim() != "]");
    list.filter_map(|line| line.split('"').nth(1)).collect()
}

/// Does an SPDX expression leave a choice that is allowed? `/` is cargo's older way to write `OR`.
fn permits(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let permitted = any(&mut rest, allowed);
    permitted && rest.is_empty()
}

/// `AND` binds tighter than `OR` (SPDX 2.3, annex D.4).
fn any(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut permitted = all(rest, allowed);
    while let ["OR", more @ ..] = *rest {
        *rest = more;
        permitted |= all(rest, allowed);
    }
    permitted
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    let mut permitted = one(rest, allowed);
    while let ["AND", more @ ..] = *rest {
        *rest = more;
        permitted &= one(rest, allowed);
    }
    permitted
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
    match *rest {
        ["(", more @ ..] => {
            *rest = more;
            let permitted = any(rest, allowed);
            let [")", more @ ..] = *rest else { return false };
            *rest = more;
            permitted
        }
        [licence, "WITH", exception, more @ ..] => {
            *rest = more;
            allowed.contains(format!("{licence} WITH {exception}").as_str())
        }
        [licence, more @ ..] => {
            *rest = more;
            allowed.contains(licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str =
        "[bans]\nallow = [\n  \"GPL-3.0\",\n]\n[licenses]\nallow = [\n  \"MIT\", # usual\n  \"ISC\",\n]\n";

    fn check(expression: &str, expect: bool) {
        assert_eq!(permits(expression, &allowed(ALLOWED)), expect, "{expression}");
    }

    #[test]
    fn one_allowed_choice_is_enough_and_every_part_is_needed() {
        check("MIT", true);
        check("MIT OR GPL-3.0", true);
        check("GPL-3.0/MIT", true);
        check("GPL-3.0", false);
        check("MIT AND GPL-3.0", false);
        check("(GPL-3.0 OR ISC) AND MIT", true);
        check("GPL-3.0 OR ISC AND MIT", true);
        check("MIT AND GPL-3.0 OR ISC", true);
        check("MIT WITH LLVM-exception", false);
        check("(MIT", false);
        check("none", false);
        check("", false);
    }
}
