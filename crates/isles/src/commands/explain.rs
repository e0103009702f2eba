//! Explains a mistake's code: what it means, why it matters, how to mend it.

use isles_model::spec::Code;
use serde_json::json;

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
};

/// The arguments of `isles explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The code, as `isles check` prints it (ISL030). Without one, all codes are listed.
    pub(crate) code: Option<String>,
}

/// Prints one explanation, or the list of codes.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    let Some(text) = &args.code else {
        list(global.json);
        return Ok(Exit::Done);
    };
    let code: Code = text.parse().map_err(|error: isles_model::spec::UnknownCode| {
        Failure::usage(error.to_string(), "`isles explain` without a code lists them all.")
    })?;
    if global.json {
        let mut object = summary(code);
        object["explanation"] = code.explanation().into();
        say(&object.to_string());
    } else {
        say(&format!("{code} ({}): {}\n\n{}", severity(code), code.title(), code.explanation()));
    }
    Ok(Exit::Done)
}

fn list(as_json: bool) {
    if as_json {
        say(&Code::ALL.iter().map(|code| summary(*code)).collect::<serde_json::Value>().to_string());
    } else {
        let line = |code: &Code| format!("{code}  {:<8} {}", severity(*code), code.title());
        say(&Code::ALL.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
}

fn summary(code: Code) -> serde_json::Value {
    json!({"code": code.to_string(), "severity": severity(code), "title": code.title()})
}

fn severity(code: Code) -> &'static str {
    if code.is_error() { "error" } else { "warning" }
}
