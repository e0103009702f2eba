//! How a command ends: an exit code, and on failure one message with its causes and what to do about it.

use std::{error::Error, fmt::Write as _, io::Write as _, process::ExitCode};

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
    report: miette::Report,
}

impl Failure {
    /// It went wrong (exit code 1).
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self { exit: Exit::Finding, report: chain(&error, None) }
    }

    /// It went wrong (exit code 1), and this is what to do.
    pub(crate) fn with_help(error: impl Error + Send + Sync + 'static, help: impl Into<String>) -> Self {
        Self { exit: Exit::Finding, report: chain(&error, Some(help.into())) }
    }

    /// A message of the command's own (exit code 1).
    pub(crate) fn message(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit: Exit::Finding, report: said(message.into(), help.into()) }
    }

    /// The arguments make no sense (exit code 2).
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, report: said(message.into(), help.into()) }
    }

    /// Refused for safety (exit code 3).
    pub(crate) fn refused(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, report: said(message.into(), help.into()) }
    }

    /// A diagnostic that shows its place in the spec (exit code 1).
    pub(crate) fn diagnostic(report: impl Into<miette::Report>) -> Self {
        Self { exit: Exit::Finding, report: report.into() }
    }

    /// Prints it to standard error (as JSON to standard output where the user asked for that) and gives the exit code.
    pub(crate) fn print(self, json: bool) -> ExitCode {
        if json {
            let mut causes: Vec<String> = self.report.chain().map(ToString::to_string).collect();
            let error = if causes.is_empty() { String::new() } else { causes.remove(0) };
            let help = self.report.help().map(|help| help.to_string());
            say(&serde_json::json!({ "error": error, "causes": causes, "help": help }).to_string());
        } else {
            // Because a broken pipe must not turn one failure into another, the result of writing is not looked at.
            let _ = writeln!(std::io::stderr(), "{:?}", self.report);
        }
        self.exit.into()
    }
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

fn said(message: String, help: String) -> miette::Report {
    let diagnostic = miette::MietteDiagnostic::new(message);
    if help.is_empty() { diagnostic.into() } else { diagnostic.with_help(help).into() }
}

/// One report of an error and all its causes: the message first, then each cause on its line.
fn chain(error: &dyn Error, help: Option<String>) -> miette::Report {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(message, "\n  because: {cause}");
        source = cause.source();
    }
    said(message, help.unwrap_or_default())
}
