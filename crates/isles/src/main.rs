//! The `isles` command: reads argv, does one thing, says what happened, and ends with an exit code that a script can trust.
//!
//! Holds no logic of its own: each file in `commands/` turns arguments into calls of the crates below.

mod cli;
mod commands;
mod operate;
mod outcome;
mod running;
mod spec_file;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return outcome::usage(&error),
    };
    let json = cli.global.json;
    match commands::run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.print(json),
    }
}
