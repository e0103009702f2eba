//! What may go wrong for a user, what they are told, and whether trying again helps.

use std::error::Error as _;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio_postgres::error::SqlState;

/// Seconds named in `Retry-After`.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Everything a request may end in, other than success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No database answered in time; nothing was changed.
    #[error("the shop cannot reach its database just now; nothing was changed")]
    Unavailable,
    /// The connection broke while the commit was on its way, and the request carried no key to ask by.
    #[error("the connection broke while the change was being stored; it may or may not have been")]
    OutcomeUnknown,
    /// This copy of the database is still being filled.
    #[error("this copy of the database is still being filled")]
    CopyIncomplete,
    /// The request says something that cannot be done.
    #[error("{0}")]
    Invalid(&'static str),
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fewer pieces are left than were asked for.
    #[error("only {left} of {name} left")]
    SoldOut {
        /// The product.
        product_id: i64,
        /// Its name.
        name: String,
        /// Pieces left.
        left: i32,
    },
    /// The same `Idempotency-Key` came with another order.
    #[error("this Idempotency-Key was used for another order")]
    KeyReused,
    /// PostgreSQL refused a statement.
    #[error("the database refused")]
    Database(#[from] tokio_postgres::Error),
}

/// What to do about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The connection is of no more use, or leads to a server that may not write: take another.
    Reconnect,
    /// Two transactions were in each other's way: again on any connection.
    Retry,
    /// This copy does not hold what was asked for yet: ask the writer.
    Elsewhere,
    /// Trying again would fail alike: say so.
    Report,
}

impl Failure {
    /// The one table from failures to remedies (SQLSTATE: PostgreSQL, appendix A).
    pub fn remedy(&self) -> Remedy {
        let error = match self {
            Self::Unavailable => return Remedy::Reconnect,
            Self::CopyIncomplete => return Remedy::Elsewhere,
            Self::Database(error) => error,
            Self::OutcomeUnknown
            | Self::Invalid(_)
            | Self::NotFound(_)
            | Self::SoldOut { .. }
            | Self::KeyReused => return Remedy::Report,
        };
        let Some(state) = error.code() else {
            let io = matches!(error.source(), Some(source) if source.is::<std::io::Error>());
            return if io || error.is_closed() { Remedy::Reconnect } else { Remedy::Report };
        };
        match state.code().get(..2) {
            // Connection exceptions, authorization (the role may log in only where it may write), operator
            // intervention, too many connections, read-only server.
            Some("08" | "28" | "53") => return Remedy::Reconnect,
            Some("57") if *state != SqlState::QUERY_CANCELED => return Remedy::Reconnect,
            _ => {}
        }
        if *state == SqlState::READ_ONLY_SQL_TRANSACTION {
            return Remedy::Reconnect;
        }
        let contended = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
        ];
        let absent = [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        if contended.contains(state) {
            Remedy::Retry
        } else if absent.contains(state) {
            Remedy::Elsewhere
        } else {
            Remedy::Report
        }
    }

    /// The HTTP status (RFC 9110, section 15).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unavailable | Self::CopyIncomplete | Self::OutcomeUnknown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Invalid(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::SoldOut { .. } => StatusCode::CONFLICT,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Adds status and headers to a body, and leaves a trace of what a user cannot mend.
    pub fn respond(&self, body: impl IntoResponse) -> Response {
        if let Self::Database(error) = self {
            // Only the code: the message of a constraint may hold a row's values.
            let sqlstate = error.code().map_or("none", SqlState::code);
            tracing::error!(sqlstate, "A statement failed for a reason that a retry does not mend.");
        }
        let mut response = (self.status(), body).into_response();
        if matches!(self, Self::Unavailable) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.to_string() });
        if let Self::SoldOut { product_id, left, .. } = &self {
            body["product_id"] = json!(product_id);
            body["left"] = json!(left);
        }
        self.respond(Json(body))
    }
}
