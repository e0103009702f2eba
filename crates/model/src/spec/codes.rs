//! The table of everything that can be wrong in a spec: codes that stay the same from version to version.
//!
//! Titles and explanations are in `codes.md`, one section a code, so that they read as text.

use std::{fmt, str::FromStr};

/// One section a code: `## ISL010 Title`, then the explanation.
static EXPLANATIONS: &str = include_str!("codes.md");

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal $weight:ident,)+) => {
        /// A kind of mistake or warning in a spec.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Whether it stands in the way; a warning does not.
            pub fn is_error(self) -> bool {
                match self { $(Self::$name => codes!(@ $weight),)+ }
            }
        }
    };
    (@ error) => { true };
    (@ warning) => { false };
}

codes! {
    /// The text is not YAML.
    NotYaml = 1 error,
    /// Larger, deeper or longer than any spec.
    TooLarge = 2 error,
    /// A key is given twice.
    DuplicateKey = 3 error,
    /// Anchors, aliases, tags, several documents.
    YamlFeature = 4 error,
    /// Nothing but comments.
    Empty = 5 error,
    /// A key that no spec has there.
    UnknownKey = 10 error,
    /// A list where a text belongs, and the like.
    WrongType = 11 error,
    /// A key that must be there is not.
    MissingKey = 12 error,
    /// Not a length of time.
    BadDuration = 13 error,
    /// Not one of the words allowed.
    BadChoice = 14 error,
    /// The right type, but not a value that can be.
    BadValue = 15 error,
    /// Not a DNS label.
    BadName = 16 error,
    /// No region at all.
    NoRegions = 20 error,
    /// One region survives nothing.
    OneRegion = 21 warning,
    /// A region that no provider has.
    UnknownRegion = 22 error,
    /// A region is listed twice.
    RegionTwice = 23 error,
    /// The primary is not among the regions.
    PrimaryNotListed = 24 error,
    /// The distance to a region is not known.
    DistanceUnknown = 25 warning,
    /// Two regions cannot fail over by themselves.
    NoWitness = 30 warning,
    /// A recovery time without automatic failover.
    NoWitnessForObjective = 31 error,
    /// The witness holds data.
    WitnessHoldsData = 32 error,
    /// The lease is too short for the distances.
    LeaseTooShort = 33 error,
    /// Not an etcd endpoint.
    BadEndpoint = 34 error,
    /// The recovery time cannot be kept.
    RecoveryTimeTooShort = 40 error,
    /// No loss is promised, and commits do not wait.
    RecoveryPointImpossible = 41 error,
    /// A bounded loss is measured, not enforced.
    RecoveryPointMeasured = 42 warning,
    /// A dead app is noticed too late.
    ProbeTooSlow = 43 error,
    /// Users may hold an old address for longer than the recovery time.
    TtlAboveRecoveryTime = 44 warning,
    /// A probe lasts longer than the pause between two.
    ProbesOverlap = 45 error,
    /// Held writes give up before the failover ends.
    HoldTooShort = 46 warning,
    /// No replica can ever be that fresh.
    StalenessBelowDistance = 47 warning,
    /// No service, or several.
    OneServiceOnly = 50 error,
    /// A service that nothing can start.
    NothingToRun = 51 error,
    /// Replica counts that contradict each other.
    BadReplicas = 52 error,
    /// PostgreSQL is too old.
    EngineTooOld = 53 error,
    /// Commits cannot wait as asked.
    CommitCannotWait = 54 error,
    /// A pattern this version cannot keep.
    PatternNotYet = 55 error,
    /// Residency rules this version cannot keep.
    ResidencyNotYet = 56 error,
    /// The rehearsal cannot start the service.
    NoCommand = 57 warning,
    /// A variable that Isles itself must set.
    ReservedVariable = 58 error,
    /// Kept, checked, and without effect so far.
    NotObeyedYet = 60 warning,
}

impl Code {
    /// What it is called, in a few words.
    pub fn title(self) -> &'static str {
        self.section().0
    }

    /// What it means, why it matters and how to mend it, with an example. Markdown, lines of at most 120 characters.
    pub fn explanation(self) -> &'static str {
        self.section().1
    }

    fn section(self) -> (&'static str, &'static str) {
        let wanted = self.to_string();
        EXPLANATIONS
            .split("\n## ")
            .find_map(|section| section.strip_prefix(&wanted))
            .and_then(|section| section.split_once('\n'))
            .map(|(title, text)| (title.trim(), text.trim()))
            .expect("a test holds that codes.md has a section for every code")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ISL{:03}", *self as u16)
    }
}

/// A text that is not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a code of Isles; they look like ISL010")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;

    /// Takes `ISL010`, `isl010` and `10`.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let upper = text.trim().to_ascii_uppercase();
        let digits = upper.strip_prefix("ISL").unwrap_or(&upper);
        let number: Option<u16> = digits.parse().ok();
        let known = Self::ALL.iter().find(|code| number == Some(**code as u16));
        known.copied().ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_and_nothing_else_is() {
        for code in Code::ALL {
            assert!(!code.title().is_empty(), "{code}");
            assert!(code.explanation().contains("```yaml"), "{code} shows no example");
            assert!(
                code.explanation().lines().all(|line| line.chars().count() <= 120),
                "{code}: a long line"
            );
            assert_eq!(code.to_string().to_lowercase().parse(), Ok(*code));
        }
        let sections = EXPLANATIONS.matches("\n## ISL").count();
        assert_eq!(sections, Code::ALL.len());
        assert!("ISL999".parse::<Code>().is_err() && "".parse::<Code>().is_err());
    }
}
