//! Keeps what a former writer alone holds, before its database is made anew.

use crate::{
    bookkeeping::{Node, Promotion},
    error::DatabaseError,
    link::Link,
    run::World,
};

/// Puts the writes that no later writer has into the ledger.
pub(crate) async fn keep_lone_writes(
    _world: &World,
    _own: &Link,
    _node: &Node,
    _history: &[Promotion],
) -> Result<(), DatabaseError> {
    Err(DatabaseError::Refused(
        "this region wrote under an older epoch; rejoining comes with the ledger".into(),
    ))
}
