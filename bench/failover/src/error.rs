//! What can go wrong with the comparison itself, as opposed to the systems that it compares.

use std::{io, path::PathBuf, time::Duration};

use isles_lab::control::ControlError;

/// Why a comparison or one of its trials could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A program is not installed.
    #[error("{} is missing: run bench/failover/install", .0.display())]
    Missing(PathBuf),
    /// The fault did not take.
    #[error("{0} still answers although its link is cut")]
    NotCut(std::net::Ipv4Addr),
    /// Namespaces need root.
    #[error("the peers run in network namespaces, which needs root; `--systems isles` does not")]
    NotRoot,
    /// Somebody else has the namespaces.
    #[error("another comparison runs on this machine")]
    Busy,
    /// A file or directory of the comparison's own.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// A program that was to do one thing failed.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which, with its arguments.
        program: String,
        /// The end of what it said.
        said: String,
    },
    /// The kernel would not tie a writer to the process that started it.
    #[error("the kernel refused to tie this process to its parent")]
    Tie(#[source] io::Error),
    /// A system did not start.
    #[error("it was not ready within {} s: {lacks}", within.as_secs())]
    NotReady {
        /// What was missing.
        lacks: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// The table could not be made or did not reach every copy.
    #[error("the table did not reach every copy within {} s", .0.as_secs())]
    NoTable(Duration),
    /// Nothing was written before the fault.
    #[error("the writers had no acknowledgement before the fault")]
    NoWrites,
    /// The lab of Isles refused or did not answer.
    #[error("cannot {doing}")]
    Lab {
        /// What was asked for.
        doing: &'static str,
        /// The cause.
        source: ControlError,
    },
    /// The lab of Isles could not be read.
    #[error("the lab says nothing useful about {0}")]
    Unclear(&'static str),
    /// Somebody asked it to end.
    #[error("interrupted; what was measured is in the output directory")]
    Interrupted,
}

/// An error and what it comes from.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
