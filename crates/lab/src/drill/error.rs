//! Why a drill could not be carried out. A missed objective is no error: it is the drill's result.

use std::{io, path::PathBuf, time::Duration};

use isles_model::RegionName;

use super::session::SessionError;
use crate::control::ControlError;

/// Why a drill could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The lab does not answer, or refuses.
    #[error("cannot {doing}")]
    Lab {
        /// What the drill wanted of it.
        doing: &'static str,
        /// The cause.
        source: ControlError,
    },
    /// The lab is starting or stopping.
    #[error("the lab is not ready: {0}")]
    NotReady(String),
    /// A region's configuration cannot be read.
    #[error("cannot read the configuration of {region} ({})", path.display())]
    Config {
        /// The region.
        region: RegionName,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The region is not in the spec.
    #[error("there is no region {0} in this lab")]
    UnknownRegion(RegionName),
    /// The drill is for labs of another size.
    #[error("this drill suits {least} to {most} regions; the spec has {count}")]
    WrongSize {
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
        /// How many there are.
        count: usize,
    },
    /// The drill names the witness, and there is none.
    #[error("this lab has no witness")]
    NoWitness,
    /// The lab that runs was not started for this.
    #[error("the lab that runs cannot touch {what}: it was not started `--with {rig}`")]
    NoRig {
        /// What the drill wants to touch.
        what: &'static str,
        /// What the lab should have been started with.
        rig: &'static str,
    },
    /// The regions are not all well, so that the drill would measure something else.
    #[error("{because}; waited {} s for all regions to be well", within.as_secs())]
    Unwell {
        /// What is missing.
        because: String,
        /// How long the drill waited.
        within: Duration,
    },
    /// The probe table cannot be made, emptied, read or dropped.
    #[error("cannot {doing} the table of numbered writes in {region}")]
    Table {
        /// What the drill wanted to do.
        doing: &'static str,
        /// Where.
        region: RegionName,
        /// The cause.
        source: SessionError,
    },
    /// The probe table has not reached a replica.
    #[error("the table of numbered writes did not reach {region} within {} s", within.as_secs())]
    NotReplicated {
        /// The replica.
        region: RegionName,
        /// How long the drill waited.
        within: Duration,
    },
    /// A client never succeeded although nothing had been broken yet.
    #[error("{who} never succeeded although nothing was broken yet")]
    NeverWorked {
        /// Which client.
        who: String,
    },
    /// What was found cannot be written down.
    #[error("cannot write {}", path.display())]
    Evidence {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There was more to record than may be kept.
    #[error("there was more to record than may be kept; make it shorter")]
    TooMuch,
    /// The struck region did not come back.
    #[error("{region} was not back within {} s: {because}", within.as_secs())]
    NotBack {
        /// The region.
        region: RegionName,
        /// What is missing.
        because: String,
        /// How long the drill waited.
        within: Duration,
    },
}

impl DrillError {
    /// Whether nothing was broken because the lab is not fit for this drill.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::WrongSize { .. } | Self::NoWitness | Self::NoRig { .. } | Self::UnknownRegion(_))
    }
}
