//! What a drill expects to hold, whatever the spec's objectives say.

use std::{fmt, time::Duration};

use crate::spec::show_duration;

/// One expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// `writes within 5s`: some region's clients write again for good.
    Writes {
        /// The longest time.
        within: Duration,
        /// From when it is counted.
        from: Since,
    },
    /// `reads within 1s`: every region's users read again for good.
    Reads {
        /// The longest time.
        within: Duration,
        /// From when it is counted.
        from: Since,
    },
    /// `two-writers never`.
    TwoWritersNever,
    /// `lost none` or `lost counted`.
    Lost(Losses),
    /// `writer stays` or `writer moves`.
    Writer(WriterFate),
}

/// From when a recovery is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Since {
    /// The drill's first act.
    #[default]
    Begin,
    /// `after heal`: the drill's last act.
    Heal,
}

/// What may happen to acknowledged writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Losses {
    /// None may be lost, whatever the spec's commit mode.
    None,
    /// As many as the spec's commit mode allows; they are counted and listed.
    Counted,
}

/// What may happen to the right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterFate {
    /// The same region writes in the end, and no other has written.
    Stays,
    /// Another region took the right over.
    Moves,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, within, from) = match self {
            Self::Writes { within, from } => ("writes", within, from),
            Self::Reads { within, from } => ("reads", within, from),
            Self::TwoWritersNever => return f.write_str("two-writers never"),
            Self::Lost(Losses::None) => return f.write_str("lost none"),
            Self::Lost(Losses::Counted) => return f.write_str("lost counted"),
            Self::Writer(WriterFate::Stays) => return f.write_str("writer stays"),
            Self::Writer(WriterFate::Moves) => return f.write_str("writer moves"),
        };
        let after = match from {
            Since::Begin => "",
            Since::Heal => " after heal",
        };
        write!(f, "{what} within {}{after}", show_duration(*within))
    }
}
