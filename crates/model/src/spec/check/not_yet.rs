//! Rules about what this version cannot do: a promise of safety is refused, anything else is kept and said.

use super::Check;
use crate::spec::codes::Code;

/// Keys that are read and kept, and have no effect in this version, with what they are waiting for.
const LATER: [(&[&str], &str); 8] = [
    (&["sessions"], "Sessions that follow users"),
    (&["edge_functions"], "Functions at the edge"),
    (&["observability"], "Alerts"),
    (&["render"], "Files for the cloud"),
    (&["dns"], "DNS answers for the domain"),
    (&["database", "conflicts"], "Conflicts between regions that all write"),
    (&["routing", "policy"], "DNS answers for the domain"),
    (&["routing", "ttl"], "DNS answers for the domain"),
];

pub(super) fn rules(check: &mut Check<'_>) {
    one_writer_only(check);
    no_residency(check);
    for (path, missing) in LATER {
        say_if_given(check, path, missing);
    }
    let names: Vec<&str> = check.written(&["regions"]).entries().map(|(name, _)| name).collect();
    for name in names {
        say_if_given(check, &["regions", name, "weight"], "DNS answers by weight");
    }
}

/// Warns of a key without effect, unless something is wrong with its value anyway.
fn say_if_given(check: &mut Check<'_>, path: &[&str], missing: &str) {
    let Some(node) = check.written(path).0 else { return };
    let within = node.at.start..=node.at.end;
    if check.findings.iter().any(|finding| within.contains(&finding.place().start)) {
        return;
    }
    let message = format!("`{}` has no effect yet", path.join("."));
    let help = format!("{missing} are not in this version; the key is checked, kept and otherwise ignored.");
    check.add(Code::NotObeyedYet, check.at(path), message, help);
}

fn one_writer_only(check: &mut Check<'_>) {
    let path = ["pattern"];
    if check.written(&path).text().as_deref() == Some("active-active") {
        let message =
            "this version does not resolve concurrent writes, so it refuses active-active".to_owned();
        let help = "Use `pattern: read-replicas`: every region answers reads, and forwards writes to one.";
        check.add(Code::PatternNotYet, check.at(&path), message, help);
    }
}

fn no_residency(check: &mut Check<'_>) {
    let path = ["residency"];
    if check.written(&path).entries().next().is_some() {
        let message =
            "this version does not keep data in its jurisdiction, so it refuses residency rules".to_owned();
        let help = "Remove `residency` and list only regions where all of the data may be: every region gets a copy.";
        check.add(Code::ResidencyNotYet, check.at(&path), message, help);
    }
}
