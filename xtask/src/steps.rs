//! Runs CI's steps one after the other and stops at the first that fails.

use std::process::{Command, Stdio};

use crate::root;

/// A step's command line.
type Step<'a> = &'a [&'a str];

const FORMAT: Step<'_> = &["cargo", "fmt", "--all", "--check"];
const LINT: Step<'_> =
    &["cargo", "clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"];
const TIDY: Step<'_> = &["cargo", "xtask", "tidy"];
const DENY: Step<'_> = &["cargo", "deny", "--workspace", "check"];
const BUILD: Step<'_> = &["cargo", "build", "--release", "--workspace", "--all-targets"];
const DOCUMENTS: Step<'_> = &["cargo", "doc", "--workspace", "--no-deps", "--document-private-items"];
const NEXTEST: Step<'_> = &["cargo", "nextest", "run", "--release", "--workspace"];
const TEST: Step<'_> = &["cargo", "test", "--release", "--workspace"];

/// Documents are read by people who work on Isles: they may lead into private items.
const RUSTDOC: &str = "--deny warnings --allow rustdoc::private-intra-doc-links";

/// Format, lints, tidy, licences and advisories (where cargo-deny is installed), build, documentation, tests.
pub fn check() -> bool {
    let test = if installed(&["cargo", "nextest", "--version"]) { NEXTEST } else { TEST };
    let deny = installed(&["cargo", "deny", "--version"]);
    let steps = [
        Some(FORMAT),
        Some(LINT),
        Some(TIDY),
        deny.then_some(DENY),
        Some(BUILD),
        Some(DOCUMENTS),
        Some(test),
    ];
    steps.into_iter().flatten().all(|step| run(step, &[]))
}

/// Writes every golden file anew; `git diff` then shows what changed.
pub fn bless() -> bool {
    run(&["cargo", "test", "--package", "isles-model", "--tests"], &[("BLESS", "1")])
}

fn run(step: Step<'_>, environment: &[(&str, &str)]) -> bool {
    let [program, arguments @ ..] = step else { return true };
    eprintln!("\n$ {}", step.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .env("RUSTDOCFLAGS", RUSTDOC)
        .current_dir(root())
        .status();
    match status {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("could not run {program}: {error}");
            false
        }
    }
}

fn installed(step: Step<'_>) -> bool {
    let [program, arguments @ ..] = step else { return false };
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(root());
    command.status().is_ok_and(|status| status.success())
}
