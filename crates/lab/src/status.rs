//! Asks an agent what it knows, and says what a region still lacks before users can be sent to it.

use std::{net::SocketAddr, time::Duration};

use isles_model::{Because, Copy, DatabaseRole, DatabaseState, Snapshot, Writes};

use crate::http::{self, HttpError};

/// How long an agent on this machine may take to answer.
pub const STATUS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The agent does not answer.
    #[error("the agent does not answer")]
    Silent(#[source] HttpError),
    /// It answers something else.
    #[error("the agent answered {0} instead of its status")]
    Status(u16),
    /// It is of another version.
    #[error("the agent's status cannot be read")]
    Read(#[source] serde_json::Error),
}

/// `GET /v1/status` of the agent whose control port this is.
///
/// # Errors
/// When it does not answer, or not with a snapshot.
pub async fn snapshot(control: SocketAddr) -> Result<Snapshot, StatusError> {
    match http::get(control, "/v1/status", STATUS_WAIT_MAX).await.map_err(StatusError::Silent)? {
        (200, body) => serde_json::from_slice(&body).map_err(StatusError::Read),
        (status, _) => Err(StatusError::Status(status)),
    }
}

/// Whether the region knows where writes go, so that an app that writes at its start can be started.
pub fn knows_a_writer(snapshot: &Snapshot) -> bool {
    match snapshot.plan.writes {
        Writes::Here { .. } | Writes::At { .. } => true,
        Writes::Nowhere { .. } => false,
    }
}

/// What the region still lacks, in words; `None` when users can be sent to it.
pub fn lacks(snapshot: &Snapshot) -> Option<String> {
    let database = &snapshot.report.database;
    if database.state == DatabaseState::Down {
        return Some("its database does not answer the agent".into());
    }
    match &database.role {
        DatabaseRole::Fenced => {
            return Some(match &snapshot.plan.writes {
                Writes::Nowhere { because } => format!("there is no writer: {because}"),
                Writes::Here { .. } | Writes::At { .. } => "its database has no role yet".into(),
            });
        }
        DatabaseRole::Replica { writer, copy: Copy::Running, .. } => {
            return Some(format!("the first copy from {writer} is not complete"));
        }
        DatabaseRole::Replica { writer, copy: Copy::Extending, .. } => {
            return Some(format!("a new table's rows are on their way from {writer}"));
        }
        DatabaseRole::Writer { .. } | DatabaseRole::Replica { .. } => {}
    }
    let healthy = &snapshot.report.app.healthy;
    match healthy.iter().position(|up| !up) {
        Some(index) => Some(format!("app-{index} is not healthy")),
        None if healthy.is_empty() => Some("its app has not been probed".into()),
        None => serves(snapshot),
    }
}

/// Why its own plan keeps users away; a standby that is complete lacks nothing.
fn serves(snapshot: &Snapshot) -> Option<String> {
    let own = snapshot.plan.serve.iter().find(|serving| serving.region == snapshot.report.region);
    match own {
        None => Some("it has no plan yet".into()),
        Some(own) if own.because == Because::Standby || (own.app && own.reads) => None,
        Some(own) => Some(own.because.to_string()),
    }
}
