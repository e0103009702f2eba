//! What can go wrong between an agent and a PostgreSQL, without ever repeating a value of a row.

use std::{path::PathBuf, time::Duration};

/// What failed, named for what we were doing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// No session could be opened.
    #[error("connecting to {whom}: {}", cause(.source))]
    Connect {
        /// `own database` or a region.
        whom: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// A statement failed. The text holds the SQLSTATE and names of objects; the server's message may quote
    /// values, so it is left out.
    #[error("{doing}: {}", cause(.source))]
    Query {
        /// What the statement was for.
        doing: &'static str,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// A bounded wait ended.
    #[error("{doing}: no answer within {after:?}")]
    Timeout {
        /// What was waited for.
        doing: &'static str,
        /// The bound.
        after: Duration,
    },
    /// `pg_dump` could not be run or failed.
    #[error("reading the schema of {whom} with pg_dump: {because}")]
    Dump {
        /// Whose schema.
        whom: String,
        /// Its first line of complaint.
        because: String,
    },
    /// The file that says who may log in could not be written.
    #[error("the file {}", .path.display())]
    Admission {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The ledger of lone writes could not be read or written.
    #[error("the ledger {}", .path.display())]
    Ledger {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A change stream could not be understood.
    #[error("reading a change stream")]
    Stream(#[from] crate::wire::pgoutput::Malformed),
    /// Carrying the order out now would harm data, or is not possible yet.
    #[error("{0}")]
    Refused(String),
    /// The region to follow is not among the peers.
    #[error("region {0} has no database address here")]
    UnknownPeer(isles_model::RegionName),
}

/// Says of a PostgreSQL error what may be printed: condition and names, no values.
pub(crate) fn cause(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        return std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    };
    let mut text = format!("SQLSTATE {}", db.code().code());
    let names = [
        ("schema", db.schema()),
        ("table", db.table()),
        ("column", db.column()),
        ("constraint", db.constraint()),
    ];
    for (what, name) in names {
        if let Some(name) = name {
            text.push_str(&format!(", {what} {name}"));
        }
    }
    if has_no_values(db.code()) {
        text.push_str(&format!(" ({})", db.message()));
    }
    text
}

/// Classes of errors whose messages name objects and settings only (PostgreSQL, appendix A): connection,
/// authorization, catalogue, syntax-or-access, object state, resources, operator intervention, configuration.
fn has_no_values(code: &tokio_postgres::error::SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "28" | "3D" | "3F" | "42" | "53" | "55" | "57" | "58" | "F0" | "2B")
}

/// Names what a statement was for.
pub(crate) trait Doing<T> {
    /// Turns the driver's error into ours.
    fn doing(self, doing: &'static str) -> Result<T, DatabaseError>;
}

impl<T> Doing<T> for Result<T, tokio_postgres::Error> {
    fn doing(self, doing: &'static str) -> Result<T, DatabaseError> {
        self.map_err(|source| DatabaseError::Query { doing, source })
    }
}

/// Bounds a wait by its own deadline.
pub(crate) async fn within<T>(
    after: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    tokio::time::timeout(after, work).await.unwrap_or(Err(DatabaseError::Timeout { doing, after }))
}
