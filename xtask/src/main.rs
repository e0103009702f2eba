//! `cargo xtask check`: all that CI does, in the same order. `tidy`: the repository keeps its own word. `bless`:
//! golden files are written anew.

use std::process::ExitCode;

use xtask::{root, steps, tidy};

const USAGE: &str = "cargo xtask check | tidy | bless";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let passed = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => steps::check(),
        ["tidy"] => say(&tidy::findings(&root())),
        ["bless"] => steps::bless(),
        _ => {
            eprintln!("usage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(findings: &[tidy::Finding]) -> bool {
    for finding in findings {
        eprintln!("{finding}");
    }
    findings.is_empty()
}
