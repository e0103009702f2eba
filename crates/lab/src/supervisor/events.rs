//! What a starting lab tells whoever watches: one event a line, so that `isles up --detach` can read them from a pipe.

use std::time::Duration;

use isles_model::RegionName;
use serde::{Deserialize, Serialize};

use crate::control::{LabState, Part};

/// Something that a person who waits wants to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Something worth knowing that stops nothing.
    Note {
        /// The sentence.
        text: String,
    },
    /// A step of the start is done.
    Step {
        /// The region, where it is one region's.
        region: Option<RegionName>,
        /// What is done: `postgres`, `lease store has a leader`.
        what: String,
        /// Since the start.
        after: Duration,
    },
    /// Every region is ready.
    Ready {
        /// What runs where.
        state: Box<LabState>,
    },
    /// A process ended after the lab was ready; it is started again.
    Ended {
        /// Its region.
        region: RegionName,
        /// Which.
        part: Part,
        /// How, in words.
        how: String,
        /// The end of its log.
        tail: String,
    },
    /// It could not start. Everything has been taken down again.
    Failed {
        /// What went wrong.
        error: String,
        /// Its causes, nearest first.
        causes: Vec<String>,
        /// What to do; may be empty.
        help: String,
    },
    /// It has stopped.
    Stopped,
}

/// Whom to tell.
pub type Watcher = std::sync::Arc<dyn Fn(&Event) + Send + Sync>;
