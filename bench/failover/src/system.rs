//! The systems that are compared, each with the settings it is compared at: one row of the result each.

use clap::ValueEnum;
use serde::Serialize;

/// A system and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// Isles with an `isles.yaml` that sets no time.
    Isles,
    /// Patroni with its documented defaults.
    Patroni,
    /// Patroni with the shortest times it takes.
    PatroniTight,
    /// pg_auto_failover with its defaults.
    AutoFailover,
    /// pg_auto_failover with its times tuned down.
    AutoFailoverTight,
}

impl System {
    /// All of them, in the order of the rows.
    pub(crate) const ALL: [Self; 5] =
        [Self::Isles, Self::Patroni, Self::PatroniTight, Self::AutoFailover, Self::AutoFailoverTight];

    /// Its name on the command line and in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Isles => "isles",
            Self::Patroni => "patroni",
            Self::PatroniTight => "patroni-tight",
            Self::AutoFailover => "auto-failover",
            Self::AutoFailoverTight => "auto-failover-tight",
        }
    }

    /// The head of its row.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Isles => "Isles, defaults",
            Self::Patroni => "Patroni, defaults",
            Self::PatroniTight => "Patroni, ttl 20, loop_wait 1, retry_timeout 3",
            Self::AutoFailover => "pg_auto_failover, defaults",
            Self::AutoFailoverTight => "pg_auto_failover, tuned",
        }
    }

    /// Whether it is one that Isles is compared with.
    pub(crate) fn is_peer(self) -> bool {
        self != Self::Isles
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
