//! Drills as text: what is broken when, and what must hold all the same. The lab runs a text in real time, the
//! simulation in virtual time.
//!
//! One line, one thing; `#` begins a comment, and those before the first line say what the drill shows:
//!
//! ```text
//! # The writer's region is cut off from all others, and joined again.
//! drill partition
//! regions 2..5
//! at 0s    cut link writer <-> others
//! at 15s   heal
//! expect   writes within 5s
//! expect   two-writers never
//! ```

mod catalogue;
mod deed;
mod expect;
mod line;
mod mistake;
mod parse;
mod subject;

use std::{fmt, ops::RangeInclusive, time::Duration};

pub use catalogue::{CATALOGUE, built_in};
pub use deed::{Deed, DrillPart, LinkDeed, PartVerb, RegionVerb};
pub use expect::{Expect, Losses, Since, WriterFate};
pub use mistake::{Mistake, Mistakes};
pub use parse::parse;
pub use subject::{Subject, Subjects};

use crate::spec::show_duration;

/// The longest text of a drill, in bytes.
pub const DRILL_BYTES_MAX: usize = 64 * 1024;
/// The most lines that break or mend something.
pub const ACTS_MAX: usize = 1000;
/// The latest moment of an act.
pub const ACT_AT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The fewest and the most data regions a drill may ask for.
pub const REGIONS: RangeInclusive<usize> = 1..=9;

/// A drill, checked: every act is in order of its time, and every word is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// Its name: a word of letters, digits and hyphens.
    pub name: String,
    /// What it shows, one entry a line of the text.
    pub says: Vec<String>,
    /// How many data regions it suits; a witness is not counted.
    pub regions: RangeInclusive<usize>,
    /// What is done, in order of time; acts of one moment in order of the lines. The first is at 0.
    pub acts: Vec<Act>,
    /// What must hold, besides the spec's objectives.
    pub expects: Vec<Expect>,
}

/// Something that is done at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Since the drill's first act.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

impl Drill {
    /// When the last act is done.
    pub fn last_act(&self) -> Duration {
        self.acts.iter().map(|act| act.at).max().unwrap_or_default()
    }

    /// Whether any act needs this.
    pub fn needs(&self, test: impl Fn(&Deed) -> bool) -> bool {
        self.acts.iter().any(|act| test(&act.deed))
    }
}

/// The drill as a text that [`parse`] reads back.
impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.says {
            writeln!(f, "{}", format!("# {line}").trim_end())?;
        }
        writeln!(f, "drill {}", self.name)?;
        let (least, most) = (self.regions.start(), self.regions.end());
        if least == most {
            writeln!(f, "regions {least}")?;
        } else {
            writeln!(f, "regions {least}..{most}")?;
        }
        for Act { at, deed } in &self.acts {
            writeln!(f, "at {:<8} {deed}", show_duration(*at))?;
        }
        for expect in &self.expects {
            writeln!(f, "expect {expect}")?;
        }
        Ok(())
    }
}
