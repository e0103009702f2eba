//! How a command ends: an exit code, and on failure one message with its causes and what to do about it.

use std::{error::Error, io::Write as _, process::ExitCode};

/// The end of a command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Done, and something was found: a mistake, a missed objective, a sick region.
    Finding,
    /// The command was not understood.
    Usage,
    /// Understood, and refused because it could lose data or serve it from where it may not be.
    Refused,
    /// Another program's own exit code.
    Program(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Finding => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Program(code) => code,
        })
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

/// The end of a command that could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    said: Said,
}

/// What there is to say about it.
#[derive(Debug)]
enum Said {
    /// One message, its causes, and what to do (may be empty).
    Message { error: String, causes: Vec<String>, help: String },
    /// Diagnostics that show their places in the spec.
    Diagnostic(miette::Report),
}

impl Failure {
    /// It went wrong (exit code 1).
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self::with_help(error, "")
    }

    /// It went wrong (exit code 1), and this is what to do.
    pub(crate) fn with_help(error: impl Error + Send + Sync + 'static, help: impl Into<String>) -> Self {
        Self::of(Exit::Finding, error.to_string(), causes(&error), help.into())
    }

    /// A message of the command's own (exit code 1).
    pub(crate) fn message(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::of(Exit::Finding, message.into(), Vec::new(), help.into())
    }

    /// What another process of ours said of its failure (exit code 1).
    pub(crate) fn heard(error: String, causes: Vec<String>, help: String) -> Self {
        Self::of(Exit::Finding, error, causes, help)
    }

    /// The arguments make no sense (exit code 2).
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::of(Exit::Usage, message.into(), Vec::new(), help.into())
    }

    /// Refused for safety (exit code 3).
    pub(crate) fn refused(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::of(Exit::Refused, message.into(), Vec::new(), help.into())
    }

    /// A diagnostic that shows its place in the spec (exit code 1).
    pub(crate) fn diagnostic(report: impl Into<miette::Report>) -> Self {
        Self { exit: Exit::Finding, said: Said::Diagnostic(report.into()) }
    }

    fn of(exit: Exit, error: String, causes: Vec<String>, help: String) -> Self {
        Self { exit, said: Said::Message { error, causes, help } }
    }

    /// Prints it to standard error (as JSON to standard output where the user asked for that) and gives the exit code.
    pub(crate) fn print(self, json: bool) -> ExitCode {
        if json {
            say(&self.said.json().to_string());
        } else {
            // Because a broken pipe must not turn one failure into another, the result of writing is not looked at.
            let _ = writeln!(std::io::stderr(), "{:?}", self.said.into_report());
        }
        self.exit.into()
    }
}

impl Said {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Message { error, causes, help } => {
                serde_json::json!({ "error": error, "causes": causes, "help": help })
            }
            Self::Diagnostic(report) => {
                let related = report.related().into_iter().flatten();
                let causes: Vec<String> = related.map(ToString::to_string).collect();
                let help = report.help().map(|help| help.to_string()).unwrap_or_default();
                serde_json::json!({ "error": report.to_string(), "causes": causes, "help": help })
            }
        }
    }

    fn into_report(self) -> miette::Report {
        match self {
            Self::Message { error, causes, help } => {
                let because = causes.iter().map(|cause| format!("\n  because: {cause}")).collect::<String>();
                let diagnostic = miette::MietteDiagnostic::new(format!("{error}{because}"));
                if help.is_empty() { diagnostic.into() } else { diagnostic.with_help(help).into() }
            }
            Self::Diagnostic(report) => report,
        }
    }
}

/// What an error says of its causes, nearest first.
pub(crate) fn causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string).collect()
}

/// Prints one line (or block) to standard output; a reader that has gone away is not an error.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Prints clap's own message; help and version are not mistakes.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}
