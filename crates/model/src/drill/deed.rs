//! What a drill can do to a lab, in the words in which it is written.

use std::{fmt, time::Duration};

use super::subject::{Subject, Subjects};
use crate::{RegionName, spec::show_duration};

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// To all processes of a region at once: `kill region writer`.
    Region {
        /// What.
        verb: RegionVerb,
        /// Whose.
        who: Subjects,
    },
    /// To one process of a region: `crash postgres in writer`.
    Part {
        /// What.
        verb: PartVerb,
        /// Which process.
        part: DrillPart,
        /// Whose.
        who: Subjects,
    },
    /// To the links between regions: `cut link writer <-> others`.
    Link {
        /// What.
        what: LinkDeed,
        /// The sending side.
        from: Subjects,
        /// The receiving side.
        to: Subjects,
        /// `<->`: the other direction too.
        both: bool,
    },
    /// Sets the wall clock of a region's database off by so much; 0 sets it right: `skew clock in writer by +2s`.
    Clock {
        /// Whose.
        who: Subjects,
        /// Milliseconds ahead of the true time; negative: behind.
        ahead_ms: i64,
    },
    /// Fills the disk of a region's database, or frees it: `fill disk in writer`.
    Disk {
        /// Whose.
        who: Subjects,
        /// Fill it.
        full: bool,
    },
    /// An operator moves the right to write: `switchover to replica`.
    Switchover {
        /// To whom.
        to: Subject,
    },
    /// An operator moves the right to write back to the primary: `failback`.
    Failback,
    /// An operator takes a region out, or in again: `drain region replica`.
    Drain {
        /// Which.
        who: Subjects,
        /// Out.
        out: bool,
    },
    /// Mends everything that the drill has broken so far: `heal`.
    Heal,
}

/// What is done to all processes of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionVerb {
    /// SIGKILL, and kept down.
    Kill,
    /// Started again.
    Start,
    /// SIGSTOP: nothing runs and nothing ends, as in a machine that is suspended.
    Stall,
    /// SIGCONT.
    Thaw,
}

/// What is done to one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartVerb {
    /// SIGKILL, and kept down.
    Kill,
    /// SIGKILL; it comes back shortly, as a service manager would have it.
    Crash,
    /// Started again.
    Start,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
}

/// A kind of process in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrillPart {
    /// The database.
    Postgres,
    /// The region's member of the lease store.
    Etcd,
    /// The `isles agent`.
    Agent,
    /// All instances of the app.
    App,
}

/// What is done to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDeed {
    /// Nothing passes, and nobody is told: no answer, no reset.
    Cut,
    /// Connections are reset and new ones refused.
    Reset,
    /// Slower on top of the distance, one way.
    Slow {
        /// The extra time of each chunk.
        by: Duration,
        /// Bytes a second a connection; `None`: as before.
        rate: Option<u64>,
    },
    /// As before the drill.
    Heal,
}

impl Deed {
    /// Whether it breaks something, rather than mends it or is an operator's order.
    pub fn breaks(&self) -> bool {
        match self {
            Self::Region { verb, .. } => matches!(verb, RegionVerb::Kill | RegionVerb::Stall),
            Self::Part { verb, .. } => {
                matches!(verb, PartVerb::Kill | PartVerb::Crash | PartVerb::Freeze)
            }
            Self::Link { what, .. } => *what != LinkDeed::Heal,
            Self::Clock { ahead_ms, .. } => *ahead_ms != 0,
            Self::Disk { full, .. } => *full,
            Self::Switchover { .. } | Self::Failback | Self::Drain { .. } | Self::Heal => false,
        }
    }

    /// The same with the region that takes writes just now in the place of `holder`.
    #[must_use]
    pub fn with_holder(&self, holder: &RegionName) -> Self {
        let mut fixed = self.clone();
        match &mut fixed {
            Self::Region { who, .. }
            | Self::Part { who, .. }
            | Self::Clock { who, .. }
            | Self::Disk { who, .. }
            | Self::Drain { who, .. } => *who = who.with_holder(holder),
            Self::Link { from, to, .. } => {
                *from = from.with_holder(holder);
                *to = to.with_holder(holder);
            }
            Self::Switchover { to } if *to == Subject::Holder => *to = Subject::Named(holder.clone()),
            Self::Switchover { .. } | Self::Failback | Self::Heal => {}
        }
        fixed
    }

    /// The regions it names first: those that it strikes, where it breaks something.
    pub fn strikes(&self) -> Option<&Subjects> {
        match self {
            Self::Region { who, .. }
            | Self::Part { who, .. }
            | Self::Clock { who, .. }
            | Self::Disk { who, .. }
            | Self::Drain { who, .. } => Some(who),
            Self::Link { from, .. } => Some(from),
            Self::Switchover { .. } | Self::Failback | Self::Heal => None,
        }
    }
}

impl RegionVerb {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Start, Self::Stall, Self::Thaw];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Stall => "stall",
            Self::Thaw => "thaw",
        }
    }
}

impl PartVerb {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Kill, Self::Crash, Self::Start, Self::Freeze, Self::Thaw];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::Start => "start",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

impl DrillPart {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Etcd, Self::Agent, Self::App];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Etcd => "etcd",
            Self::Agent => "agent",
            Self::App => "app",
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region { verb, who } => write!(f, "{} region {who}", verb.word()),
            Self::Part { verb, part, who } => write!(f, "{} {} in {who}", verb.word(), part.word()),
            Self::Link { what, from, to, both } => {
                let verb = match what {
                    LinkDeed::Cut => "cut",
                    LinkDeed::Reset => "reset",
                    LinkDeed::Slow { .. } => "slow",
                    LinkDeed::Heal => "heal",
                };
                write!(f, "{verb} link {from} {} {to}", if *both { "<->" } else { "->" })?;
                let LinkDeed::Slow { by, rate } = what else { return Ok(()) };
                write!(f, " by {}", show_duration(*by))?;
                rate.map_or(Ok(()), |rate| write!(f, " rate {}", show_rate(rate)))
            }
            Self::Clock { who, ahead_ms } => {
                let sign = if *ahead_ms < 0 { '-' } else { '+' };
                let off = show_duration(Duration::from_millis(ahead_ms.unsigned_abs()));
                write!(f, "skew clock in {who} by {sign}{off}")
            }
            Self::Disk { who, full } => write!(f, "{} disk in {who}", if *full { "fill" } else { "free" }),
            Self::Switchover { to } => write!(f, "switchover to {to}"),
            Self::Failback => f.write_str("failback"),
            Self::Drain { who, out } => write!(f, "{} region {who}", if *out { "drain" } else { "undrain" }),
            Self::Heal => f.write_str("heal"),
        }
    }
}

/// Units of a rate and their bytes a second, as network people write them.
pub(super) const RATES: [(&str, u64); 3] = [("MB/s", 1_000_000), ("kB/s", 1_000), ("B/s", 1)];

fn show_rate(rate: u64) -> String {
    let fits = |(_, bytes): &&(&str, u64)| rate.is_multiple_of(*bytes);
    let (unit, bytes) = RATES.iter().find(fits).unwrap_or(&("B/s", 1));
    format!("{}{unit}", rate / bytes)
}
