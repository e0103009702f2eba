//! Why a lab could not be started, in the user's words, with what to do about it.

use std::{path::PathBuf, time::Duration};

use isles_model::RegionName;

use super::rigs::NoRig;
use crate::{
    blueprint::BlueprintError, control::Part, ports::PortError, postgres::ClusterError, tail::DISK_FULL,
};

/// Why a lab could not be started or kept.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// It could not be laid out.
    #[error(transparent)]
    Blueprint(#[from] BlueprintError),
    /// This machine cannot do what the lab was asked to be able to do.
    #[error(transparent)]
    Rig(#[from] NoRig),
    /// The spec says nothing that could be started.
    #[error("service `{service}` has no `command`, so the lab cannot start it")]
    NoCommand {
        /// The service.
        service: String,
    },
    /// A region's database could not be prepared or reached.
    #[error("the database of {region} did not start")]
    Database {
        /// The region.
        region: RegionName,
        /// The cause.
        source: ClusterError,
    },
    /// The template that databases are copied from could not be made.
    #[error("an empty database could not be prepared")]
    Template(#[source] ClusterError),
    /// A file or directory could not be made.
    #[error("cannot make {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The machine gives no thread or event queue for the WAN.
    #[error("the emulated WAN cannot be started")]
    Wan(#[source] std::io::Error),
    /// A listener of the supervisor's own could not be opened.
    #[error("the link between {from} and {to} could not be opened")]
    Link {
        /// The sending region.
        from: RegionName,
        /// The receiving one.
        to: RegionName,
        /// The cause.
        source: std::io::Error,
    },
    /// A process ended while the lab was starting.
    #[error("{part} in {region} {how}{}", tail_of(tail))]
    Ended {
        /// The region.
        region: RegionName,
        /// Which process.
        part: Part,
        /// How.
        how: String,
        /// The last lines of its log.
        tail: String,
    },
    /// The app runs but does not become healthy.
    #[error(
        "{part} in {region} was not healthy within {:.1} s (service start_period); its health check {path}: {said}{}",
        within.as_secs_f64(), tail_of(tail)
    )]
    Unhealthy {
        /// The region.
        region: RegionName,
        /// Which instance.
        part: Part,
        /// How long was waited.
        within: Duration,
        /// What was asked for.
        path: String,
        /// What came back.
        said: String,
        /// The last lines of its log.
        tail: String,
    },
    /// A region is not complete.
    #[error("{region} was not ready within {} s: {missing}{}", within.as_secs(), tail_of(tail))]
    NotReady {
        /// The region.
        region: RegionName,
        /// How long was waited.
        within: Duration,
        /// What is missing, in words.
        missing: String,
        /// The last lines of its agent's log.
        tail: String,
    },
    /// The lease store has no leader.
    #[error("the lease store elected no leader within {} s{}", within.as_secs(), tail_of(tail))]
    NoLeader {
        /// How long was waited.
        within: Duration,
        /// The last lines of a member's log.
        tail: String,
    },
    /// The user stopped it.
    #[error("stopped before it was ready")]
    Interrupted,
}

impl LabError {
    /// What to do about it; empty where there is nothing to say.
    pub fn remedy(&self) -> String {
        match self {
            Self::Blueprint(BlueprintError::Port { source: PortError::Taken { .. }, .. }) => {
                "stop what uses the port, or choose another with --edge-port (or none: isles then finds free ports)".into()
            }
            Self::Blueprint(BlueprintError::KeptPort(_)) => {
                "stop what uses the port, or give up the kept databases with `isles down`".into()
            }
            Self::NoCommand { service } => format!("add `command:` to services.{service}, as you would type it in a shell"),
            Self::Ended { tail, region, part: Part::Postgres, .. } if tail.contains(DISK_FULL) => disk_full(region),
            Self::Database { region, source: ClusterError::Prepare { source, .. } }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                disk_full(region)
            }
            Self::Database { source: ClusterError::OtherVersion { .. }, .. } => {
                "give up the kept databases with `isles down`, or install the version that made them".into()
            }
            Self::Ended { part: Part::App(_), .. } => {
                "run the service's command by hand; it gets PORT, DATABASE_URL, DATABASE_READ_URL and ISLES_REGION".into()
            }
            Self::Unhealthy { .. } => {
                "the app must answer its health check on 127.0.0.1:$PORT; a slow start needs a longer healthcheck.start_period".into()
            }
            Self::Rig(rig) => rig.remedy().to_owned(),
            Self::Blueprint(_) | Self::Database { .. } | Self::Template(_) | Self::File { .. } | Self::Wan(_) | Self::Link { .. }
            | Self::Ended { .. } | Self::NotReady { .. } | Self::NoLeader { .. } | Self::Interrupted => String::new(),
        }
    }
}

fn disk_full(region: &RegionName) -> String {
    format!("free space, or give the database another directory: --data-dir {region}=PATH")
}

fn tail_of(tail: &str) -> String {
    if tail.is_empty() { "; its log is empty".to_owned() } else { format!("; the end of its log:\n{tail}") }
}
