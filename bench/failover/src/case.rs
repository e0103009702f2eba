//! The faults that are compared: one column of the result each.

use clap::ValueEnum;
use serde::Serialize;

/// What is done to the region that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
pub(crate) enum Case {
    /// Its PostgreSQL is killed with all backends; the agent lives.
    #[value(name = "D")]
    #[serde(rename = "D")]
    Database,
    /// All its processes are killed.
    #[value(name = "K")]
    #[serde(rename = "K")]
    Killed,
    /// All its processes are stopped, and go on later.
    #[value(name = "S")]
    #[serde(rename = "S")]
    Stopped,
    /// It is cut off from everybody: silence in both directions, and everything in it goes on.
    #[value(name = "N")]
    #[serde(rename = "N")]
    Network,
    /// An operator moves the writer, with nothing broken.
    #[value(name = "P")]
    #[serde(rename = "P")]
    Planned,
}

impl Case {
    /// All of them, in the order of the columns.
    pub(crate) const ALL: [Self; 5] =
        [Self::Database, Self::Killed, Self::Stopped, Self::Network, Self::Planned];

    /// Its letter on the command line and in files.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Database => 'D',
            Self::Killed => 'K',
            Self::Stopped => 'S',
            Self::Network => 'N',
            Self::Planned => 'P',
        }
    }

    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Database => "D: database killed",
            Self::Killed => "K: region killed",
            Self::Stopped => "S: region stopped",
            Self::Network => "N: link cut",
            Self::Planned => "P: switchover, pause",
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.letter())
    }
}
